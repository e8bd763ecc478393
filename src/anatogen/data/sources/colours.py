"""Colour masks: the table of the colour of each class.

It is in a dataset.json beside the folders, {"colours": {"liver": "#FF0000", "kidney": [0, 255, 0]}}, or in the class
names, "liver=#FF0000". The background's colour is black, unless "background" is in the table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError
from anatogen.io.pictures import read_colours
from anatogen.labels import LabelClass, LabelSchema

MOST_COLOURS = 64
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLE = 'Expected for instance {"colours": {"liver": "#FF0000", "kidney": "#00FF00"}}'


@dataclass(frozen=True)
class ColourTable:
    """The colour "#RRGGBB" of the background and of each class, in their order."""

    background: str
    classes: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        colours = [self.background, *(colour for _, colour in self.classes)]
        for colour in colours:
            if colours.count(colour) > 1:
                raise DataError(f"two classes have the colour {colour}", hint="Give each class its own colour")

    @property
    def schema(self) -> LabelSchema:
        """The classes with their colours."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, start=1)))

    def labels(self, pixels: NDArray[Any], path: Path | str) -> NDArray[np.integer]:
        """The label map (H, W) of colours (H, W, 3). Raises DataError for a colour that is not in the table."""
        codes = _codes(pixels)
        table = {_code(self.background): 0, **{_code(c): i for i, (_, c) in enumerate(self.classes, start=1)}}
        found, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
        strange = [k for k, code in enumerate(found) if int(code) not in table]
        if strange:
            most = max(strange, key=lambda k: counts[k])
            what = f"has {counts[most]} pixels of the undeclared colour {_name(int(found[most]))}"
            if len(strange) > 1:
                what += f", and {len(strange) - 1} more undeclared colours"
            raise DataError(what, path=path, hint="Add it to the colours, or save the masks without smoothing")
        kind = np.uint8 if len(table) <= 256 else np.uint16
        ours: NDArray[np.integer] = np.array([table[int(code)] for code in found], kind)
        return np.asarray(ours[place].reshape(codes.shape))

    def describe(self) -> dict[str, Any]:
        """The table for dataset.json."""
        return {"colours": {"background": self.background, **dict(self.classes)}}


def colour_table(folder: Path, classes: Sequence[str] | None = None) -> ColourTable | None:
    """The table in `classes` ("liver=#FF0000"), or in the dataset.json of `folder`; None if there is none.

    Raises:
        SettingsError: `classes` is an invalid table.
        DataError: dataset.json has an invalid table.
    """
    named = [name.rpartition("=") for name in classes or () if _HEX.fullmatch(name.rpartition("=")[2].strip())]
    if named:
        if len(named) < len(classes or ()):
            raise SettingsError("only some of the classes have a colour", hint="Give all of them one")
        return _table({name.strip(): colour.strip() for name, _, colour in named}, "--classes")
    path = folder / "dataset.json"
    if classes is not None or not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"is not valid JSON ({error})", path=path) from error
    colours = described.get("colours", described.get("colors")) if isinstance(described, dict) else None
    if colours is None:
        return None
    if not isinstance(colours, dict) or not colours:
        raise DataError('"colours" is not a table', path=path, hint=_EXAMPLE)
    return _table(colours, path)


def _table(colours: Mapping[str, Any], path: Path | str) -> ColourTable:
    clean = {name: _hex(colour, path) for name, colour in colours.items()}
    background = clean.pop("background", "#000000")
    if not clean:
        raise DataError("declares no class", path=path, hint=_EXAMPLE)
    try:
        return ColourTable(background, tuple(clean.items()))
    except DataError as error:
        raise DataError(error.problem, path=path, hint=error.hint) from error


def require_no_colours(masks: Iterable[Path]) -> None:
    """Raise DataError, with the colours that occur, if masks are colour pictures without a colour table."""
    counts: Counter[int] = Counter()
    first: Path | None = None
    for path in masks:
        try:
            pixels = read_colours(path)
        except DataError:
            continue  # reported when its case is read
        if pixels is None:
            continue
        found, each = np.unique(_codes(pixels), return_counts=True)
        counts.update(dict(zip(found.tolist(), each.tolist(), strict=True)))
        if first is None and any(len(set(_rgb(code))) > 1 for code in found.tolist()):
            first = path
        if first is not None and len(counts) > MOST_COLOURS:
            raise DataError(
                f"and the masks before it contain {len(counts)} colours: smoothed, or not label maps",
                path=path,
                hint="Export the masks again without smoothing, preferably as label values 0, 1, 2, ... in gray pixels",
            )
    if first is None:
        return
    total = sum(counts.values())
    listed = ", ".join(f"{_name(code)} ({100 * n / total:.2g} %)" for code, n in counts.most_common(12))
    classes = [_name(code) for code, _ in counts.most_common() if code][:12]
    asked = ",".join(f"name{i}={colour}" for i, colour in enumerate(classes, start=1))
    raise DataError(
        f"is a colour picture without a colour table; the masks contain {listed}",
        path=first,
        hint=f'Name them with --classes "{asked}", or in a dataset.json. {_EXAMPLE}',
    )


def _hex(colour: Any, path: Path | str) -> str:
    if isinstance(colour, str) and _HEX.fullmatch(colour):
        return colour.upper()
    if isinstance(colour, list) and len(colour) == 3 and all(isinstance(v, int) and 0 <= v < 256 for v in colour):
        return "#" + "".join(f"{v:02X}" for v in colour)
    raise DataError(f"{colour} is not a colour", path=path, hint=_EXAMPLE)


def _codes(pixels: NDArray[Any]) -> NDArray[np.int64]:
    wide = pixels[..., :3].astype(np.int64)
    codes: NDArray[np.int64] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def _code(colour: str) -> int:
    return int(colour[1:], 16)


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _name(code: int) -> str:
    return f"#{code:06X}"
