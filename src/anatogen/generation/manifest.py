"""The documents of a sample set: samples.json (its header), a line of manifest.jsonl, of rejected.jsonl and of places.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from anatogen.data.intensity import IntensityMapping
from anatogen.data.placement import Placement
from anatogen.labels import LabelClass, LabelSchema
from anatogen.sampling import SamplingSettings
from anatogen.settings import Document, last_part

FORMAT = 2
_FIRST_KEYS = ("format", "id", "file", "labels", "real", "given", "free", "seed", "tries")


class Part(BaseModel):
    """A part of a document: frozen; keys that it does not know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class DatasetName(BaseModel):
    """What tells a data set: the name and the fingerprint of its source; further terms, such as its licence, come along."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | None = None
    fingerprint: str | None = None


class AboutModel(BaseModel):
    """What a model says of itself (model.json, "about"). Keys that are not listed come along.

    trained_on: digest of the items of its training split. spacing_mm: of its items along (H, W) or (D, H, W).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    version: str | None = None
    steps: int | None = None
    images: int | None = None
    dataset: DatasetName = DatasetName()
    trained_on: str | None = None
    axis: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    channels: tuple[str, ...] | None = None
    notice: str | None = None
    mask_ablation: bool | None = None

    @classmethod
    def of(cls, about: dict[str, Any]) -> AboutModel:
        """From the content of model.json; of a path there only the last part is kept."""
        if isinstance(origin := about.get("imported_from"), str):
            about = {**about, "imported_from": last_part(origin)}
        return cls.model_validate(about)

    def content(self) -> dict[str, Any]:
        """As report.json and the cards hold it."""
        found = self.model_dump(mode="json", exclude_none=True)
        return {key: value for key, value in found.items() if value != {}}


class LabelMaps(Part):
    """Where the label maps are from: a data set prepared as the model's was, another one, or a folder of files.

    fingerprint: of the data set's source and of how it was prepared, or of the files' content.
    """

    kind: Literal["data set", "another data set", "folder"]
    name: str
    fingerprint: str


class Asked(Part):
    """What was asked for: all that defines the images of a set beside the model, the sampling settings and the gates.

    What is None is not known (a set of version 0.1, or requests that were made one by one) or was not asked for. rename: pairs
    "OURS=THEIRS". similarities, step, mixing: of images that are similar to real ones. count: of the last call; a set may hold
    more.
    """

    label_maps: LabelMaps | None = None
    split: str | None = None
    given: tuple[str, ...] | None = None
    free: tuple[str, ...] | None = None
    absent: tuple[str, ...] | None = None
    combine: tuple[str, ...] | None = None
    paired: bool | None = None
    rename: tuple[str, ...] | None = None
    fit: str | None = None
    seed: int | None = None
    per_mask: int | None = None
    count: int | None = None
    similarities: tuple[float, ...] | None = None
    step: int | None = None
    mixing: str | None = None


class CopyGateSettings(Part):
    """level: the share of unseen patients' images that the threshold rejects. compared_with: a digest of what was compared."""

    level: float
    compared_with: str


class GateSettings(Part):
    """What decided which images are kept. retries: how often a rejected one was made again.

    judge: the data set behind the gates. others: settings of a gate that is not of this package.
    """

    min_dice: float | None = None
    reject_copies: CopyGateSettings | None = None
    retries: int | None = None
    judge: DatasetName | None = None
    others: dict[str, JsonValue] | None = None

    def joined(self, other: GateSettings) -> GateSettings:
        """The settings of both; where both have one, the other's."""
        return self.model_copy(update={k: v for k, v in other if v is not None})


class NearestTraining(Part):
    """The training image nearest to a generated one: its row (case and slice), the distance, and the gate's threshold."""

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

    case, patient, slice, split: of a prepared data set; elsewhere: the name of that data set, where it is not the model's.
    file_of_map: of a folder; slice_of_map: of a volume there. repeat: which of several images of one map. absent: classes erased from it. similarity (1 - lambda),
    halted_at, mixing: of an image that is similar to a real one (Konz et al. 2024, section 3.2.2).
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
    similarity: float | None = None
    weight: float | None = Field(None, alias="lambda")
    halted_at: int | None = None
    mixing: str | None = None


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

    seed: with which `Generator.sample` makes the image again. rejected: the tries before it. solver, steps, model: how and by
    what it was made (None in sets of version 0.1, whose header has them). place: of items of scans.
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
    place: PlaceInScan | None = None

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
        if self.case is not None:
            return self.case if self.slice is None else f"{self.case} {self.slice}"
        if self.file_of_map is not None and self.slice_of_map is not None:
            return f"{self.file_of_map} {self.slice_of_map}"
        return self.file_of_map or self.id


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


class PlaceLine(Document):
    """A line of places.jsonl: the grid, the cut and the units of a scan, once for all items that are from it.

    affine: from voxel (x, y, z) of the volume that was cut to RAS millimetres. grid: its voxels along x, y, z. axis, size, fit:
    how items were cut from it ("volume": whole). intensity: for each channel, how the model's [-1, 1] becomes the scan's units.
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


class Header(Document):
    """samples.json: what all images of a set have in common.

    image_format: see `FORMATS`. model: digest of the weights. run: the name of its folder. encoding: how the model sees label
    maps ("none": not at all). gate: what decided which images are kept, None where all are. version, command: of the first call.
    """

    FORMAT: ClassVar[int] = FORMAT
    HINT: ClassVar[str] = "Sample again to a new folder"

    version: str = ""
    command: str = ""
    model: str
    run: str = ""
    classes: tuple[tuple[str, str], ...]
    channels: tuple[str, ...] = ()
    encoding: str | None = None
    image_format: str
    sampling: SamplingSettings
    request: Asked = Asked()
    gate: GateSettings | None = None
    about_model: AboutModel = AboutModel()

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """Version 0.1 called the format of images "format", had no number for its own, and lists where channels were unknown."""
        judge = (raw.get("request") or {}).get("judge")
        gate = {**raw["gate"], "judge": judge} if raw.get("gate") else None
        return {**raw, "image_format": raw["format"], "gate": gate, "channels": raw.get("channels") or ()}

    @property
    def label_schema(self) -> LabelSchema:
        """The classes of the label maps."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))

    def difference(self, other: Header) -> tuple[str, str, str] | None:
        """The first thing in which a set that this header defines cannot be extended by `other`: its name and both values.

        More images extend a set: another count and more images a mask are none.
        """
        ours, theirs = self._defining(), other._defining()
        for name in ours | theirs:
            if ours.get(name) != theirs.get(name):
                return name, _shown(ours.get(name)), _shown(theirs.get(name))
        mine, yours = self.request.per_mask, other.request.per_mask
        if mine is not None and yours is not None and yours < mine:
            return "per_mask", str(mine), str(yours)
        return None

    def _defining(self) -> dict[str, Any]:
        content = self.content()
        whole = {key: content.get(key) for key in ("image_format", "model", "sampling", "request", "gate")}
        return {name: value for name, value in _flat(whole, "") if name not in ("per_mask", "count")}


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value with its name; groups whose keys say enough do not appear in it."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key in ("sampling", "request", "gate") and isinstance(value, dict):
            yield from _flat(value, "")
        elif isinstance(value, dict):
            yield from _flat(value, f"{name} ")
        else:
            yield {"image_format": "format"}.get(name, name), value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else "yes" if value is True else str(value)


def _in_order(content: dict[str, Any]) -> dict[str, Any]:
    ordered = {key: content[key] for key in _FIRST_KEYS if key in content} | content
    return {k: v for k, v in ordered.items() if v != [] or k in _FIRST_KEYS}


def run_beside(folder: Path, name: str) -> Iterator[Path]:
    """Folders called `name` that may be the run of the sample set in `folder`: in the same tree, up to three folders above."""
    folder = folder.resolve()
    for above in list(folder.parents)[:3]:
        if above.parent == above:  # the root of the file system is no project
            return
        yield above / name
        with suppress(OSError):
            yield from (each / name for each in sorted(above.iterdir()) if (each / name).is_dir())
