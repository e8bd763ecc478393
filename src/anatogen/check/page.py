"""The check as one self-contained HTML page: verdict, findings, example slices, and the share of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from anatogen.check import CheckReport, Example
from anatogen.check.text import counted, percent, verdict
from anatogen.files import writing
from anatogen.labels import LabelClass, LabelSchema
from anatogen.reporting import figures
from anatogen.reporting.report import Figure

_UNDECLARED = "not declared"
_FILES_SHOWN = 8


def write_page(report: CheckReport, path: Path, *, version: str = "") -> None:
    """Write `report` as a self-contained HTML file. Raises OutputError if it cannot be written."""
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    used = [c for c in report.classes if c.patients]
    most = max((c.per_patient[2] for c in used), default=0.0) or 1.0
    page = environment.get_template("check.html").render(
        report=report,
        verdict=verdict(report),
        figure=overlays(report),
        used=used,
        scale=most,
        groups=report.groups(),
        files_shown=_FILES_SHOWN,
        version=version,
        counted=counted,
        percent=percent,
    )
    with writing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def overlays(report: CheckReport) -> Figure | None:
    """The example slices: image, label map in colours, and outlines on the image; None without examples."""
    if not report.examples:
        return None
    schema = _with_undeclared(report.schema)
    rows = [_row(example, schema) for example in report.examples]
    half = -(-len(rows) // 2)
    wide = [rows[i] + (rows[i + half] if i + half < len(rows) else []) for i in range(half)]
    caption = (
        "The axial slice with the most labels of each case: image, label map, and outlines of the label map on the "
        "image. Look for label maps that are shifted, flipped, or from another case."
    )
    last = report.schema.count - 1
    if any((example.labels > last).any() or (example.labels < 0).any() for example in report.examples):
        caption += " Undeclared values are magenta."
    return Figure("overlays", "Example slices", figures.grid(wide, cell=1.9), caption)


def _row(example: Example, schema: LabelSchema) -> list[figures.Picture]:
    """Image, label map and overlay."""
    labels = np.where((example.labels < 0) | (example.labels >= schema.count - 1), schema.count - 1, example.labels)
    colours = example.image if example.image.ndim == 3 else example.image[..., None]
    image = colours.transpose(2, 0, 1)
    title = example.case if len(example.case) <= 26 else f"...{example.case[-23:]}"
    return [
        (title, figures.gray(image)),
        ("label map", figures.coloured(labels, schema)),
        ("overlay", figures.outlined(image, labels, schema)),
    ]


def _with_undeclared(schema: LabelSchema) -> LabelSchema:
    """`schema` with one more class, in magenta, for undeclared values."""
    name = _UNDECLARED if _UNDECLARED not in schema.names else f"{_UNDECLARED} "
    return LabelSchema((*schema.classes, LabelClass(schema.count, name, "#FF00FF")))
