"""samples.json, the header of a sample set: what all its images have in common, which other images must share to extend
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from anatogen.labels import LabelClass, LabelSchema
from anatogen.sampling import SamplingSettings
from anatogen.settings import Document, last_part

FORMAT = 2  # of the header and of every line


class Part(BaseModel):
    """A part of a document: frozen; keys that it does not know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class DatasetName(BaseModel):
    """What tells a data set: the name and the fingerprint of its source; further terms, such as its licence, come
    along.
    """

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
    selected_step: int | None = None

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

    What is None is not known (a set of version 0.1, or requests that were made one by one) or was not asked for.
    within: the region in which classes are free. rename: pairs "OURS=THEIRS". edits, edits_per_map, edit_seed,
    implausible: of label maps that were edited on the way; see `EditedMaps`. similarities, step, mixing: of images that
    are similar to real ones. attributes: values that all images were asked for, "unknown" where they were left out;
    None where each has those of its own case. noised_to: the timestep to which real images were noised. margin: around
    what an edit changes in real images. balance: a class and the share of the images that show it. count: of the last
    call; a set may hold more.
    """

    label_maps: LabelMaps | None = None
    split: str | None = None
    given: tuple[str, ...] | None = None
    free: tuple[str, ...] | None = None
    within: str | None = None
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
    noised_to: int | None = None
    margin: str | None = None
    balance: tuple[str, float] | None = None
    attributes: dict[str, str | float] | None = None
    edits: tuple[str, ...] | None = None
    edits_per_map: int | None = None
    edit_seed: int | None = None
    implausible: str | None = None


class Ask(Part):
    """How many images a call asked for. images: the number of its requests. first: the position of its first request
    among all images of the set; those of an earlier, smaller ask come before it.
    """

    per_mask: int | None = None
    count: int | None = None
    images: int
    first: int = 0


class CopyGateSettings(Part):
    """level: the share of unseen patients' images that the threshold rejects. compared_with: a digest of what was
    compared.
    """

    level: float
    compared_with: str


class GateSettings(Part):
    """What decided which images are kept. retries: how often a rejected one was made again.

    judge: the data set behind the gates. warped: the share of warped images among those from which the segmenter
    of `min_dice` learnt, where label maps were edited. others: settings of a gate that is not of this package.
    """

    min_dice: float | None = None
    reject_copies: CopyGateSettings | None = None
    retries: int | None = None
    judge: DatasetName | None = None
    warped: float | None = None
    others: dict[str, JsonValue] | None = None

    def joined(self, other: GateSettings) -> GateSettings:
        """The settings of both; where both have one, the other's."""
        return self.model_copy(update={k: v for k, v in other if v is not None})


class Header(Document):
    """samples.json: what all images of a set have in common.

    Attributes:
        version, command: Of the first call.
        model: Digest of the model.
        run: The name of its folder.
        sees_labels: Whether label maps make a difference to the model.
        real_patients: Whether the images are those of real patients.
        image_format: See `FORMATS`.
        sampling: How the model sampled, None where it has no steps.
        gate: What decided which images are kept, None where all are.
        asks: How many images were asked for, one entry for each different number, the last call's at the end.
    """

    FORMAT: ClassVar[int] = FORMAT
    HINT: ClassVar[str] = "Sample again to a new folder"

    version: str = ""
    command: str = ""
    model: str
    run: str = ""
    classes: tuple[tuple[str, str], ...]
    channels: tuple[str, ...] = ()
    sees_labels: bool = True
    real_patients: bool = False
    image_format: str
    sampling: SamplingSettings | None = None
    request: Asked = Asked()
    gate: GateSettings | None = None
    about_model: AboutModel = AboutModel()
    asks: tuple[Ask, ...] = ()

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """Version 0.1 called the format of images "format", had no number for its own, and lists where channels were
        unknown.
        """
        judge = (raw.get("request") or {}).get("judge")
        gate = {**raw["gate"], "judge": judge} if raw.get("gate") else None
        sees = raw.get("encoding") != "none"
        more = {"image_format": raw["format"], "gate": gate, "sees_labels": sees, "channels": raw.get("channels") or ()}
        return {**raw, **more}

    @property
    def label_schema(self) -> LabelSchema:
        """The classes of the label maps."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))

    def difference(self, other: Header) -> tuple[str, str, str] | None:
        """The first thing in which a set that this header defines cannot be extended by `other`: its name and both
        values.

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

    def extended(self, other: Header, images: int) -> Header:
        """This header with what `other` asks for as the last call's; `images` are in the set."""
        counts = {"per_mask": other.request.per_mask, "count": other.request.count}
        former = self.asks
        if not former and other.asks and {"per_mask": self.request.per_mask, "count": self.request.count} != counts:
            # A set of before asks were written down.
            former = (Ask(per_mask=self.request.per_mask, count=self.request.count, images=images),)
        asks = list(former)
        for ask in other.asks:
            found = next((each for each in former if each.model_copy(update={"first": ask.first}) == ask), None)
            if found is not None:
                asks.remove(found)
            asks.append(found or ask.model_copy(update={"first": sum(each.images for each in former)}))
        request = self.request.model_copy(update=counts)
        return self.model_copy(update={"request": request, "asks": tuple(asks)})

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


def run_beside(folder: Path, name: str) -> Iterator[Path]:
    """Folders called `name` that may be the run of the sample set in `folder`: in the same tree, up to three folders
    above.
    """
    folder = folder.resolve()
    for above in list(folder.parents)[:3]:
        if above.parent == above:  # the root of the file system is no project
            return
        yield above / name
        with suppress(OSError):
            yield from (each / name for each in sorted(above.iterdir()) if (each / name).is_dir())
