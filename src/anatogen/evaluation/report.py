"""The report: report.json, figures/, and one self-contained page, report.html."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from anatogen.labels import LabelSchema
from anatogen.runtime import writing

_MEASURES = (
    ("dice_gen_map", "generated images against their label maps", "Dice(m_gen, m)"),
    ("dice_gen_real", "generated images against the real images of the same maps", "Dice(m_gen, m_real)"),
    ("dice_real_map", "real images against their label maps: the ceiling", "Dice(m_real, m)"),
)


@dataclass(frozen=True)
class Figure:
    """One picture (PNG) of the report, its heading and what it shows."""

    name: str
    heading: str
    png: bytes
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_report(out: Path, results: dict[str, Any], pages: list[Figure], schema: LabelSchema) -> None:
    """Write `results` as report.json and, with the figures, as report.html to the folder `out`."""
    with writing(out / "report.json") as path:
        text = json.dumps(_without_nan(results), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text, encoding="utf-8")
    for figure in pages:
        with writing(out / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
    environment = Environment(
        loader=PackageLoader("anatogen.evaluation"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    environment.filters["number"] = lambda value: f"{value:.3f}" if math.isfinite(value) else "–"
    page = environment.get_template("report.html").render(
        results=results,
        measures=_MEASURES,
        figures=pages,
        classes=schema.classes,
        settings=json.dumps(
            {key: results[key] for key in ("sampling", "model", "dataset")}, indent=1, ensure_ascii=False
        ),
    )
    with writing(out / "report.html") as path:
        path.write_text(page, encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
