"""The lines of a sample set, of manifest.jsonl, rejected.jsonl and places.jsonl, and of a folder of edited maps."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue

from anatogen.data.intensity import IntensityMapping
from anatogen.data.placement import Placement
from anatogen.generation.header import FORMAT, LabelMaps, Part
from anatogen.labels import LabelClass, LabelSchema
from anatogen.settings import Document

_FIRST_KEYS = ("format", "id", "file", "labels", "real", "given", "free", "seed", "tries")


class NearestTraining(Part):
    """The training image nearest to a generated one: its row (case and slice), the distance, and the gate's
    threshold.
    """

    row: str
    distance: float
    threshold: float


class Measures(Part):
    """What gates found in an image. dice: with what was given. others: of a gate that is not of this package."""

    dice: float | None = None
    nearest: NearestTraining | None = None
    note: str | None = None
    others: dict[str, JsonValue] | None = None

    def joined(self, other: Measures) -> Measures:
        """The measures of both; where both have one, the other's."""
        both = {"others": {**(self.others or {}), **(other.others or {})} or None}
        theirs = {name: getattr(other, name) for name in Measures.model_fields}
        return self.model_copy(update={k: v for k, v in theirs.items() if v is not None} | both)


class RejectedTry(Measures):
    """An image that was made and rejected: its seed, what was found in it, and why it was rejected."""

    seed: int
    reason: str


class Origin(Part):
    """Where a label map is from, and what was done with it.

    case, patient, slice, split: of a prepared data set; elsewhere: the name of that data set, where it is not the
    model's. file_of_map: of a folder; slice_of_map: of a volume there. repeat: which of several images of one map.
    absent: classes erased from it. free_within: the region in which the free classes are free. edits: what was done
    with it, in the edit language, without ranges; edit: which of several edits of one map; implausible: what
    plausibility limits find in it. similarity (1 - lambda), halted_at, mixing: of an image that is similar to a real
    one (Konz et al. 2024, section 3.2.2). noised_to: of a translation, the timestep to which its real image was noised.
    margin: of a counterfactual, beyond which it is its real image.
    """

    elsewhere: str | None = None
    case: str | None = None
    patient: str | None = None
    slice: int | None = None
    split: str | None = None
    file_of_map: str | None = None
    slice_of_map: int | None = None
    repeat: int | None = None
    absent: tuple[str, ...] = ()
    free_within: str | None = None
    edits: tuple[str, ...] = ()
    edit: int | None = None
    implausible: tuple[str, ...] = ()
    similarity: float | None = None
    weight: float | None = Field(None, alias="lambda")
    halted_at: int | None = None
    mixing: str | None = None
    noised_to: int | None = None
    margin: str | None = None


class PlaceInScan(Part):
    """Where an item belongs: the id of a line of places.jsonl, and the slice's position there.

    axis, low, high: of sets of version 0.1, which know no more.
    """

    scan: str | None = None
    position: int | None = None
    axis: str | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


class Line(Document, Origin, Measures):
    """A line of manifest.jsonl: one image. file, labels, real: below the set's folder. given, free: names of classes.

    seed: with which `Generator.sample` makes the image again. rejected: the tries before it. solver, steps, model: how
    and by what it was made (None in sets of version 0.1, whose header has them). attributes: what the model
    was told. place: of items of scans. position: in
    a set that was made in shards, whose lines are not in order.
    """

    FORMAT: ClassVar[int] = FORMAT
    HINT: ClassVar[str] = "Remove the line and sample again"

    id: str
    file: str
    labels: str
    real: str | None = None
    given: tuple[str, ...]
    free: tuple[str, ...] = ()
    seed: int
    rejected: tuple[RejectedTry, ...] = ()
    solver: str | None = None
    steps: int | None = None
    model: str | None = None
    attributes: dict[str, str | float] | None = None
    place: PlaceInScan | None = None
    position: int | None = None

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """Version 0.1 called what is rejected refused."""
        return {**raw, "rejected": raw.get("refused", raw.get("rejected", ()))}

    def content(self) -> dict[str, Any]:
        """In an order that people can read, without what is empty."""
        return _in_order(super().content())

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the line names."""
        return (self.file, self.labels, *([self.real] if self.real else []))

    @property
    def patient_or_map(self) -> str:
        """Whose label map the image follows; where nobody is named, its case, its map's file or itself."""
        return self.patient or self.case or self.file_of_map or self.id

    @property
    def label_map(self) -> str:
        """A name of the label map that the image was made from."""
        found = self.file_of_map or self.id
        if self.case is not None:
            found = self.case if self.slice is None else f"{self.case} {self.slice}"
        elif self.file_of_map is not None and self.slice_of_map is not None:
            found = f"{self.file_of_map} {self.slice_of_map}"
        return found if self.edit is None else f"{found} edit {self.edit}"


class RejectedLine(Document, Origin):
    """A line of rejected.jsonl: a request of which every try was rejected, so that it has no image."""

    FORMAT: ClassVar[int] = FORMAT
    HINT: ClassVar[str] = "Remove the line and sample again"

    id: str
    given: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    tries: tuple[RejectedTry, ...]

    def content(self) -> dict[str, Any]:
        """In an order that people can read, without what is empty."""
        return _in_order(super().content())


class MapLine(Document, Origin):
    """A line of maps.jsonl, in a folder of edited label maps: one map.

    file: below the folder. known: the names of the classes that it speaks for. place: of items of scans.
    """

    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Make the folder again: anatogen edit"

    id: str
    file: str
    known: tuple[str, ...]
    place: PlaceInScan | None = None

    def content(self) -> dict[str, Any]:
        """In an order that people can read, without what is empty."""
        return _in_order(super().content())


class LearnedFrom(Part):
    """What plausibility limits were learned from."""

    patients: int
    maps: int


class EditsHeader(Document):
    """edits.json, the header of a folder of edited label maps: what all of them have in common.

    classes: name and colour. label_maps, split: what was edited. edits: the recipes, in the edit language. axis: the
    slice direction, or "volume". size: (H, W) or (D, H, W). limits: None where nothing was judged.
    """

    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Make the folder again: anatogen edit"

    version: str = ""
    command: str = ""
    classes: tuple[tuple[str, str], ...]
    label_maps: LabelMaps
    split: str
    edits: tuple[str, ...]
    per_map: int
    count: int | None = None
    seed: int
    implausible: str
    axis: str | None = None
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None = None
    limits: LearnedFrom | None = None

    @property
    def label_schema(self) -> LabelSchema:
        """The classes of the label maps."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))

    def difference(self, other: EditsHeader) -> tuple[str, str, str] | None:
        """The first thing in which maps of `other` are made otherwise: its name and both values.

        More maps, by another count or more edits of each map, are none.
        """
        ours, theirs = self.content(), other.content()
        for name in type(self).model_fields.keys() - {"version", "command", "per_map", "count"}:
            if ours.get(name) != theirs.get(name):
                return name, str(ours.get(name)), str(theirs.get(name))
        return None


class PlaceLine(Document):
    """A line of places.jsonl: the grid, the cut and the units of a scan, once for all items that are from it.

    affine: from voxel (x, y, z) of the volume that was cut to RAS millimetres. grid: its voxels along x, y, z. axis,
    size, fit: how items were cut from it ("volume": whole). intensity: for each channel, how the model's [-1, 1]
    becomes the scan's units.
    """

    FORMAT: ClassVar[int] = FORMAT

    id: str
    affine: tuple[tuple[float, ...], ...]
    grid: tuple[int, int, int]
    axis: str
    size: tuple[int, ...]
    fit: Literal["pad", "crop", "stretch"]
    modality: str
    intensity: tuple[IntensityMapping, ...]

    @classmethod
    def of(cls, place: Placement) -> PlaceLine:
        """The line of a placement; its id is a digest of its content, so that nothing is said of whose scan it is."""
        found = cls(
            id="",
            affine=tuple(tuple(map(float, row)) for row in place.affine),
            grid=place.grid,
            axis=place.axis,
            size=place.cut.size,
            fit=place.cut.fit,
            modality=place.modality,
            intensity=place.intensity,
        )
        digest = hashlib.sha256(json.dumps(found.content(), sort_keys=True).encode()).hexdigest()[:16]
        return found.model_copy(update={"id": digest})

    def placement(self, position: int) -> Placement:
        """The placement of the item at `position` along the axis."""
        return Placement.at(
            self.affine, self.grid, (self.axis, self.size, self.fit), position, self.intensity, self.modality
        )


def _in_order(content: dict[str, Any]) -> dict[str, Any]:
    ordered = {key: content[key] for key in _FIRST_KEYS if key in content} | content
    return {k: v for k, v in ordered.items() if v != [] or k in _FIRST_KEYS}
