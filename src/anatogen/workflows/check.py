"""Check any data set, prepared set or sample set, and write the findings as text, JSON, a page, and a fixed copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen import __version__
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.check import CheckReport


@dataclass(frozen=True)
class CheckRequest:
    """The request of `anatogen check`.

    Args:
        source: A data set, prepared set or sample set.
        layout: The layout; "auto" detects it.
        classes: Names of the classes 1, 2, ... if the layout has none.
        json, html: Files to write.
        fix: A new folder for a fixed copy.
    """

    source: str
    layout: str = "auto"
    classes: tuple[str, ...] | None = None
    json: Path | None = None
    html: Path | None = None
    fix: Path | None = None


@dataclass(frozen=True)
class CheckResult:
    """The findings, and what was fixed in the copy; None if nothing was.

    Attributes:
        fixed_files: The number of label maps that were rewritten.
        mapping: The mapping of their values.
    """

    report: CheckReport
    fixed_files: int | None = None
    mapping: dict[int, int] | None = None


def check(request: CheckRequest, *, monitor: Monitor | None = None) -> CheckResult:
    """Check the data of `request`. Raises DataError or SettingsError if it cannot be opened at all."""
    from anatogen.check import fix_labels

    if request.fix is not None and request.fix.exists():  # before the check, which may take long
        raise SettingsError(
            "already exists", path=request.fix, hint="Choose another folder; --fix never writes in place"
        )
    with watched_by(monitor):
        report = _report(request)
    if request.json is not None:
        with writing(request.json) as path:
            text = json.dumps({**report.as_dict(), "version": __version__}, indent=1, ensure_ascii=False)
            path.write_text(text, encoding="utf-8")
    if request.html is not None:
        from anatogen.check.page import write_page

        write_page(report, request.html, version=__version__)
    if request.fix is None or not any(finding.fixable for finding in report.findings):
        return CheckResult(report)
    names = list(request.classes) if request.classes is not None else None
    fixed = fix_labels(request.source, request.fix, names, layout=request.layout)
    return CheckResult(report, fixed.files, dict(fixed.mapping))


def _report(request: CheckRequest) -> CheckReport:
    from anatogen.check import check as run
    from anatogen.check import check_prepared
    from anatogen.check.samples import check_samples

    folder = Path(request.source)
    with stage("checking", 1, "cases") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        if (folder / "samples.json").is_file():
            return check_samples(folder, progress=show)
        if (folder / "index.csv").is_file() or (folder / "images.b2nd").is_file():
            return check_prepared(folder, progress=show)
        names = list(request.classes) if request.classes is not None else None
        return run(request.source, request.layout, names, progress=show)
