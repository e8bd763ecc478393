"""A folder of edited label maps: edits.json, maps.jsonl, places.jsonl, and the maps below maps/.

Slices are PNG, volumes NPY, both with class numbers, so that they are read back exactly. A line of maps.jsonl is
written after its file, so an interrupted folder is valid, and can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.foreign_maps import bring
from anatogen.data.placement import Placement
from anatogen.errors import DataError, SettingsError
from anatogen.files import append, is_empty, locked, safe_name, writing
from anatogen.generation.folder_maps import FolderMap
from anatogen.generation.ledger import MOST_IN_A_FOLDER, PLACES, read_lines, read_places
from anatogen.generation.manifest import EditsHeader, MapLine, Origin, PlaceInScan, PlaceLine
from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import read_label_picture, write_label_png
from anatogen.model import ModelSpec
from anatogen.settings import Document

HEADER, MAPS = "edits.json", "maps.jsonl"
_SAME_PIXELS = 0.15


def read_map(folder: Path, line: MapLine) -> NDArray[np.int64]:
    """The label map (*spatial) of a line. Raises DataError if its file is missing or damaged."""
    path = folder / line.file
    labels: NDArray[Any] = read_label_picture(path) if path.suffix == ".png" else read_npy(path)
    return labels.astype(np.int64)


def edited_maps_in(folder: Path, model: ModelSpec) -> list[FolderMap]:
    """The maps of an edited folder, brought to the size and the pixels of `model`, with where they are from.

    Raises DataError where a line or a file is damaged or missing, the classes or the axis are not the model's, or there
    is no map.
    """
    header = EditsHeader.read(folder / HEADER)
    _check_fits(header, model, folder)
    lines, scans = read_lines(folder / MAPS, MapLine), read_places(folder)
    if not lines:
        raise DataError("holds no label maps yet", path=folder, hint="Run anatogen edit again")
    found = []
    for line in lines:
        if not (folder / line.file).is_file():
            raise DataError(f"{line.file} is missing", path=folder, hint=MapLine.HINT)
        place = None
        if line.place is not None and line.place.scan in scans and line.place.position is not None:
            place = scans[line.place.scan].placement(line.place.position)
        spacing = spacing_of(place) or header.spacing_mm
        fits = header.size == model.size and same_pixels(header.spacing_mm, model.spacing_mm)
        read = partial(_read_for, folder, line, model, None if fits else spacing)
        read()  # a bad one is known before the first image is made
        states = model.schema.states(given=line.known)
        origin = Origin(**{name: getattr(line, name) for name in Origin.model_fields})
        origin = origin.model_copy(update={"file_of_map": line.file})
        used = spacing if fits else model.spacing_mm
        found.append(FolderMap(line.id, line.file, read, states, None, origin, place if fits else None, used))
    return found


def spacing_of(place: Placement | None) -> tuple[float, ...] | None:
    """The pixel size in mm along each axis of the items of a placement."""
    if place is None:
        return None
    spacing = place.labels(np.zeros(place.cut.size, np.uint8)).spacing_mm
    return tuple(spacing[axis] for axis in (2, 1, 0) if axis != place.cut.sliced)


def _check_fits(header: EditsHeader, model: ModelSpec, folder: Path) -> None:
    names = header.label_schema.names
    if names != model.schema.names:
        ours, theirs = ", ".join(model.schema.names), ", ".join(names)
        hint = "Edit the maps of a data set with the model's classes"
        raise DataError(f"the model knows the classes {ours}, the label maps have {theirs}", path=folder, hint=hint)
    kinds = (len(header.size), len(model.size))
    if kinds[0] != kinds[1] or (None not in (header.axis, model.axis) and header.axis != model.axis):
        what = [f"{axis} slices" if dim == 2 else "volumes" for axis, dim in zip((header.axis, model.axis), kinds)]
        problem = f"holds label maps of {what[0]}, the model makes {what[1]}"
        raise DataError(problem, path=folder, hint="Edit the maps of a data set that was prepared as the model's was")


def same_pixels(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether pixel sizes agree to 15 %, as those of a model and of label maps have to; unknown ones do."""
    if one is None or other is None:
        return True
    return all(math.isclose(a, b, rel_tol=_SAME_PIXELS) for a, b in zip(one, other, strict=True))


def _read_for(folder: Path, line: MapLine, model: ModelSpec, spacing: tuple[float, ...] | None) -> NDArray[np.int64]:
    labels = read_map(folder, line)
    if labels.ndim != len(model.size) or labels.min() < 0 or labels.max() >= model.schema.count:
        problem = f"is no label map of {len(model.size)} axes with classes 0 to {model.schema.count - 1}"
        raise DataError(problem, path=folder / line.file, hint=MapLine.HINT)
    if spacing is None and labels.shape == model.size:
        return labels
    return bring(labels, spacing, model.size, model.spacing_mm if spacing is not None else None)[0]


class EditedFolder:
    """The folder that is being written, new or of the same edits. Used as a context, which holds its lock.

    Raises:
        SettingsError: The folder holds something else, or maps that were edited otherwise.
        OutputError: Another process writes to it, or it cannot be written.
    """

    def __init__(self, folder: Path, header: EditsHeader) -> None:
        self.folder, self.header = folder, header

    def __enter__(self) -> EditedFolder:
        """Lock the folder, and read what is there."""
        folder = self.folder
        if not is_empty(folder) and not (folder / HEADER).exists():
            raise SettingsError(
                "already exists and holds no edited label maps", path=folder, hint="Choose another folder"
            )
        self._lock = locked(folder)
        self._lock.__enter__()
        try:
            self._begin()
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        """Release the lock."""
        self._lock.__exit__(*error)

    def _begin(self) -> None:
        path = self.folder / HEADER
        if path.exists():
            different = EditsHeader.read(path).difference(self.header)
            if different is not None:
                name, there, wanted = different
                problem = f"holds label maps made with {name} {there}, not {wanted}"
                raise SettingsError(problem, path=self.folder, hint="Choose another folder, or ask for the same")
        self.header.write(path)
        self.lines = read_lines(self.folder / MAPS, MapLine)
        self.scans = set(read_places(self.folder))
        self._ids = {line.id for line in self.lines}
        self._names = {line.id.lower() for line in self.lines}
        for name, lines in ((MAPS, self.lines), (PLACES, read_lines(self.folder / PLACES, PlaceLine))):
            if (self.folder / name).exists():  # without a line that a killed process left half-written
                with writing(self.folder / name) as partial_path:
                    partial_path.write_bytes(b"".join(_line(line) for line in lines))

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def add(
        self, name: str, labels: NDArray[np.int64], known: Sequence[str], origin: Origin, place: Placement | None
    ) -> MapLine:
        """Write a label map (*spatial), and then its line."""
        below = f"maps/{len(self.lines) // MOST_IN_A_FOLDER:03d}/{safe_name(name, self._names)}"
        slices = labels.ndim == 2
        file = f"{below}{'.png' if slices else '.npy'}"
        write: Callable[[Path, NDArray[Any]], None] = write_label_png if slices else write_npy
        kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
        with writing(self.folder / file) as path:
            write(path, labels.astype(kind))
        line = MapLine(**dict(origin), id=name, file=file, known=tuple(known), place=self._place(place))
        append(self.folder / MAPS, _line(line))
        self.lines.append(line)
        self._ids.add(name)
        self._names.add(name.lower())
        return line

    def _place(self, place: Placement | None) -> PlaceInScan | None:
        if place is None:
            return None
        line = PlaceLine.of(place)
        if line.id not in self.scans:
            append(self.folder / PLACES, _line(line))
            self.scans.add(line.id)
        return PlaceInScan(scan=line.id, position=place.position)


def _line(line: Document) -> bytes:
    return f"{line.text_on_disk()}\n".encode()
