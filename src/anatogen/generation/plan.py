"""What to make: requests for the label maps of a data set, of another one, or of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.edit import erase
from anatogen.data.foreign_maps import maps_from_dataset
from anatogen.data.placement import Placement
from anatogen.data.store import PreparedDataset, Row
from anatogen.diffusion.interpolate import Mixing
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.folder_maps import maps_in
from anatogen.generation.header import Asked, LabelMaps
from anatogen.generation.manifest import Origin
from anatogen.generation.request import Likeness, ModelGeometry, Request, Requests, asked_of, check_likeness
from anatogen.labels import ClassStates, LabelSchema
from anatogen.seeds import derive_seed

MOST_COMBINATIONS = 256


def requests_from_dataset(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    states: ClassStates,
    *,
    absent: Sequence[str] = (),
    seed: int = 0,
    per_mask: int = 1,
    count: int | None = None,
    paired: bool = False,
) -> Requests:
    """`per_mask` requests for each row's label map, of as many rows, spread evenly, as `count` images in all want.

    A class is given where `states` and the case's annotation have it; those in `absent` are erased from the map and
    given. Each seed depends on `seed`, the row and the repetition alone, so that more images later leave these as they
    are. paired: each request takes along the real image of its map, with which it shares the given classes.
    """
    places = _places(len(rows), per_mask, count)
    emptied = _Emptied(dataset.schema, absent)

    def make(number: int) -> Request:
        place, repeat = places[number]
        row = rows[place]
        item = dataset.load([row])
        return Request(
            id=f"{row.id}_{repeat:02d}",
            labels=emptied.labels(item.labels[0].numpy()),
            states=emptied.states(states.and_also(dataset.states(row))),
            seed=derive_seed(seed, row.id, repeat),
            place=Placement.of(dataset, row),
            origin=_origin(row, repeat, emptied.names),
            partner=item.images[0].numpy() if paired else None,
        )

    asked = _asked(states, dataset.schema, absent, seed=seed, per_mask=per_mask, count=count)
    asked |= {"label_maps": maps_of(dataset, "data set"), "split": _splits(rows), "paired": paired or None}
    return Requests(len(places), make, Asked(**asked))


def requests_combined(requests: Sequence[Request], schema: LabelSchema, names: Sequence[str]) -> Requests:
    """Each of `requests` with every combination of the classes `names` given or free (Konz et al. 2024, Fig. 3).

    The seed stays, so that images differ by what is given alone. First comes everything given, last everything free; a class that
    a request has free already stays so. Raises SettingsError for unknown names, or for more than 256 combinations.
    """
    chosen = [schema.index_of(name) for name in dict.fromkeys(names)]
    if 2 ** len(chosen) > MOST_COMBINATIONS:
        raise SettingsError(
            f"{len(chosen)} classes have {2 ** len(chosen)} combinations, more than {MOST_COMBINATIONS}",
            hint="Name the classes to combine, for instance --combine " + ",".join(names[:3]),
        )
    every = [set(np.compress(kept, chosen).tolist()) for kept in product((False, True), repeat=len(chosen))]
    every.sort(key=len)

    def make(number: int) -> Request:
        request, combination = requests[number // len(every)], number % len(every)
        freed = every[combination]
        given = tuple(g and i not in freed for i, g in enumerate(request.states.given, start=1))
        digits = len(str(len(every) - 1))
        return replace(request, id=f"{request.id}_free{combination:0{digits}d}", states=ClassStates(given))

    asked = asked_of(requests).model_copy(update={"combine": tuple(dict.fromkeys(names))})
    return Requests(len(requests) * len(every), make, asked)


def requests_alike(
    dataset: PreparedDataset,
    requests: Sequence[Request],
    similarities: Sequence[float],
    *,
    step: int = 240,
    mixing: Mixing = "variance_preserving",
) -> Requests:
    """For each of `requests_from_dataset`'s, one for each similarity to the real image of its label map, the seed the same."""
    by_place: dict[tuple[str | None, int | None], Row] = {(row.case, row.slice): row for row in dataset.rows}
    similarities = list(dict.fromkeys(similarities))
    for similarity in similarities:
        check_likeness(similarity, step)

    def make(number: int) -> Request:
        request, similarity = requests[number // len(similarities)], similarities[number % len(similarities)]
        row = by_place.get((request.origin.case, request.origin.slice))
        if row is None:
            raise ValueError(f"request {request.id} is not of a label map of {dataset.folder}")
        image = dataset.load([row]).images[0].numpy()
        change = {"similarity": similarity, "weight": round(1 - similarity, 6), "halted_at": step, "mixing": mixing}
        return replace(
            request,
            id=f"{request.id}_alike{similarity:.6g}",
            likeness=Likeness(image, similarity, step, mixing),
            origin=request.origin.model_copy(update=change),
        )

    more = {"similarities": tuple(similarities), "step": step, "mixing": mixing}
    return Requests(len(requests) * len(similarities), make, asked_of(requests).model_copy(update=more))


def requests_from_elsewhere(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    model: ModelGeometry,
    states: ClassStates,
    *,
    renames: Mapping[str, str] | None = None,
    fit: Literal["crop", "pad"] = "crop",
    absent: Sequence[str] = (),
    seed: int = 0,
    per_mask: int = 1,
    count: int | None = None,
) -> Requests:
    """Requests for label maps of another data set, brought to the classes and the geometry of `model`.

    Classes are matched by name (see `match_classes`); those that `dataset` lacks are free. Maps that show none of the
    matched classes are left out. Raises SettingsError where classes or axes do not match, DataError where anatomy does not
    fit.
    """
    maps = maps_of(dataset, "another data set")
    found = [
        (row, labels.astype(np.uint16), own)
        for row, labels, own in maps_from_dataset(
            dataset, rows, model.schema, model.size, model.axis, model.spacing_mm, renames, fit=fit
        )
    ]
    places = _places(len(found), per_mask, count)
    emptied = _Emptied(model.schema, absent)

    def make(number: int) -> Request:
        place, repeat = places[number]
        row, labels, own = found[place]
        return Request(
            id=f"{row.id}_{repeat:02d}",
            labels=emptied.labels(labels.astype(np.int64)),
            states=emptied.states(states.and_also(own)),
            seed=derive_seed(seed, row.id, repeat),
            origin=_origin(row, repeat, emptied.names).model_copy(update={"elsewhere": maps.name}),
        )

    asked = _asked(states, model.schema, absent, seed=seed, per_mask=per_mask, count=count)
    renamed = tuple(sorted(f"{ours}={theirs}" for ours, theirs in (renames or {}).items()))
    asked |= {"label_maps": maps, "split": _splits(rows), "rename": renamed or None, "fit": fit}
    return Requests(len(places), make, Asked(**asked))


def requests_from_folder(
    folder: Path,
    model: ModelGeometry,
    states: ClassStates,
    *,
    renames: Mapping[str, str] | None = None,
    fit: Literal["crop", "pad"] = "crop",
    absent: Sequence[str] = (),
    seed: int = 0,
    per_mask: int = 1,
    count: int | None = None,
) -> Requests:
    """Requests for the label maps in `folder`: PNG, NPY, or volumes drawn on a scan (see `maps_in`)."""
    maps = maps_in(folder, model, renames=renames, fit=fit)
    places = _places(len(maps), per_mask, count)
    emptied = _Emptied(model.schema, absent)

    def make(number: int) -> Request:
        place, repeat = places[number]
        drawn = maps[place]
        return Request(
            id=f"{drawn.name}_{repeat:02d}",
            labels=emptied.labels(drawn.read()),
            states=emptied.states(states.and_also(drawn.states)),
            seed=derive_seed(seed, drawn.name, repeat),
            origin=Origin(file_of_map=drawn.file, slice_of_map=drawn.slice, repeat=repeat, absent=emptied.names),
        )

    digest = hashlib.sha256()
    for file in dict.fromkeys(drawn.file for drawn in maps):
        digest.update((folder / file).read_bytes())
    renamed = tuple(sorted(f"{ours}={theirs}" for ours, theirs in (renames or {}).items()))
    asked = _asked(states, model.schema, absent, seed=seed, per_mask=per_mask, count=count)
    asked |= {"rename": renamed or None, "fit": fit if fit != "crop" else None}
    source = LabelMaps(kind="folder", name=folder.resolve().name, fingerprint=digest.hexdigest()[:16])
    return Requests(len(places), make, Asked(**asked, label_maps=source))


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
    """What a sample set says of the data set that its label maps are from: its source, and how it was cut and divided."""
    info = dataset.info
    parts = [info.source.get("fingerprint"), info.axis, info.size, info.fit, info.spacing_mm, info.split_seed]
    parts += [info.intensity_rule, dataset.schema.names, len(dataset.rows)]
    digest = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
    return LabelMaps(kind=kind, name=str(info.source.get("name", dataset.folder.name)), fingerprint=digest)


def _asked(states: ClassStates, schema: LabelSchema, absent: Sequence[str], **more: int | None) -> dict[str, Any]:
    """What every way of making requests has in common, as the header of a sample set holds it."""
    given, free = tuple(states.given_names(schema)), tuple(states.free_names(schema))
    return {"given": given, "free": free, "absent": tuple(absent) or None, **more}


def _splits(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row.split for row in rows}))


def _origin(row: Row, repeat: int, absent: tuple[str, ...]) -> Origin:
    return Origin(case=row.case, patient=row.patient, slice=row.slice, split=row.split, repeat=repeat, absent=absent)


def _places(masks: int, per_mask: int, count: int | None) -> list[tuple[int, int]]:
    """(mask, repetition) pairs."""
    if per_mask < 1 or (count is not None and count < 1):
        raise SettingsError("there must be at least one image to make", hint="Give --per-mask or --count at least 1")
    if count is None or count > masks * per_mask:
        every = [(place, repeat) for place in range(masks) for repeat in range(per_mask)]
        return every if count is None else sorted((i % masks, i // masks) for i in range(count))
    wanted = -(-count // per_mask)
    chosen = [(2 * i + 1) * masks // (2 * wanted) for i in range(wanted)]  # not the ends, where organs end too
    return [(place, repeat) for place in chosen for repeat in range(per_mask)][:count]


def check_same_anatomy(generator: Generator, dataset: PreparedDataset) -> None:
    """Raises SettingsError where a model and a data set differ in classes, image size or channels."""
    if generator.schema.names != dataset.schema.names:
        ours, theirs = ", ".join(generator.schema.names), ", ".join(dataset.schema.names)
        raise SettingsError(
            f"the model knows the classes {ours}, the data set has {theirs}",
            path=dataset.folder,
            hint="Name the prepared data set that the model was trained on, or one with its classes",
        )
    channels = generator.denoiser.config.image_channels
    if channels != dataset.channels:
        raise SettingsError(
            f"the model makes images of {channels} channels, the data set has {dataset.channels}",
            path=dataset.folder,
            hint="Use a model that was trained on such images",
        )
    if generator.size != dataset.size:
        raise SettingsError(
            f"the model makes images of {generator.size}, the data set has {dataset.size}",
            path=dataset.folder,
            hint="Prepare the data with the size that the model was trained on",
        )
