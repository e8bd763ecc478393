"""Requests: one image to make each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement
from anatogen.data.store import PreparedDataset, Row
from anatogen.diffusion.interpolate import Mixing
from anatogen.errors import DataError, SettingsError
from anatogen.io.npy import read_npy
from anatogen.io.pictures import read_label_picture
from anatogen.labels import ClassStates, LabelSchema
from anatogen.runtime import derive_seed


@dataclass(frozen=True)
class Likeness:
    """To what real image (C, *spatial) in [-1, 1] a generated one is to be alike, and how much.

    similarity: in [0, 1), 1 - lambda of Konz et al. 2024, section 3.2.2; more is more alike. step: of the 1000 of the
    `ddpm` path, whose noise the generation is halted at (240 in the paper); other paths halt at the same noise.
    """

    image: NDArray[np.float32]
    similarity: float
    step: int = 240
    mixing: Mixing = "variance_preserving"

    def __post_init__(self) -> None:
        if not 0 <= self.similarity < 1:
            raise SettingsError(f"similarity {self.similarity:g} is outside [0, 1)", remedy="Choose for instance 0.5")
        if not 1 <= self.step <= 999:
            raise SettingsError(f"step {self.step} is outside 1 to 999", remedy="The paper's is 240")


@dataclass(frozen=True)
class Request:
    """id: a file name's stem, unique in its sample set. labels: int64 (*spatial). origin: where the label map is from.

    place: the grid and units of the scan that the map was drawn on, where there is one. likeness: to a real image.
    """

    id: str
    labels: NDArray[np.int64]
    states: ClassStates
    seed: int
    origin: dict[str, Any] = field(default_factory=dict)
    place: Placement | None = None
    likeness: Likeness | None = None


def requests_from_dataset(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    states: ClassStates,
    *,
    seed: int = 0,
    per_mask: int = 1,
    count: int | None = None,
) -> list[Request]:
    """`per_mask` requests for each row's label map, or `count` in all, spread evenly over the rows.

    A class is given where `states` and the case's annotation have it. Each seed depends on `seed`, the row and the
    repetition alone, so that more images later leave these as they are.
    """
    labels = dataset.load(rows).labels.numpy()
    requests = []
    for place, repeat in _places(len(rows), per_mask, count):
        row = rows[place]
        requests.append(
            Request(
                id=f"{row.id}_{repeat:02d}",
                labels=labels[place],
                states=states.and_also(dataset.states(row)),
                seed=derive_seed(seed, row.id, repeat),
                place=Placement.of(dataset, row),
                origin={
                    "case": row.case,
                    "patient": row.patient,
                    "slice": row.slice,
                    "split": row.split,
                    "repeat": repeat,
                },
            )
        )
    return requests


def requests_alike(
    dataset: PreparedDataset,
    requests: Sequence[Request],
    similarities: Sequence[float],
    *,
    step: int = 240,
    mixing: Mixing = "variance_preserving",
) -> list[Request]:
    """For each of `requests_from_dataset`'s, one for each similarity to the real image of its label map, the seed the same."""
    by_place = {(row.case, row.slice): row for row in dataset.rows}
    alike = []
    for request in requests:
        image = dataset.load([by_place[request.origin["case"], request.origin["slice"]]]).images[0].numpy()
        for similarity in similarities:
            likeness = Likeness(image, similarity, step, mixing)
            origin = {
                **request.origin,
                "similarity": similarity,
                "lambda": round(1 - similarity, 6),
                "halted_at": step,
                "mixing": mixing,
            }
            name = f"{request.id}_alike{round(1000 * similarity):03d}"
            alike.append(replace(request, id=name, likeness=likeness, origin=origin))
    return alike


def requests_from_folder(
    folder: Path,
    schema: LabelSchema,
    size: tuple[int, ...],
    states: ClassStates,
    *,
    seed: int = 0,
    per_mask: int = 1,
    count: int | None = None,
) -> list[Request]:
    """Requests for the label maps (PNG or NPY) in `folder`, each of shape `size` with values of `schema`."""
    if not folder.is_dir():
        raise DataError(
            "there is no such folder", path=folder, remedy="Name a prepared data set or a folder of label maps"
        )
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".png", ".npy") and not f.name.startswith("."))
    if not files:
        raise DataError("holds no label maps (PNG or NPY)", path=folder)
    maps = [_read_map(file, schema, size) for file in files]
    return [
        Request(
            id=f"{files[place].stem}_{repeat:02d}",
            labels=maps[place],
            states=states,
            seed=derive_seed(seed, files[place].stem, repeat),
            origin={"file": files[place].name, "repeat": repeat},
        )
        for place, repeat in _places(len(files), per_mask, count)
    ]


def _places(masks: int, per_mask: int, count: int | None) -> Iterable[tuple[int, int]]:
    """(mask, repetition) pairs."""
    if per_mask < 1 or (count is not None and count < 1):
        raise SettingsError("there must be at least one image to make", remedy="Give --per-mask or --count at least 1")
    if count is None:
        return [(place, repeat) for place in range(masks) for repeat in range(per_mask)]
    if count <= masks:
        return [(int(place), 0) for place in np.linspace(0, masks - 1, count).round()]
    return sorted((i % masks, i // masks) for i in range(count))


def _read_map(path: Path, schema: LabelSchema, size: tuple[int, ...]) -> NDArray[np.int64]:
    labels = read_label_picture(path) if path.suffix.lower() == ".png" else read_npy(path)
    if labels.dtype.kind not in "iu":
        raise DataError(f"holds values of type {labels.dtype}", path=path, remedy="Store label maps as integers")
    if labels.shape != size:
        raise DataError(
            f"has shape {labels.shape}, the model makes {size}", path=path, remedy="Resize it by nearest neighbour"
        )
    if labels.min() < 0 or labels.max() >= schema.count:
        wrong = labels.max() if labels.max() >= schema.count else labels.min()
        raise DataError(
            f"holds label {wrong}, the model knows 0 to {schema.count - 1}", path=path, remedy="Relabel the map"
        )
    return labels.astype(np.int64)
