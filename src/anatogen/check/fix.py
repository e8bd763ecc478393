"""Safe fixes in a new copy of a data set, never in place: remap label values, convert palette masks to gray."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.check.files import MOST_CLASSES, label_pixels, pair_pictures, picture_roots
from anatogen.check.listing import is_junk
from anatogen.check.values import FIXABLE, mapping_to_classes
from anatogen.data.sources import open_source
from anatogen.data.sources.colours import ColourTable, colour_table
from anatogen.data.sources.declared import read_description, schema_of
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.io.inspect import inspect_picture
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import write_label_png
from anatogen.volume import Volume


@dataclass(frozen=True)
class FixResult:
    """The mapping of label values (empty: none), and the number of label maps that were rewritten."""

    mapping: dict[int, int]
    files: int


def fix_labels(
    location: str, out: str | Path, classes: Sequence[str] | None = None, *, layout: str = "auto"
) -> FixResult:
    """Copy the data set at `location` to the new folder `out`, and fix its label maps where that needs no guess.

    Values that belong to no class are mapped in ascending order to 0, 1, 2, ... if all label maps together contain
    exactly as many values as there are classes (or, if none are declared, if the values are spread evenly over 0..255).
    Palette masks, gray masks saved as RGB, and colour masks with a colour table become gray PNG files of their labels.
    Junk files are not copied.

    Raises:
        SettingsError: `out` exists or is inside the data set, or nothing can be fixed.
        DataError: A label map cannot be read.
    """
    source, out = Path(location), Path(out)
    if out.exists() or out.is_symlink():
        raise SettingsError("already exists", path=out, hint="Choose another folder; --fix never writes in place")
    if out.resolve().is_relative_to(source.resolve()):
        raise SettingsError("is inside the data set", path=out, hint="Choose a folder outside")
    roots = picture_roots(source)
    if roots is not None:
        masks = [pair.mask for pair in pair_pictures(*roots) if pair.mask is not None]
        table = colour_table(source, classes)
        count = table.schema.count if table else None if classes is None else len(classes) + 1
        return _copy(source, out, masks, count, table)
    if (source / "dataset.json").is_file() and (source / "labelsTr").is_dir():
        masks = sorted(p for p in (source / "labelsTr").glob("*.nii*") if not is_junk(p))
        return _copy(source, out, masks, _declared(source / "dataset.json"))
    cases = open_source(location, layout, classes if classes is not None else ["class 1"]).cases
    masks = [case.files[-1] for case in cases if case.files]
    if not masks or not all(p.name.lower().endswith(FIXABLE) and p.is_relative_to(source) for p in masks):
        raise SettingsError(
            "label maps of this layout cannot be fixed", path=source, hint="--fix supports pictures, NPY and NIfTI"
        )
    return _copy(source, out, masks, None if classes is None else len(classes) + 1)


def _declared(description: Path) -> int:
    return schema_of(read_description(description), description).count


def _copy(
    source: Path, out: Path, masks: Sequence[Path], count: int | None, table: ColourTable | None = None
) -> FixResult:
    """Read all label maps for their values, then copy the data set and rewrite the label maps that need it."""
    union: set[int] = set()
    plain: dict[Path, bool] = {}
    for mask in masks:
        labels, plain[mask] = _read(mask, table)
        union |= set(np.unique(labels).tolist()) if labels is not None else set()
    mapping = mapping_to_classes(union, count) or {}
    moved = {value for value, index in mapping.items() if value != index}
    if not moved and all(plain.values()):
        raise SettingsError(
            "nothing can be fixed without guessing", path=source, hint="See the hints of anatogen check"
        )
    files = 0
    with writing(out) as partial:
        if partial.exists():
            shutil.rmtree(partial)
        for path in _data_files(source):
            copy = partial / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            labels = _read(path, table)[0] if path in plain else None
            if labels is None or (plain[path] and moved.isdisjoint(np.unique(labels).tolist())):
                shutil.copyfile(path, copy)
                continue
            _write(path, copy, _map(labels, mapping))
            files += 1
        if table is not None:  # keeps the names of the classes and their colours
            described = partial / "dataset.json"
            about = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
            text = json.dumps({**about, **table.describe()}, indent=1, ensure_ascii=False)
            described.write_text(text, encoding="utf-8")
    return FixResult(mapping, files)


def _data_files(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_junk(Path(name))]
        found += [Path(root) / name for name in files if not is_junk(Path(name)) and (Path(root) / name).is_file()]
    return found


def _read(path: Path, table: ColourTable | None = None) -> tuple[NDArray[np.generic] | None, bool]:
    """(labels, or None if they are not labels; whether the file stores them as plain label values)."""
    if path.name.endswith((".nii", ".nii.gz")):
        labels = read_nifti(path).array
        if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
            return None, True
        return labels.astype(np.int64), True
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        return (array if array.ndim == 2 and array.dtype.kind in "iu" else None), True
    picture = inspect_picture(path)
    if picture.frames > 1:
        return None, True
    pixels = label_pixels(picture, table)
    if pixels is None or len(np.unique(pixels)) > MOST_CLASSES:
        return None, True
    return pixels, not picture.palette and picture.pixels.ndim == 2


def _map(labels: NDArray[np.generic], mapping: dict[int, int]) -> NDArray[np.int64]:
    result = labels.astype(np.int64)
    for value, index in mapping.items():
        result[labels == value] = index
    return result


def _write(path: Path, copy: Path, labels: NDArray[np.int64]) -> None:
    if path.name.endswith((".nii", ".nii.gz")):
        kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
        write_nifti(copy, Volume(labels.astype(kind), read_nifti(path).affine))
    elif path.suffix.lower() == ".npy":
        write_npy(copy, labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16))
    else:
        write_label_png(copy.with_suffix(".png"), labels)
