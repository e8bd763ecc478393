"""What the documents promise: links that lead somewhere, commands that the command line takes, extras that exist."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anatogen import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[list[str]]:
    """The command lines in the code blocks of a page."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("anatogen "):
                yield shlex.split(line)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        made = page.parent / target == ROOT / "docs" / "commands.md"  # made with the site
        assert made or "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_taken(page: Path) -> None:
    from typer.main import get_command

    from anatogen.cli.app import app

    group: Any = get_command(app)
    for name, *arguments in commands(page.read_text(encoding="utf-8")):
        group.commands[name].make_context(name, arguments)  # exits where an option is unknown or missing


def test_a_wrong_command_would_be_found() -> None:
    from typer.main import get_command

    from anatogen.cli.app import app

    [(name, *arguments)] = commands("```\nanatogen train data --out run --no-such-option\n```\n")
    with pytest.raises(Exception, match="no-such-option"):
        get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_extras_that_messages_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {
        extra
        for file in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"anatogen\[(\w+)\]", file.read_text(encoding="utf-8"))
    }
    assert named and named <= extras.keys()
    alone = {name for [listed] in [extras["all"]] for name in re.findall(r"\w+", listed.partition("[")[2])}
    assert alone <= extras.keys() and "frd" not in alone


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message", "license", "references"} <= citation.keys()


def test_the_page_of_commands_holds_every_option() -> None:
    pytest.importorskip("mkdocs")
    from typer.main import get_command

    from anatogen.cli.app import app

    sys.path.insert(0, str(ROOT / "docs" / "tools"))
    try:
        from hooks import commands_page
    finally:
        sys.path.pop(0)
    page = commands_page()
    group: Any = get_command(app)
    for name, command in group.commands.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert f"Usage: anatogen {name}" in section
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in section, (name, parameter.opts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short(page: Path) -> None:
    code = False
    for line in page.read_text(encoding="utf-8").splitlines():
        code ^= line.startswith("```")
        assert code or line.startswith("|") or len(line) <= 120, line
