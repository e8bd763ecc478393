"""A sample set as an nnU-Net raw data set: imagesTr, labelsTr, dataset.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from anatogen.data.intensity import IntensityMapping
from anatogen.data.label_values import SourceLabels
from anatogen.data.placement import Placement, stacked, typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.files import writing
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, require_true_maps
from anatogen.io.nifti import read_nifti
from anatogen.io.nnunet_raw import RawCase, raw_case, write_raw
from anatogen.volume import SLICE_AXES, Volume

_HINT = "Name the data set that the model was trained on: --dataset DATASET"


@dataclass(frozen=True)
class ExportedRaw:
    """Where the data set lies, how many cases and images it holds, and the cases that were left out, each with the reason."""

    out: Path
    cases: int
    images: int
    left_out: tuple[str, ...] = ()


def export_nnunet(
    samples: SampleSet,
    out: Path,
    *,
    dataset: PreparedDataset | None = None,
    stack: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExportedRaw:
    """Write `samples` to the new folder `out`, on which nnU-Net's integrity check passes.

    Every image lies in the place and the units of the scan that its label map is from, whatever the format of the samples. Sets
    of version 0.1 in other formats than NIfTI do not know them: they are taken from `dataset`. Label maps of no scan (drawn ones,
    those of another data set) get the pixel size and the units that are typical of `dataset`. A slice becomes a volume of one
    voxel along its last axis. Of a paired set only the generated images come along. Where the model was trained on label maps with
    other values than 0, 1, 2, ..., or on regions, the label maps get those again.

    Args:
        dataset: the prepared data set that the model was trained on.
        stack: join the slices of one map volume to one case, for 3D configurations. Slices are made one by one, so texture does
            not run on from one to the next. Nothing is filled up: the case spans the slices that were made, and a volume that
            lacks one between two others is left out.
        progress: (images done, of all).

    Raises what `require_exportable` does, and DataError where place and units are known from nowhere, or no case is left.
    """
    require_exportable(samples, out)
    places = _Places(samples, dataset)
    declared = SourceLabels.of((samples.header.about_model.dataset.model_extra or {}).get("labels"))
    done = 0

    def each(line: Line) -> _Placed:
        nonlocal done
        placed = places.placed(line)
        if declared:
            placed = replace(placed, labels=declared.restored(placed.labels))
        done += 1
        if progress is not None:
            progress(done, len(samples.entries))
        return placed

    groups, left_out = _groups(samples, places) if stack else ({line.id: [line] for line in samples.entries}, ())
    if not groups:
        raise DataError(
            f"holds no volume without a gap between its slices: {'; '.join(left_out[:3])}",
            path=samples.folder,
            hint="Sample without --count, so that every slice of a volume is made, or leave out --stack",
        )
    with writing(out) as partial:
        names = write_raw(
            partial,
            (_case(name, [each(line) for line in lines], stack) for name, lines in groups.items()),
            samples.header.channels or tuple(f"channel {c + 1}" for c in range(len(samples.image(samples.entries[0])))),
            samples.schema.names,
            name=out.name,
            description="Synthetic images made by anatogen from label maps. Not images of patients.",
            model=samples.header.model,
            **(declared.nnunet(samples.schema.names) if declared else {}),
        )
    return ExportedRaw(out, len(names), sum(map(len, groups.values())), tuple(left_out))


def require_exportable(samples: SampleSet, out: Path) -> None:
    """Raises what `require_true_maps` does, and SettingsError where `out` exists already."""
    if out.exists():
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")
    require_true_maps(samples)


@dataclass(frozen=True)
class _Placed:
    """An image (x, y, z[, C]) in units and its label map (x, y, z), with the axis it was sliced across, None for a volume."""

    image: Volume
    labels: Volume
    sliced: int | None


class _Places:
    """Where each image belongs."""

    def __init__(self, samples: SampleSet, dataset: PreparedDataset | None) -> None:
        self.samples, self.dataset = samples, dataset
        self._rows = {(row.case, row.slice): row for row in dataset.rows} if dataset is not None else {}
        self._typical: Placement | None = None

    def placed(self, line: Line) -> _Placed:
        samples = self.samples
        if self._in_file(line):
            place = line.place
            assert place is not None
            image = read_nifti(samples.folder / line.file, channels=len(place.low or ()))
            sliced = None if place.axis == "volume" else SLICE_AXES[place.axis or "axial"]
            return _Placed(image, read_nifti(samples.folder / line.labels), sliced)
        found = self.of(line)
        return _Placed(found.image(samples.image(line)), found.labels(samples.label_map(line)), found.cut.sliced)

    def _in_file(self, line: Line) -> bool:
        """Whether the files lie in their place already and nothing else says which it is: NIfTI of version 0.1."""
        return self.samples.header.image_format == "nifti" and line.place is not None and line.place.scan is None

    def slice_of(self, line: Line) -> tuple[str, int]:
        """The axis of a line's slice ("volume" for none), and its position along it."""
        if self._in_file(line):
            assert line.place is not None
            return line.place.axis or "axial", line.slice or 0
        found = self.of(line)
        return found.axis, found.position

    def of(self, line: Line) -> Placement:
        found = self.samples.placement(line)
        if found is not None:
            return found
        if self.dataset is None:
            problem = "does not say where in a scan its images lie, nor in what units"
            raise DataError(problem, path=self.samples.folder, hint=_HINT)
        if self.dataset.size != self.samples.label_map(line).shape:
            raise self._another()
        row = self._rows.get((line.case or "", line.slice if line.slice is not None else -1))
        if line.elsewhere is not None or line.case is None:
            self._typical = self._typical or typical_placement(self.dataset)
            return self._typical
        if row is None:
            raise self._another()
        found = Placement.of(self.dataset, row)
        low = line.place.low if line.place is not None else None
        if low is not None and not np.allclose(low, [m.low for m in found.intensity]):
            raise self._another()
        return found

    def _another(self) -> DataError:
        assert self.dataset is not None
        problem = f"is not the data set that the label maps of {self.samples.folder} are from"
        return DataError(problem, path=self.dataset.folder, hint=_HINT)


def typical_placement(dataset: PreparedDataset) -> Placement:
    """A place for items of no scan: the pixel size, slice distance and units that are typical of the items of `dataset`."""
    rows = [row for row in dataset.rows if row.split == "train"] or list(dataset.rows)
    cases = [dataset.info.cases[name] for name in dict.fromkeys(row.case for row in rows)]
    place = Placement.of(dataset, rows[0])
    sliced = place.cut.sliced
    spacing = [median(case.spacing_mm[axis] for case in cases) for axis in range(3)]
    grid = [1, 1, 1]
    kept = [axis for axis in (2, 1, 0) if axis != sliced]
    for axis, mm, side in zip(kept, typical_spacing(dataset) or (1.0,) * len(kept), dataset.size, strict=True):
        spacing[axis], grid[axis] = mm, side
    channels = zip(*(case.intensity for case in cases), strict=True)
    intensity = [
        IntensityMapping(
            median(m.slope for m in of_cases), 0.0, median(m.low for m in of_cases), median(m.high for m in of_cases)
        )
        for of_cases in channels
    ]
    affine = np.diag([-spacing[0], -spacing[1], -spacing[2], 1.0]).tolist()
    cut = (place.axis, dataset.size, "crop")
    x, y, z = grid
    return Placement.at(affine, (x, y, z), cut, 0, intensity, place.modality)  # type: ignore[arg-type]


def _groups(samples: SampleSet, places: _Places) -> tuple[dict[str, list[Line]], list[str]]:
    """The lines of each volume by its name, in the order of their slices, and the volumes that are left out."""
    volumes: dict[tuple[object, ...], list[tuple[int, Line]]] = {}
    for line in samples.entries:
        if line.case is None or line.slice is None:
            problem = f"image {line.id} is of no volume's slice"
            raise DataError(problem, path=samples.folder, hint="Leave out --stack")
        axis, position = places.slice_of(line)
        if axis == "volume":
            raise SettingsError("holds whole volumes already", path=samples.folder, hint="Leave out --stack")
        if line.elsewhere is not None:  # its maps have another slice distance than the model's
            problem = "was made from another data set's maps, whose slice distance it does not know"
            raise DataError(problem, path=samples.folder, hint="Leave out --stack")
        volumes.setdefault((line.case, line.repeat, line.similarity), []).append((position, line))
    kept: dict[str, list[Line]] = {}
    left_out = []
    for (case, repeat, similarity), found in volumes.items():
        name = f"{case}" + (f"_{repeat:02d}" if repeat is not None else "")
        name += f"_alike{similarity:.6g}" if similarity is not None else ""
        found.sort(key=lambda each: each[0])
        gaps = [p for (a, _), (b, _) in pairwise(found) for p in range(a + 1, b)]
        if gaps:
            shown = ", ".join(map(str, gaps[:5])) + (", ..." if len(gaps) > 5 else "")
            left_out.append(f"{name} lacks {'slice' if len(gaps) == 1 else 'slices'} {shown}")
        else:
            kept[name] = [line for _, line in found]
    return kept, left_out


def _case(name: str, placed: list[_Placed], stack: bool) -> RawCase:
    sliced = placed[0].sliced
    image, labels = placed[0].image, placed[0].labels
    if stack and sliced is not None:
        image = stacked([each.image for each in placed], sliced)
        labels = stacked([each.labels for each in placed], sliced)
        sliced = None
    return raw_case(name, image, labels, sliced)
