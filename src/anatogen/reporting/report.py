"""The report: report.json, figures/, and one self-contained page, report.html."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from anatogen.files import writing
from anatogen.labels import LabelSchema
from anatogen.reporting.answers import (
    Chapter,
    answers,
    generator_tables,
    images_in_words,
    not_applicable_in_words,
    provenance,
    selection_in_words,
    split_in_words,
)
from anatogen.reporting.results import Report


@dataclass(frozen=True)
class Figure:
    """One picture (PNG) of the report, its heading and what it shows.

    chapter: which question it belongs to ("model": the generator itself). n: what it was made from, in words, where
    that is not all of the images.
    """

    name: str
    heading: str
    png: bytes
    caption: str
    chapter: Chapter = "faithfulness"
    n: str = ""

    @property
    def data_uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_report(out: Path, report: Report, figures: Sequence[Figure], schema: LabelSchema) -> None:
    """Write `report` as report.json and, with the figures, as report.html to the folder `out`.

    A question without numbers or figures is left out of the page, which ends with what was not measured and how to get
    it. Raises OutputError where something cannot be written.
    """
    report.write(out / "report.json")
    for figure in figures:
        with writing(out / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
    with writing(out / "report.html") as path:
        path.write_text(_page(report, figures, schema), encoding="utf-8")


def _page(report: Report, figures: Sequence[Figure], schema: LabelSchema) -> str:
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = report.content()
    made_with = {key: content[key] for key in ("sampling", "model", "dataset") if content.get(key)}
    return environment.get_template("report.html").render(
        report=report,
        answers=answers(report, schema.names),
        figures={chapter: [f for f in figures if f.chapter == chapter] for chapter in {f.chapter for f in figures}},
        generator=generator_tables(report),
        # A colour is written into a style, where a text could name a picture elsewhere.
        classes=[
            (c.name, c.colour if re.fullmatch("#[0-9A-Fa-f]{6}", c.colour) else "#808080") for c in schema.classes
        ],
        images=images_in_words(report),
        split=split_in_words(report),
        selection=selection_in_words(report),
        not_applicable=not_applicable_in_words(report),
        provenance=lambda figure: provenance(report, figure.n),
        settings=json.dumps(made_with, indent=1, ensure_ascii=False),
    )
