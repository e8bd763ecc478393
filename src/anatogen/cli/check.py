"""anatogen check"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import as_tuple, guarded, split_names


@guarded
def check(
    source: str = typer.Argument(help="A data set of any known layout, a prepared data set, or a sample set."),
    layout: str = typer.Option("auto", help="Layout of the data; auto detects it."),
    classes: str | None = typer.Option(
        None,
        metavar="NAME,NAME",
        help="Names of the classes 1, 2, ... if the layout has none; for colours: liver=#FF0000,spleen=#00FF00.",
    ),
    json_file: Path | None = typer.Option(None, "--json", metavar="FILE", help="Also write the findings as JSON."),
    html_file: Path | None = typer.Option(
        None, "--html", metavar="FILE", help="Also write an HTML page with overlays."
    ),
    fix: Path | None = typer.Option(None, metavar="OUT", help="Write a fixed copy to this new folder."),
) -> None:
    """Check a data set for problems and suggest fixes. The exit status is 0 if it is fit for training, 1 otherwise.

    Example: anatogen check Dataset004_Hippocampus --html check.html
    """
    from anatogen.check.text import as_text
    from anatogen.workflows.check import CheckRequest
    from anatogen.workflows.check import check as run_workflow

    names = as_tuple(split_names(classes))
    result = run_workflow(CheckRequest(source, layout, names, json=json_file, html=html_file, fix=fix))
    print(as_text(result.report))
    if result.fixed_files is not None:
        mapped = ", ".join(f"{a} to {b}" for a, b in (result.mapping or {}).items())
        print(f"{fix}: a copy with {result.fixed_files} label maps fixed{f' ({mapped})' if mapped else ''}")
        print(f"Next: anatogen check {fix}")
    elif fix is not None:
        print(f"{fix}: not written, nothing can be fixed without guessing")
    if not result.report.fit:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(check)
