"""What to make: a source of label maps, and a plan that turns each of its items into requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.attributes import UNKNOWN, Value
from anatogen.conditioning.edit import erase
from anatogen.conditioning.regions import Region
from anatogen.data.attributes import volumes
from anatogen.data.foreign_maps import maps_from_dataset
from anatogen.data.placement import Placement, is_picture, item_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.diffusion.interpolate import Mixing
from anatogen.errors import SettingsError
from anatogen.generation.edited_folder import MAPS, edited_maps_in
from anatogen.generation.folder_maps import maps_in
from anatogen.generation.header import Asked, LabelMaps
from anatogen.generation.manifest import Origin
from anatogen.generation.request import Request, Requests
from anatogen.generation.starts import FromReal
from anatogen.labels import ClassStates, LabelSchema
from anatogen.model import ImageModel, ModelSpec, Similarity, check_similarity
from anatogen.seeds import derive_seed

MOST_COMBINATIONS = 256
Fit = Literal["crop", "pad"]


@dataclass(frozen=True)
class MapItem:
    """One label map.

    Attributes:
        labels: int64 (*spatial).
        known: Which classes it was annotated for; the others are free, whatever is asked for.
        origin: Where it is from.
        place: The grid and units of its scan, where it is of one.
        real: The real image (C, *spatial) in [-1, 1] that it was annotated on, where there is one.
        spacing_mm: Pixel size along each axis, where it is known.
        unedited: The map (*spatial) before it was edited, where it was.
        unknown: bool (*spatial), where nobody said what the classes are; None where that is nowhere.
        attributes: What is known of its own case by name, without what its labels tell (`volumes`).
    """

    labels: NDArray[np.int64]
    known: ClassStates
    origin: Origin
    place: Placement | None = None
    real: NDArray[np.float32] | None = None
    spacing_mm: tuple[float, ...] | None = None
    unedited: NDArray[np.int64] | None = None
    unknown: NDArray[np.bool_] | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)


class MapSource(Protocol):
    """Where label maps come from."""

    @property
    def schema(self) -> LabelSchema:
        """The classes of the maps."""
        ...

    @property
    def axis(self) -> str | None:
        """The slice direction of the maps, or "volume"; None where it is not known."""
        ...

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the header of a sample set says of the source: fields of `Asked`."""
        ...

    def __len__(self) -> int:
        """How many maps there are."""
        ...

    def name(self, number: int) -> str:
        """A name of map `number`, its own in the source, found without reading the map; seeds derive from it."""
        ...

    def item(self, number: int) -> MapItem:
        """Map `number`."""
        ...


class DatasetMaps:
    """The label maps of `rows` of a data set that was prepared as the model's was."""

    def __init__(self, dataset: PreparedDataset, rows: Sequence[Row]) -> None:
        self.dataset, self.rows, self.schema, self.axis = dataset, rows, dataset.schema, dataset.info.axis
        self._spacings: dict[str, tuple[float, ...] | None] = {}

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        return {"label_maps": maps_of(self.dataset, "data set"), "split": _splits(self.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        return self.rows[number].id

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        row = self.rows[number]
        read = self.dataset.load([row])
        return MapItem(
            read.labels[0].numpy(),
            self.dataset.states(row),
            _origin(row),
            Placement.of(self.dataset, row),
            read.images[0].numpy(),
            attributes=self.dataset.attributes_of(row),
            unknown=read.ignored[0].numpy() if read.ignored is not None and read.ignored.any() else None,
            spacing_mm=self._spacing(row),
        )

    def _spacing(self, row: Row) -> tuple[float, ...] | None:
        if row.case not in self._spacings:
            self._spacings[row.case] = None if is_picture(self.dataset, row.case) else item_spacing(self.dataset, row)
        return self._spacings[row.case]


class ForeignMaps:
    """The label maps of another data set, brought to the classes and the geometry of a model.

    Classes are matched by name (see `match_classes`); those that the data set lacks are free. Maps that show none of
    the matched classes are left out.

    Raises:
        SettingsError: Classes or axes do not match.
        DataError: The anatomy does not fit.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: Sequence[Row],
        model: ModelSpec,
        *,
        renames: Mapping[str, str] | None = None,
        fit: Fit = "crop",
    ) -> None:
        self.schema, self.axis, self._spacing_mm = model.schema, model.axis, model.spacing_mm
        self._maps = maps_of(dataset, "another data set")
        self._asked = {"label_maps": self._maps, "split": _splits(rows), "rename": _renamed(renames), "fit": fit}
        brought = maps_from_dataset(dataset, rows, model, renames, fit=fit)
        self._found = [(row, labels.astype(np.uint16), known) for row, labels, known in brought]

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        return self._asked

    def __len__(self) -> int:
        return len(self._found)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        return self._found[number][0].id

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        row, labels, known = self._found[number]
        origin = _origin(row).model_copy(update={"elsewhere": self._maps.name})
        return MapItem(labels.astype(np.int64), known, origin, spacing_mm=self._spacing_mm)


class FolderMaps:
    """The label maps in a folder: PNG, NPY, volumes drawn on a scan, or what `anatogen edit` wrote.

    Raises DataError as `maps_in` and `edited_maps_in` do.
    """

    def __init__(
        self, folder: Path, model: ModelSpec, *, renames: Mapping[str, str] | None = None, fit: Fit = "crop"
    ) -> None:
        self.folder, self.schema, self.axis, self._spacing_mm = folder, model.schema, model.axis, model.spacing_mm
        edited = (folder / MAPS).is_file()
        self._maps = edited_maps_in(folder, model) if edited else maps_in(folder, model, renames=renames, fit=fit)
        self._more = {"rename": _renamed(renames), "fit": fit if fit != "crop" else None}

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        digest = hashlib.sha256()
        for file in dict.fromkeys(each.file for each in self._maps):
            digest.update((self.folder / file).read_bytes())
        name = self.folder.resolve().name
        return {"label_maps": LabelMaps(kind="folder", name=name, fingerprint=digest.hexdigest()[:16]), **self._more}

    def __len__(self) -> int:
        return len(self._maps)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        return self._maps[number].name

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        found = self._maps[number]
        origin = found.origin or Origin(file_of_map=found.file, slice_of_map=found.slice)
        return MapItem(found.read(), found.states, origin, found.place, spacing_mm=found.spacing_mm or self._spacing_mm)


@dataclass(frozen=True)
class Plan:
    """What to make of each label map.

    Attributes:
        states: A class is given where these and the map's annotation have it.
        within: A region; outside it, `states` do not hold and every class is given. None: they hold everywhere.
        absent: Classes that are removed from the maps and enforced as absent.
        combine: Every combination of these classes given or free (Konz et al. 2024, Fig. 3), first everything given,
            last everything free, from the same seed.
        similarities: An image for each similarity to the map's real image, in [0, 1), from the same seed; see
            `Similarity`.
        step, mixing: Of the similarities.
        real: How each image starts from its map's real one; None: from noise. Not together with similarities.
        paired: Keep the real image of each map beside the generated one.
        seed: The seed of an image depends on this one, the name of its map and the repetition alone, so that more
            images later leave these as they are.
        per_mask: Images of each map, before combinations and similarities.
        count: Images in all, before combinations and similarities, of maps spread evenly; None: of every map.
        attributes: Values for all images, None for unknown; what is not named is as in the map's own case, with the
            volumes of the classes that are given.
    """

    states: ClassStates
    within: Region | None = None
    absent: tuple[str, ...] = ()
    combine: tuple[str, ...] | None = None
    similarities: tuple[float, ...] | None = None
    step: int = 240
    mixing: Mixing = "variance_preserving"
    real: FromReal | None = None
    paired: bool = False
    seed: int = 0
    per_mask: int = 1
    count: int | None = None
    attributes: Mapping[str, Value | None] = field(default_factory=dict)

    def requests(self, source: MapSource) -> Requests:
        """The requests for the maps of `source`.

        Raises SettingsError for an unknown class, more than 256 combinations, a similarity out of range, or no image at
        all.
        """
        return _Requests(self, source).all()


class _Requests:
    """The requests of a plan: for each map and repetition those of every combination, and of each every similarity."""

    def __init__(self, plan: Plan, source: MapSource) -> None:
        self.plan, self.source = plan, source
        self.places = places_of(len(source), plan.per_mask, plan.count)
        self.emptied = _Emptied(source.schema, plan.absent)
        self.combinations = (
            _combinations(source.schema, plan.combine) if plan.combine is not None else [frozenset[int]()]
        )
        self.similarities = list(dict.fromkeys(plan.similarities)) if plan.similarities is not None else []
        for similarity in self.similarities:
            check_similarity(similarity, plan.step)

    def all(self) -> Requests:
        count = len(self.places) * len(self.combinations) * max(1, len(self.similarities))
        return Requests(count, self.make, self.asked, name=self.name)

    def _parts(self, number: int) -> tuple[int, int, int, float | None]:
        """The map, the repetition, the combination and the similarity of request `number`."""
        similarity = None
        if self.similarities:
            number, place = divmod(number, len(self.similarities))
            similarity = self.similarities[place]
        number, combination = divmod(number, len(self.combinations))
        return *self.places[number], combination, similarity

    def name(self, number: int) -> str:
        map_number, repeat, combination, similarity = self._parts(number)
        name = f"{self.source.name(map_number)}_{repeat:02d}"
        if self.plan.combine is not None:
            name += f"_free{combination:0{len(str(len(self.combinations) - 1))}d}"
        return name if similarity is None else f"{name}_alike{similarity:.6g}"

    def make(self, number: int) -> Request:
        plan = self.plan
        map_number, repeat, combination, similarity = self._parts(number)
        item, freed = self.source.item(map_number), self.combinations[combination]
        states = self.emptied.states(plan.states.and_also(item.known))
        states = ClassStates(tuple(given and i not in freed for i, given in enumerate(states.given, start=1)))
        within = plan.within.text if plan.within is not None else None
        origin = item.origin.model_copy(update={"repeat": repeat, "absent": self.emptied.names, "free_within": within})
        labels = self.emptied.labels(item.labels)
        elsewhere, region = self._regions(item, labels)
        request = Request(
            labels,
            states,
            derive_seed(plan.seed, self.source.name(map_number), repeat),
            region=region,
            elsewhere=elsewhere,
            id=self.name(number),
            origin=origin,
            place=item.place,
            partner=_real(item) if plan.paired else None,
            attributes=self._attributes(item, labels, states),
        )
        if plan.real is not None:
            start = plan.real.start(_real(item), labels, item.unedited)
            return replace(request, start=start, origin=origin.model_copy(update=dict(plan.real.described)))
        if similarity is None:
            return request
        change = {
            "similarity": similarity,
            "weight": round(1 - similarity, 6),
            "halted_at": plan.step,
            "mixing": plan.mixing,
        }
        return replace(
            request,
            start=Similarity(_real(item), similarity, plan.step, plan.mixing),
            origin=origin.model_copy(update=change),
        )

    def _regions(
        self, item: MapItem, labels: NDArray[np.int64]
    ) -> tuple[tuple[ClassStates, ...], NDArray[np.uint8] | None]:
        """The states in regions 1, 2, ..., and the region of each pixel: where the plan's states do not hold, and where
        nobody knows the class.
        """
        found: list[ClassStates] = []
        region = None
        if self.plan.within is not None:
            region = (~self.plan.within.inside(labels)).astype(np.uint8)
            found.append(self.emptied.states(item.known))
        if item.unknown is not None:
            region = np.zeros(labels.shape, dtype=np.uint8) if region is None else region
            found.append(ClassStates((False,) * len(item.known.given)))
            region = np.where(item.unknown, np.uint8(len(found)), region)
        return tuple(found), region

    def _attributes(self, item: MapItem, labels: NDArray[np.int64], states: ClassStates) -> dict[str, Value]:
        """What is known or asked for. The volume of a free class would say what is to be inferred."""
        spacing = None if item.place is None else item.place.spacing_mm
        own = volumes(labels, self.source.schema, states, spacing)
        found: dict[str, Value | None] = {**own, **item.attributes, **self.plan.attributes}
        return {name: value for name, value in found.items() if value is not None}

    @cached_property
    def asked(self) -> Asked:
        plan, schema = self.plan, self.source.schema
        similar = {"similarities": tuple(self.similarities), "step": plan.step, "mixing": plan.mixing}
        return Asked(
            **self.source.asked,
            **(similar if self.similarities else {}),
            **(plan.real.described if plan.real is not None else {}),
            given=tuple(plan.states.given_names(schema)),
            free=tuple(plan.states.free_names(schema)),
            within=plan.within.text if plan.within is not None else None,
            absent=plan.absent or None,
            combine=tuple(dict.fromkeys(plan.combine)) if plan.combine is not None else None,
            paired=plan.paired or None,
            seed=plan.seed,
            per_mask=plan.per_mask,
            count=plan.count,
            attributes={name: UNKNOWN if value is None else value for name, value in sorted(plan.attributes.items())}
            or None,
        )


def requests_from_dataset(dataset: PreparedDataset, rows: Sequence[Row], states: ClassStates, **more: Any) -> Requests:
    """The requests for the label maps of `rows`; more: further fields of `Plan`."""
    return Plan(states, **more).requests(DatasetMaps(dataset, rows))


def _combinations(schema: LabelSchema, names: Sequence[str]) -> list[frozenset[int]]:
    """The classes to free, every combination, fewest first.

    Raises SettingsError for unknown names and more than 256.
    """
    chosen = [schema.index_of(name) for name in dict.fromkeys(names)]
    if 2 ** len(chosen) > MOST_COMBINATIONS:
        raise SettingsError(
            f"{len(chosen)} classes have {2 ** len(chosen)} combinations, more than {MOST_COMBINATIONS}",
            hint="Name the classes to combine, for instance --combine " + ",".join(names[:3]),
        )
    every = [frozenset(np.compress(kept, chosen).tolist()) for kept in product((False, True), repeat=len(chosen))]
    return sorted(every, key=len)


def _real(item: MapItem) -> NDArray[np.float32]:
    if item.real is None:
        raise SettingsError("these label maps have no real images", hint="Give a prepared data set as --masks")
    return item.real


class _Emptied:
    """The classes that are absent: given, and erased from every label map."""

    def __init__(self, schema: LabelSchema, names: Sequence[str]) -> None:
        self._indices = {schema.index_of(name) for name in names}
        self.names = tuple(names)

    def labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return erase(labels, self._indices) if self._indices else labels

    def states(self, states: ClassStates) -> ClassStates:
        return ClassStates(tuple(g or i in self._indices for i, g in enumerate(states.given, start=1)))


def maps_of(dataset: PreparedDataset, kind: Literal["data set", "another data set"]) -> LabelMaps:
    """What a sample set says of the data set that its label maps are from: its source, and how it was cut and
    divided.
    """
    info = dataset.info
    parts = [info.source.get("fingerprint"), info.axis, info.size, info.fit, info.spacing_mm, info.split_seed]
    parts += [info.intensity_rule, dataset.schema.names, len(dataset.rows)]
    digest = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
    return LabelMaps(kind=kind, name=str(info.source.get("name", dataset.folder.name)), fingerprint=digest)


def _splits(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row.split for row in rows}))


def _renamed(renames: Mapping[str, str] | None) -> tuple[str, ...] | None:
    return tuple(sorted(f"{ours}={theirs}" for ours, theirs in (renames or {}).items())) or None


def _origin(row: Row) -> Origin:
    return Origin(case=row.case, patient=row.patient, slice=row.slice, split=row.split)


def places_of(masks: int, per_mask: int, count: int | None) -> list[tuple[int, int]]:
    """(mask, repetition) pairs, of masks spread evenly where `count` takes only some."""
    if per_mask < 1 or (count is not None and count < 1):
        raise SettingsError("there must be at least one image to make", hint="Give --per-mask or --count at least 1")
    if count is None or count > masks * per_mask:
        every = [(place, repeat) for place in range(masks) for repeat in range(per_mask)]
        return every if count is None else sorted((i % masks, i // masks) for i in range(count))
    wanted = -(-count // per_mask)
    chosen = [(2 * i + 1) * masks // (2 * wanted) for i in range(wanted)]  # not the ends, where organs end too
    return [(place, repeat) for place in chosen for repeat in range(per_mask)][:count]


def check_same_anatomy(model: ImageModel, dataset: PreparedDataset) -> None:
    """Raises SettingsError where a model and a data set differ in classes, image size or channels."""
    spec = model.spec
    if spec.schema.names != dataset.schema.names:
        ours, theirs = ", ".join(spec.schema.names), ", ".join(dataset.schema.names)
        raise SettingsError(
            f"the model knows the classes {ours}, the data set has {theirs}",
            path=dataset.folder,
            hint="Name the prepared data set that the model was trained on, or one with its classes",
        )
    if spec.channels != dataset.channels:
        raise SettingsError(
            f"the model makes images of {spec.channels} channels, the data set has {dataset.channels}",
            path=dataset.folder,
            hint="Use a model that was trained on such images",
        )
    if spec.size != dataset.size:
        raise SettingsError(
            f"the model makes images of {spec.size}, the data set has {dataset.size}",
            path=dataset.folder,
            hint="Prepare the data with the size that the model was trained on",
        )
