"""The page of a training: its curves and its last preview, in a file that a browser reloads by itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from anatogen.files import writing
from anatogen.reporting.figures import curves

_MOST_POINTS = 400
PAGE = "training.html"


def write_training_page(run: Path, *, finished: bool = False) -> Path:
    """Write training.html into the folder `run` from its metrics.jsonl and previews; returns the file.

    finished: The page says so and no longer reloads. Raises OutputError where it cannot be written.
    """
    lines = read_metrics(run)
    pictures = [curves({"loss": series(lines, "loss")}, "loss", logarithmic=True)]
    classes = sorted({name for line in lines for name in line if name.startswith("dice/")})
    dice = {"mean": series(lines, "dice"), **{name.removeprefix("dice/"): series(lines, name) for name in classes}}
    if dice["mean"]:
        ceiling = series(lines, "dice_ceiling")
        pictures.append(curves(dice, "Dice", ceiling=ceiling[-1][1] if ceiling else None))
    previews = sorted((run / "previews").glob("*.png"))
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("training.html").render(
        name=run.resolve().name,
        finished=finished,
        step=lines[-1].get("step", 0) if lines else 0,
        speed=next((line["images_per_s"] for line in reversed(lines) if line.get("images_per_s")), None),
        dice=dice["mean"][-1] if dice["mean"] else None,
        curves=[_uri(picture) for picture in pictures],
        preview=_uri(previews[-1].read_bytes()) if previews else None,
        preview_step=int(previews[-1].stem) if previews else None,
        earlier=[(int(file.stem), f"previews/{file.name}") for file in previews[:-1]][::-1],
    )
    with writing(run / PAGE) as path:
        path.write_text(text, encoding="utf-8")
    return run / PAGE


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics.jsonl, none where there is no such file."""
    lines: list[dict[str, Any]] = []
    with suppress(FileNotFoundError):
        for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line may be half-written
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
    return lines


def series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of the lines that have `name`, thinned to at most 400 by averaging neighbours."""
    found = [(int(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), int | float)]
    size = -(-len(found) // _MOST_POINTS) or 1
    groups = [found[i : i + size] for i in range(0, len(found), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
