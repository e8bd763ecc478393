"""From a source to a prepared data set: canonical orientation, slices, size, intensities, splits by patient."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.data.intensity import IntensityMapping, IntensityRule, store
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.split import DEFAULT_SHARES, split_patients
from anatogen.data.store import CaseRecord, DatasetInfo, PreparedDataset, Row, StoreWriter
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import LabelSchema
from anatogen.runtime import writing
from anatogen.volume import SLICE_AXES, Fit, Volume, canonical, fit_plane, same_grid


@dataclass(frozen=True)
class PrepareSettings:
    """size: (H, W) of the images. axis: of the slices. fit: see `fit_plane`. keep_empty: slices without a label too.

    shares: of the patients for each split, where the source has no split of its own; seed: of that split.
    """

    size: tuple[int, int] = (256, 256)
    axis: str = "axial"
    fit: Fit = "pad"
    intensity: IntensityRule = field(default_factory=IntensityRule)
    shares: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    seed: int = 0
    keep_empty: bool = False

    def __post_init__(self) -> None:
        if self.axis not in SLICE_AXES:
            raise SettingsError(f"there is no axis '{self.axis}'", remedy=nearest(self.axis, SLICE_AXES))
        if min(self.size) < 8 or max(self.size) > 4096:
            raise SettingsError(f"--size {self.size[0]} is out of range", remedy="Choose 8 to 4096")
        low, high = self.intensity.window or self.intensity.percentile
        if not low < high:
            raise SettingsError(f"intensities from {low} to {high} leave no range", remedy="Put the lower value first")


def prepare(
    source: Source,
    out: str | Path,
    settings: PrepareSettings,
    *,
    version: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> PreparedDataset:
    """Write the cases of `source` to a new folder `out`, which is whole or not there, and open it.

    progress: called as progress(cases done, cases). Raises DataError for a case that cannot be used, naming its file,
    OutputError where `out` cannot be written, SettingsError where it is there already.
    """
    out = Path(out)
    if out.exists():
        raise SettingsError("is there already", path=out, remedy="Choose another folder or remove it")
    splits = _splits(source, settings)
    with writing(out) as partial:
        if partial.exists():
            shutil.rmtree(partial)
        writer = StoreWriter(partial, len(source.channels), settings.size, source.schema.count)
        records: dict[str, CaseRecord] = {}
        for number, case in enumerate(source.cases):
            split = splits[case.patient]
            slices = slice_case(case, source.schema, len(source.channels), settings)
            annotated = case.annotated if case.annotated is not None else source.schema.names
            first = len(writer.rows)
            rows = [
                Row(first + i, case.id, case.patient, k, split, tuple(annotated))
                for i, k in enumerate(slices.positions)
            ]
            writer.append(slices.images, slices.labels, rows)
            records[case.id] = CaseRecord(
                case.patient, split, slices.affine.tolist(), list(slices.grid), slices.intensity, list(annotated)
            )
            if progress is not None:
                progress(number + 1, len(source.cases))
        if not writer.rows:
            raise DataError(
                "no slice has a label", path=source.location, remedy="Use --keep-empty, or check the label maps"
            )
        writer.finish(_info(source, settings, records, version))
    return PreparedDataset.open(out)


@dataclass(frozen=True)
class CaseSlices:
    """images int16 (N, C, H, W), labels (N, H, W) and positions along the axis of one case, with its canonical geometry."""

    images: NDArray[np.int16]
    labels: NDArray[np.integer]
    positions: list[int]
    affine: NDArray[np.float64]
    grid: tuple[int, int, int]
    intensity: list[IntensityMapping]


def slice_case(case: SourceCase, schema: LabelSchema, channels: int, settings: PrepareSettings) -> CaseSlices:
    """Read and check one case, and cut it into slices. Raises DataError, naming the file, where it cannot be used."""
    image, labels = case.load()
    place = case.files[-1] if case.files else case.id
    _check(image, labels, schema, channels, place)
    image, labels = canonical(image), canonical(labels)

    # From (x, y, z) to (channel, z, y, x): rows of every slice run downwards on a display, columns to the right.
    planes = image.array.reshape(*image.grid, -1).transpose(3, 2, 1, 0)
    classes = labels.array.transpose(2, 1, 0)
    stored, mappings = [], []
    for channel in planes:
        try:
            quantised, mapping = store(channel, settings.intensity)
        except DataError as error:
            raise DataError(
                error.problem, path=case.files[0] if case.files else case.id, remedy=error.remedy
            ) from error
        stored.append(quantised)
        mappings.append(mapping)
    axis = 2 - SLICE_AXES[settings.axis]
    image_slices = np.moveaxis(np.stack(stored), 1 + axis, 0)  # (N, C, h, w)
    label_slices = np.moveaxis(classes, axis, 0)
    positions = [k for k in range(len(label_slices)) if settings.keep_empty or label_slices[k].any()]
    fill = [int(channel.min()) for channel in stored]
    images = np.zeros((len(positions), len(stored), *settings.size), np.int16)
    maps = np.zeros((len(positions), *settings.size), classes.dtype)
    for i, k in enumerate(positions):
        maps[i] = fit_plane(label_slices[k], settings.size, settings.fit, fill=0, labels=True)
        for c, value in enumerate(fill):
            images[i, c] = fit_plane(image_slices[k, c], settings.size, settings.fit, fill=value)
    return CaseSlices(images, maps, positions, image.affine, image.grid, mappings)


def _check(image: Volume, labels: Volume, schema: LabelSchema, channels: int, place: Path | str) -> None:
    if image.grid != labels.grid:
        raise DataError(
            f"label map of {_shape(labels)} voxels for an image of {_shape(image)}",
            path=place,
            remedy="Resample the label map to the image's grid",
        )
    if not same_grid(image, labels, tolerance_mm=0.5):
        raise DataError("image and label map lie at different places", path=place, remedy="Give both the same affine")
    if image.array.reshape(*image.grid, -1).shape[-1] != channels:
        raise DataError(f"the image does not have {channels} channels", path=place)
    values = np.unique(labels.array)
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise DataError(
            f"label {values[values != np.rint(values)][0]} is not a whole number",
            path=place,
            remedy="Resample labels by nearest neighbour",
        )
    wrong = values[(values < 0) | (values >= schema.count)]
    if wrong.size:
        listed = ", ".join(f"{v:g}" for v in wrong[:5]) + (", ..." if wrong.size > 5 else "")
        raise DataError(
            f"holds label {listed}, but classes 0 to {schema.count - 1} are declared",
            path=place,
            remedy="Declare the missing classes in dataset.json, or relabel the map",
        )


def _shape(volume: Volume) -> str:
    return " x ".join(map(str, volume.grid))


def _splits(source: Source, settings: PrepareSettings) -> dict[str, str]:
    """The split of each patient: the source's own where it has one. Raises DataError where a patient is in two."""
    if all(case.split is None for case in source.cases):
        return split_patients((case.patient for case in source.cases), settings.shares, settings.seed)
    splits: dict[str, str] = {}
    for case in source.cases:
        if case.split is None:
            raise DataError(f"case {case.id} is in no split", path=source.location)
        if splits.setdefault(case.patient, case.split) != case.split:
            raise DataError(
                f"patient {case.patient} is in the splits {splits[case.patient]} and {case.split}",
                path=source.location,
                remedy="Put all cases of a patient into one split",
            )
    return splits


def _info(source: Source, settings: PrepareSettings, records: dict[str, CaseRecord], version: str) -> DatasetInfo:
    return DatasetInfo(
        classes=list(source.schema.classes),
        channels=list(source.channels),
        axis=settings.axis,
        size=list(settings.size),
        fit=settings.fit,
        intensity_rule=asdict(settings.intensity),
        split_seed=settings.seed,
        source={"layout": source.layout, "name": Path(source.location).name, "fingerprint": fingerprint(source)},
        version=version,
        cases=records,
        notice=source.notice,
    )


def fingerprint(source: Source) -> str:
    """A digest of the cases' names, patients, splits and file sizes: it tells two sources apart without reading them."""
    digest = hashlib.sha256()
    for line in _fingerprint_lines(source):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _fingerprint_lines(source: Source) -> Iterator[str]:
    for case in source.cases:
        sizes = [f.stat().st_size if f.exists() else -1 for f in case.files]
        yield f"{case.id}\t{case.patient}\t{case.split}\t{case.annotated}\t{sizes}\n"
