"""anatogen check"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen import __version__
from anatogen.cli.common import guarded, split_names

if TYPE_CHECKING:
    from anatogen.check import CheckReport
    from anatogen.check.run import Progress as Callback


@guarded
def check(
    source: str = typer.Argument(help="A data set of any known layout, a prepared data set, or a sample set."),
    layout: str = typer.Option("auto", help="auto, or the name of a layout."),
    classes: str | None = typer.Option(
        None, metavar="NAME,NAME", help="Names of the classes 1, 2, ..., where the layout has none."
    ),
    json_file: Path | None = typer.Option(None, "--json", metavar="FILE", help="Write the findings as JSON too."),
    html_file: Path | None = typer.Option(None, "--html", metavar="FILE", help="Write a page with overlays too."),
    fix: Path | None = typer.Option(None, metavar="OUT", help="Write a mended copy to this new folder."),
) -> None:
    """Say whether data is fit to train on, and how to mend it. Leaves with 0 where it is, with 1 where it is not.

    Example: anatogen check Dataset004_Hippocampus --html check.html
    """
    import json

    from anatogen.check import mend
    from anatogen.check.text import as_text
    from anatogen.errors import SettingsError
    from anatogen.files import writing
    from anatogen.progress import Progress

    if fix is not None and fix.exists():  # before the long work
        raise SettingsError("is there already", path=fix, hint="Choose another folder; --fix never writes in place")
    names = split_names(classes)
    with Progress("checking", 1, "cases") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        report = _report(source, layout, names, show)
    print(as_text(report))
    if json_file is not None:
        with writing(json_file) as path:
            text = json.dumps({**report.as_dict(), "version": __version__}, indent=1, ensure_ascii=False)
            path.write_text(text, encoding="utf-8")
    if html_file is not None:
        from anatogen.check.page import write_page

        write_page(report, html_file, version=__version__)
    if fix is not None:
        if any(finding.fixable for finding in report.findings):
            mended = mend(source, fix, names, layout=layout)
            way = ", ".join(f"{a} to {b}" for a, b in mended.mapping.items())
            print(f"{fix}: a copy with {mended.files} label maps mended{f' ({way})' if way else ''}")
            print(f"Next: anatogen check {fix}")
        else:
            print(f"{fix}: not written, there is nothing that can be mended without a guess")
    if not report.fit:
        raise typer.Exit(1)


def _report(source: str, layout: str, classes: list[str] | None, progress: Callback) -> CheckReport:
    from anatogen.check import check as run
    from anatogen.check import check_prepared

    folder = Path(source)
    if (folder / "samples.json").is_file():
        from anatogen.check.samples import check_samples

        return check_samples(folder, progress=progress)
    if (folder / "index.csv").is_file() or (folder / "images.b2nd").is_file():
        return check_prepared(folder, progress=progress)
    return run(source, layout, classes, progress=progress)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(check)
