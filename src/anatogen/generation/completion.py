"""Completed label maps beside a sample set: completed.jsonl (a line an image) and the full maps in completed/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anatogen.conditioning.complete import completed
from anatogen.data.placement import Placement, item_of
from anatogen.errors import DataError, SettingsError
from anatogen.files import append, locked, remove_partial, writing
from anatogen.generation.ledger import read_lines
from anatogen.generation.manifest import Line
from anatogen.generation.plan import DatasetMaps, MapItem, MapSource
from anatogen.generation.sample_set import SampleSet, states_of
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import read_label_picture, write_label_png
from anatogen.labels import ClassStates, LabelSchema
from anatogen.settings import Document

COMPLETED = "completed.jsonl"
HINT = "Run anatogen complete again"
Segment = Callable[[NDArray[np.float32]], NDArray[np.int64]]
_ENDINGS = {"png": ".png", "npy": ".npy", "nifti": ".nii.gz", "dicom": ".nii.gz"}


class CompletedLine(Document):
    """A line of completed.jsonl: the full label map of one image.

    Attributes:
        id: Of the image, as in manifest.jsonl.
        file: The map, below the folder.
        labels: File of the map that was asked for, with its free classes as they were drawn; None for a real image.
        free: The classes that the segmenter filled in.
        voxels: How many pixels it found of each.
        segmenter: The digest of the segmenter.
        case, patient, slice: Of the label map.
    """

    HINT: ClassVar[str] = HINT

    id: str
    file: str
    labels: str | None = None
    free: tuple[str, ...] = ()
    voxels: dict[str, int] = Field(default_factory=dict)
    segmenter: str
    case: str | None = None
    patient: str | None = None
    slice: int | None = None


class SomeMaps:
    """The maps of a source with these numbers."""

    def __init__(self, source: MapSource, numbers: Sequence[int]) -> None:
        self._source, self._numbers, self.schema = source, list(numbers), source.schema

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        return self._source.asked

    @property
    def axis(self) -> str | None:
        """See `MapSource`."""
        return self._source.axis

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        return self._source.name(self._numbers[number])

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        return self._source.item(self._numbers[number])


def maps_to_complete(
    source: MapSource, states: ClassStates, named: Sequence[str] = ()
) -> tuple[MapSource, tuple[str, ...]]:
    """The maps of `source` of which a class is free and another given, by `states` and their own annotation.

    Args:
        source: The label maps.
        states: What is asked for.
        named: Classes that are to be given; each must be annotated in some map.

    Returns:
        The maps, and the classes that are free in one of them.

    Raises:
        SettingsError: No class is free in any map, or none is given, or one of `named` is given in no map.
    """
    schema, kept = source.schema, []
    given_somewhere, free_somewhere, filled_in = np.zeros((3, len(schema.names)), bool)
    for number in range(len(source)):
        given = np.array(states.and_also(_known(source, number)).given)
        given_somewhere |= given
        free_somewhere |= ~given
        if given.any() and not given.all():
            kept.append(number)
            filled_in |= ~given
    if not free_somewhere.any():
        raise SettingsError(
            "no class is free: every label map has all its classes", hint=f"Name some: --free {schema.names[-1]}"
        )
    if not given_somewhere.any():
        raise SettingsError("no class is given in any label map, so there is nothing to complete", hint="Free fewer")
    for name in named:
        if not given_somewhere[schema.index_of(name) - 1]:
            raise SettingsError(f"class '{name}' is given in no label map: it was annotated in none", hint="Leave it")
    if not kept:
        raise SettingsError("no label map has both a given and a free class", hint="Free fewer classes, or other ones")
    free = tuple(name for name, is_free in zip(schema.names, filled_in, strict=True) if is_free)
    chosen: MapSource = source if len(kept) == len(source) else SomeMaps(source, kept)
    return chosen, free


def _known(source: MapSource, number: int) -> ClassStates:
    """The classes that a map was annotated for; of a data set found without reading the map."""
    if isinstance(source, DatasetMaps):
        return source.dataset.states(source.rows[number])
    return source.item(number).known


def by_label_map(samples: SampleSet) -> dict[str, list[Line]]:
    """The lines of the images of each label map, in their order."""
    found: dict[str, list[Line]] = {}
    for line in samples.entries:
        found.setdefault(line.label_map, []).append(line)
    return found


def complete_samples(
    samples: SampleSet, segment: Segment, segmenter: str, *, progress: Callable[[int], None] | None = None
) -> list[CompletedLine]:
    """Label the free classes of every image of `samples`; the maps that are there are kept.

    Args:
        samples: A sample set, to whose folder the maps are written.
        segment: Images (n, C, *spatial) in [-1, 1] -> label maps (n, *spatial).
        segmenter: Its digest; maps by another one are made again.
        progress: Called with the number of images that are done.

    Returns:
        A line for each image, in their order.

    Raises:
        OutputError: Another process is writing them, or they cannot be written.
    """
    folder, schema = samples.folder, samples.schema
    with locked(folder, "completed"):
        remove_partial(folder / "completed")
        remove_partial(folder, COMPLETED)
        there = kept_lines(folder, segmenter)
        for lines in by_label_map(samples).values():
            missing = [line for line in lines if line.id not in there]
            if missing:
                states = states_of(missing[0], schema)
                found = segment(np.stack([samples.image(line) for line in missing]))
                maps = completed(samples.label_map(missing[0]), states.given, found)
                for line, labels in zip(missing, maps, strict=True):
                    made = _line_of(samples, line, labels, segmenter)
                    write_map(folder / made.file, labels, samples.placement(line))
                    append(folder / COMPLETED, f"{made.text_on_disk()}\n".encode())
                    there[line.id] = made
            if progress is not None:
                progress(len(there))
        return [there[line.id] for line in samples.entries]


def kept_lines(folder: Path, segmenter: str) -> dict[str, CompletedLine]:
    """The lines that are there and hold, by id; those of another segmenter, and without a map, are removed."""
    lines = read_lines(folder / COMPLETED, CompletedLine)
    kept = {line.id: line for line in lines if line.segmenter == segmenter and (folder / line.file).is_file()}
    with writing(folder / COMPLETED) as partial:  # also removes half a line of a killed process
        partial.write_text("".join(f"{line.text_on_disk()}\n" for line in kept.values()), encoding="utf-8")
    return kept


def _line_of(samples: SampleSet, line: Line, labels: NDArray[np.int64], segmenter: str) -> CompletedLine:
    ending = _ENDINGS[samples.header.image_format]
    below = line.labels.removeprefix("labels/").rpartition("/")[0]
    return CompletedLine(
        id=line.id,
        file="/".join(part for part in ("completed", below, f"{line.id}{ending}") if part),
        labels=line.labels,
        free=line.free,
        voxels=voxels_of(labels, line.free, samples.schema),
        segmenter=segmenter,
        case=line.case,
        patient=line.patient,
        slice=line.slice,
    )


def voxels_of(labels: NDArray[np.int64], names: Sequence[str], schema: LabelSchema) -> dict[str, int]:
    """How many pixels of each class of `names` a label map shows."""
    counts = np.bincount(labels.ravel(), minlength=schema.count)
    return {name: int(counts[schema.index_of(name)]) for name in names}


def write_map(path: Path, labels: NDArray[np.int64], place: Placement | None) -> None:
    """Write a label map (*spatial) by its ending: PNG, NPY, or NIfTI at its place in a scan."""
    with writing(path) as partial:
        if path.suffix == ".png":
            write_label_png(partial, labels)
        elif path.suffix == ".npy":
            write_npy(partial, labels)
        else:
            assert place is not None
            write_nifti(partial, place.labels(labels))


def read_map(path: Path, axis: str) -> NDArray[np.int64]:
    """A label map (*spatial) that `write_map` wrote; axis: of its placement. Raises DataError where it is damaged."""
    if path.suffix == ".png":
        return read_label_picture(path).astype(np.int64)
    if path.suffix == ".npy":
        return read_npy(path).astype(np.int64)
    return np.asarray(item_of(read_nifti(path), axis)[0], dtype=np.int64)


class CompletedMaps:
    """The completed label maps of a sample set.

    Raises:
        DataError: An image has none.
    """

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples
        self.lines = {line.id: line for line in read_lines(samples.folder / COMPLETED, CompletedLine)}
        missing = [line.id for line in samples.entries if line.id not in self.lines]
        if missing:
            problem = f"has no completed label maps of {len(missing)} of its {len(samples.entries)} images"
            raise DataError(problem, path=samples.folder, hint=HINT)

    def __call__(self, line: Line) -> NDArray[np.int64]:
        """The completed label map (*spatial) of a manifest line."""
        place = self._samples.placement(line)
        return read_map(self._samples.folder / self.lines[line.id].file, place.axis if place is not None else "volume")
