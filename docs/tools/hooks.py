"""Hooks of the documentation build: the page of commands is generated from the help of each command."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

INTRODUCTION = """# Commands

`anatogen COMMAND --help` prints the same. Exit status: 0 success, 1 `check` found errors, 2 invalid input, 130
interrupted (the message says what was saved).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add commands.md."""
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def commands_page() -> str:
    """Each command: its help as text, then usage, arguments and options as in the terminal."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from anatogen.cli.app import app

    group: Any = get_command(app)
    lines = [INTRODUCTION]
    for name, command in group.commands.items():
        shown = CliRunner().invoke(app, [name, "--help"], max_content_width=100, terminal_width=100)
        if shown.exit_code:
            raise RuntimeError(f"anatogen {name} --help: {shown.output}") from shown.exception
        usage, _, rest = shown.output.strip().partition("\n\n")
        starts = [at for at in (rest.find("\nArguments:"), rest.find("\nOptions:")) if at >= 0]
        usage = usage.replace("Usage: root", "Usage: anatogen")
        parameters = rest[min(starts) :].strip("\n")
        lines += [f"## {name}", "", *help_of(command.help or ""), "```text", usage, "", parameters, "```", ""]
    return "\n".join(lines)


def help_of(text: str) -> list[str]:
    """The paragraphs of a docstring, command lines as code."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        prose: list[str] = []
        for line in paragraph.strip().splitlines():
            before, is_example, typed = line.strip().partition("Example: ")
            if is_example and not before:
                prose += ["Example:", "", "```", typed, "```"]
            elif line.strip().startswith("anatogen "):
                prose += ["", "```", line.strip(), "```"]
            else:
                prose.append(line.strip())
        lines += [*prose, ""]
    return lines
