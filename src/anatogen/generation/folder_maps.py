"""Label maps that lie in a folder: pictures and arrays as they are, volumes drawn in Slicer or ITK-SNAP as a model's
slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anatogen.data.foreign_maps import Window, bring
from anatogen.data.label_values import to_classes, whole_labels
from anatogen.data.matching import match_classes, some
from anatogen.data.placement import Placement
from anatogen.errors import DataError, SettingsError
from anatogen.generation.manifest import Origin
from anatogen.io.npy import read_npy
from anatogen.io.nrrd import read_seg_nrrd
from anatogen.io.pictures import read_label_picture
from anatogen.io.volumes import VOLUMES, read_volume, volume_ending
from anatogen.labels import ClassStates, LabelSchema
from anatogen.model import ModelSpec
from anatogen.volume import SLICE_AXES, Volume, canonical

Fit = Literal["crop", "pad"]
ARRAYS = (".png", ".npy")


@dataclass(frozen=True)
class FolderMap:
    """One label map for one image. name: unique in the folder. read: gives it as the model takes it, int64 (*size).

    states: which classes it speaks for. slice: of a volume, its position along the model's axis; None for a whole map.
    origin, place, spacing_mm: of a map that was made from one of a data set.
    """

    name: str
    file: str
    read: Callable[[], NDArray[np.int64]]
    states: ClassStates
    slice: int | None = None
    origin: Origin | None = None
    place: Placement | None = None
    spacing_mm: tuple[float, ...] | None = None


def maps_in(
    folder: Path, model: ModelSpec, *, renames: Mapping[str, str] | None = None, fit: Fit = "crop"
) -> list[FolderMap]:
    """The label maps in `folder`, in order of their names, brought to the size of `model`.

    Pictures (PNG) and arrays (NPY) hold class numbers; one of another size than the model's is shrunk where it is too
    large, and filled up. Volumes (NIfTI, NRRD, MetaImage) hold the values that the files had which the model was
    trained on, and come to its axis, pixel size and field of view (see `Window.plan` for fit); every slice that shows a
    class is a map. The classes of 3D Slicer's .seg.nrrd are matched by their names (renames: see `match_classes`), and
    what it has no segment for is free. Raises DataError, naming the file, for a map that cannot be used, and where
    there is none.
    """
    if not folder.is_dir():
        raise DataError(
            "there is no such folder", path=folder, hint="Name a prepared data set or a folder of label maps"
        )
    files = sorted(f for f in folder.iterdir() if _is_map(f))
    if not files:
        raise DataError(f"holds no label maps ({', '.join((*ARRAYS, *VOLUMES))})", path=folder)
    maps: list[FolderMap] = []
    for file in files:
        if file.suffix.lower() in ARRAYS:
            _read_array(file, model)  # a bad one is known before the first image is made
            every = ClassStates.all_given(model.schema)
            maps.append(FolderMap(file.stem, file.name, partial(_read_array, file, model), every))
        else:
            maps += _of_volume(file, model, renames, fit)
    if not maps:
        raise DataError(f"none of the label maps shows {some(model.schema.names, 'or')}", path=folder)
    names = [m.name for m in maps]
    for m in maps:
        if names.count(m.name) > 1:
            raise DataError(f"two label maps are called {m.name}", path=folder / m.file, hint="Rename one of them")
    return maps


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask of `size` (*spatial), true where its file (PNG, NPY; of volumes NIfTI or NRRD, too) is not 0.

    Raises DataError where it has another size or cannot be read.
    """
    values: NDArray[Any]
    if path.suffix.lower() == ".png":
        values = read_label_picture(path)
    elif volume_ending(path.name) is not None:
        values = canonical(read_volume(path)).array.transpose(2, 1, 0)
    else:
        values = read_npy(path)
    if values.shape != size:
        shown = (" x ".join(map(str, each)) for each in (values.shape, size))
        raise DataError(
            "has {} pixels, the label maps have {}".format(*shown), path=path, hint="Draw it on one of the label maps"
        )
    return np.asarray(values != 0)


def _is_map(file: Path) -> bool:
    known = file.suffix.lower() in ARRAYS or volume_ending(file.name) is not None
    return known and not file.name.startswith(".") and file.is_file()


def _read_array(path: Path, model: ModelSpec) -> NDArray[np.int64]:
    labels: NDArray[Any] = read_label_picture(path) if path.suffix.lower() == ".png" else read_npy(path)
    if labels.dtype.kind not in "iu":
        raise DataError(f"holds values of type {labels.dtype}", path=path, hint="Store label maps as integers")
    if labels.ndim != len(model.size) or not labels.size:
        raise DataError(f"has shape {labels.shape}, the model makes {model.size}", path=path, hint="Give it these axes")
    _check_values(labels, model.schema, path)
    if labels.shape == model.size:
        return labels.astype(np.int64)
    return bring(labels, None, model.size, None)[0]


def _check_values(labels: NDArray[Any], schema: LabelSchema, path: Path) -> None:
    if labels.min() < 0 or labels.max() >= schema.count:
        wrong = labels.max() if labels.max() >= schema.count else labels.min()
        raise DataError(
            f"holds label {wrong}, the model knows 0 to {schema.count - 1}", path=path, hint="Relabel the map"
        )


def _of_volume(file: Path, model: ModelSpec, renames: Mapping[str, str] | None, fit: Fit) -> list[FolderMap]:
    """The maps of one volume."""
    volume, states = _read_volume(file, model, renames)
    _check_values(volume.array, model.schema, file)
    volume = canonical(volume)
    array: NDArray[Any] = volume.array.transpose(2, 1, 0)
    name = file.name[: -len(volume_ending(file.name) or "")].removesuffix(".seg")
    sides = volume.spacing_mm[::-1]
    axis = model.axis or "axial"
    try:
        if len(model.size) == 3:
            whole = bring(array, sides, model.size, model.spacing_mm, fit=fit)[0].astype(np.uint16)
            return [FolderMap(name, file.name, partial(whole.astype, np.int64), states)] if whole.any() else []
        across = 2 - SLICE_AXES[axis]
        array = np.moveaxis(array, across, 0)
        spacing = tuple(s for a, s in enumerate(sides) if a != across)
        window = Window.plan((array > 0).sum(axis=0), spacing, model.size, model.spacing_mm, fit=fit)
    except DataError as error:
        raise DataError(error.problem, path=file, hint=error.hint) from error
    slices = [(k, window.apply(plane).astype(np.uint16)) for k, plane in enumerate(array) if plane.any()]
    return [
        FolderMap(f"{name}_{k:04d}", file.name, partial(plane.astype, np.int64), states, k)
        for k, plane in slices
        if plane.any()
    ]


def _read_volume(file: Path, model: ModelSpec, renames: Mapping[str, str] | None) -> tuple[Volume, ClassStates]:
    """The label map with the model's values, and which of its classes it speaks for."""
    schema = model.schema
    if file.name.lower().endswith(".seg.nrrd"):
        volume, segments = read_seg_nrrd(file)
        if segments:
            return _of_segments(volume, segments, schema, renames, file)
        volume = whole_labels(volume, file)
    else:
        volume = whole_labels(read_volume(file), file)
    if model.values is not None:
        volume = to_classes(volume, {value: index for index, value in enumerate(model.values)}, file)
    return volume, ClassStates.all_given(schema)


def _of_segments(
    volume: Volume,
    segments: Mapping[str, NDArray[np.bool_]],
    schema: LabelSchema,
    renames: Mapping[str, str] | None,
    file: Path,
) -> tuple[Volume, ClassStates]:
    try:
        match = match_classes(schema, LabelSchema.from_names(segments), renames)
    except SettingsError as error:
        raise DataError(error.problem, path=file, hint=error.hint) from error
    labels = np.zeros(volume.grid, np.uint16)
    for c, parts in zip(schema.classes, match.parts, strict=True):
        for part in parts:
            if (labels[segments[part]] > 0).any():
                raise DataError(
                    f"segment '{part}' overlaps another", path=file, hint="Export the segments without overlap"
                )
            labels[segments[part]] = c.index
    return replace(volume, array=labels), ClassStates(tuple(bool(parts) for parts in match.parts))
