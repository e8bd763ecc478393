"""What the samples of one label map have in common: maps.jsonl (a line a label map) and arrays in maps/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anatogen.data.placement import Placement
from anatogen.data.slicing import item_volume
from anatogen.files import writing
from anatogen.io.nifti import write_nifti
from anatogen.io.npy import write_npy
from anatogen.settings import Document

MAPS, ARRAYS = "maps.jsonl", "maps"
MODEL_SCALE = "the model's: -1 and 1 are the ends of the intensity window"
SCAN_SCALE = "the scan's units"


class MapLine(Document):
    """A line of maps.jsonl: one label map and its samples.

    Attributes:
        id: Its folder below maps/.
        images: The ids of its samples.
        mean, std: Files of the mean image and of the standard deviation between samples.
        frequency: By free class, the file of the share of samples that show it; calibrated: the same, calibrated.
        picture: File of a picture of all this, in the order of the overview's columns.
    """

    HINT: ClassVar[str] = "Run anatogen complete again"

    id: str
    label_map: str
    patient: str
    images: tuple[str, ...]
    given: tuple[str, ...]
    free: tuple[str, ...]
    mean: str
    std: str
    frequency: dict[str, str] = Field(default_factory=dict)
    calibrated: dict[str, str] = Field(default_factory=dict)
    picture: str | None = None


@dataclass(frozen=True)
class MapSummary:
    """The samples of one label map, summarised.

    Attributes:
        mean: (C, *spatial) in [-1, 1].
        std: (C, *spatial), with n - 1 below the root; 0 for a single sample.
        frequency: By free class, the share of samples that show it at a pixel, (*spatial) in [0, 1].
        calibrated: The same, calibrated, where it was.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    frequency: Mapping[str, NDArray[np.float64]]
    calibrated: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, images: NDArray[np.float32], completed: NDArray[np.int64], classes: Mapping[str, int]) -> MapSummary:
        """Of images (n, C, *spatial) and their completed maps (n, *spatial); classes: index of each free one."""
        exact = images.astype(np.float64)
        std = exact.std(axis=0, ddof=1) if len(images) > 1 else np.zeros(images.shape[1:])
        frequency = {name: (completed == index).mean(axis=0) for name, index in classes.items()}
        return cls(exact.mean(axis=0), std, frequency, {})

    def write(self, line: MapLine, folder: Path, place: Placement | None) -> MapLine:
        """Write the arrays to maps/<id>/ as float32: NPY, or with `place` NIfTI there; the line with their names.

        The last axis of NIfTI holds the channels; mean and deviation are in the scan's units.
        """
        below, ending = f"{ARRAYS}/{line.id}", ".npy" if place is None else ".nii.gz"
        number = {name: f"{i:02d}" for i, name in enumerate(self.frequency, start=1)}
        files = {
            "mean": f"{below}/mean{ending}",
            "std": f"{below}/std{ending}",
            "frequency": {name: f"{below}/frequency_{number[name]}{ending}" for name in self.frequency},
            "calibrated": {name: f"{below}/calibrated_{number[name]}{ending}" for name in self.calibrated},
        }
        mean, std = self.mean, self.std
        if place is not None:
            mean = np.stack([m.from_model(c) for m, c in zip(place.intensity, mean, strict=True)])
            std = np.stack([c * (m.high - m.low) / 2 for m, c in zip(place.intensity, std, strict=True)])
        _write(folder / str(files["mean"]), mean, place)
        _write(folder / str(files["std"]), std, place)
        for kind, arrays in (("frequency", self.frequency), ("calibrated", self.calibrated)):
            for name, array in arrays.items():
                _write(folder / files[kind][name], array, place)  # type: ignore[index]
        return line.model_copy(update=files)

    def with_calibrated(self, calibrated: Mapping[str, NDArray[np.float64]]) -> MapSummary:
        """The same with calibrated frequencies."""
        return replace(self, calibrated=calibrated)


def _write(path: Path, array: NDArray[np.float64], place: Placement | None) -> None:
    item = array.astype(np.float32)
    with writing(path) as partial:
        if place is None:
            write_npy(partial, item)
        else:
            volume = item_volume(item, place.affine, place.grid, place.cut, place.position)
            flat = volume.array[..., 0] if volume.array.ndim == 4 and volume.array.shape[-1] == 1 else volume.array
            write_nifti(partial, replace(volume, array=flat))


def write_maps(folder: Path, lines: list[MapLine]) -> None:
    """Write maps.jsonl."""
    with writing(folder / MAPS) as partial:
        partial.write_text("".join(f"{line.text_on_disk()}\n" for line in lines), encoding="utf-8")
