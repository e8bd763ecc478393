"""The report: report.json, figures/, and one self-contained page, report.html."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from anatogen.files import writing
from anatogen.labels import LabelSchema
from anatogen.reporting.answers import (
    Section,
    answers,
    generator_tables,
    images_in_words,
    provenance,
    selection_in_words,
    split_in_words,
)


@dataclass(frozen=True)
class Figure:
    """One picture (PNG) of the report, its heading and what it shows.

    section: which question it belongs to ("model": the generator itself). n: what it was made from, in words, where that is
    not all of the images.
    """

    name: str
    heading: str
    png: bytes
    caption: str
    section: Section = "faithfulness"
    n: str = ""

    @property
    def data_uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_report(out: Path, results: dict[str, Any], pages: list[Figure], schema: LabelSchema) -> None:
    """Write `results` as report.json and, with the figures, as report.html to the folder `out`.

    A question without numbers or figures is left out of the page, which ends with what was not measured and how to get it.
    Raises OutputError where something cannot be written.
    """
    results = _without_nan(results)
    with writing(out / "report.json") as path:
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text, encoding="utf-8")
    for figure in pages:
        with writing(out / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
    with writing(out / "report.html") as path:
        path.write_text(_page(results, pages, schema), encoding="utf-8")


def _page(results: dict[str, Any], pages: list[Figure], schema: LabelSchema) -> str:
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made_with = {key: results[key] for key in ("sampling", "model", "dataset") if results.get(key)}
    return environment.get_template("report.html").render(
        results=results,
        answers=answers(results, schema.names),
        figures={answer: [f for f in pages if f.section == answer] for answer in {f.section for f in pages}},
        generator=generator_tables(results),
        # A colour is written into a style, where a text could name a picture elsewhere.
        classes=[
            (c.name, c.colour if re.fullmatch("#[0-9A-Fa-f]{6}", c.colour) else "#808080") for c in schema.classes
        ],
        images=images_in_words(results),
        split=split_in_words(results),
        selection=selection_in_words(results),
        provenance=lambda figure: provenance(results, figure.n),
        settings=json.dumps(made_with, indent=1, ensure_ascii=False),
    )


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
