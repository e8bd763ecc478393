"""Label maps that were edited: a source that wraps another one, and the limits of what is plausible in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.edit import LabelMap
from anatogen.conditioning.edit_language import Edit, Edited
from anatogen.conditioning.edit_words import Anatomy
from anatogen.conditioning.plausibility import Limits, learn_limits
from anatogen.data.foreign_maps import maps_from_dataset
from anatogen.data.placement import is_picture, item_spacing
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.generation.edited_folder import same_pixels
from anatogen.generation.plan import MapItem, MapSource, places_of
from anatogen.labels import LabelSchema
from anatogen.model import ModelSpec
from anatogen.progress import stage
from anatogen.seeds import derive_seed

Implausible = Literal["warn", "refuse", "keep"]
TRIES = 10
MOST_TRAINING_MAPS = 2000
_DONORS_LOOKED_AT, _DONORS_CHOSEN_FROM = 64, 8


@dataclass(frozen=True)
class Editing:
    """How maps are edited.

    Attributes:
        edits: Recipes; edit k of a map takes the recipe k modulo their number.
        per_map: Edits of each map.
        count: Edits in all, of maps spread evenly; None: of every map.
        seed: That of edit k of a map derives from this one, the map's name and k alone.
        limits: What is plausible; None judges nothing.
        implausible: "warn" keeps an implausible edit and records why it is one; "refuse" draws it again, up to 10
            times, and then leaves it out; "keep" does not judge.
    """

    edits: tuple[Edit, ...]
    per_map: int = 1
    count: int | None = None
    seed: int = 0
    limits: Limits | None = None
    implausible: Implausible = "warn"

    def __post_init__(self) -> None:
        if not self.edits:
            raise SettingsError("there is no edit", hint='Write for instance --edit "grow liver 5mm; deform 0.3"')


@dataclass(frozen=True)
class _Drawn:
    """An edit of a map: which map and edit it is, the try that was kept, and what is implausible in it."""

    map: int
    edit: int
    attempt: int = 0


class EditedMaps:
    """The maps of another source after edits, `per_map` of each.

    An item keeps origin, place, known classes and the real image of the map that it was made from, and that map as
    `unedited`. Maps that show none of the classes which a recipe needs are left out; so are, with "refuse", edits that
    stay implausible.

    Args:
        source: Where the maps are from.
        editing: How they are edited.

    Attributes:
        unfit: How many maps show no class that the edits need.
        refused: How many edits were left out because none of their tries was plausible.

    Raises:
        SettingsError: A word of an edit means nothing for these maps.
        DataError: No map shows a class that the edits need, or every edit was refused.
    """

    def __init__(self, source: MapSource, editing: Editing) -> None:
        self.source, self.editing, self.schema, self.axis = source, editing, source.schema, source.axis
        self._donors = lru_cache(_DONORS_LOOKED_AT)(self._map)
        self._numbers = lru_cache(1)(lambda: {source.name(i): i for i in range(len(source))})
        if len(source):
            first = source.item(0)
            for edit in editing.edits:
                edit.check(self._anatomy(first, 0))
        fit = [i for i in range(len(source)) if self._suits(i)]
        self.unfit, self.refused = len(source) - len(fit), 0
        if not fit:
            needed = ", ".join(dict.fromkeys(name for edit in editing.edits for name in edit.needed or ()))
            raise DataError(f"none of the {len(source)} label maps shows {needed}", hint="Choose others with --split")
        self._drawn = [_Drawn(fit[i], edit) for i, edit in places_of(len(fit), editing.per_map, editing.count)]
        if editing.implausible == "refuse":
            self._refuse()

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        editing = self.editing
        more = {
            "edits": tuple(edit.text for edit in editing.edits),
            "edits_per_map": editing.per_map,
            "edit_seed": editing.seed,
            "implausible": editing.implausible,
        }
        return {**self.source.asked, **more}

    def __len__(self) -> int:
        return len(self._drawn)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        drawn = self._drawn[number]
        return f"{self.source.name(drawn.map)}_edit{drawn.edit:02d}"

    def spread(self, count: int) -> list[int]:
        """The numbers of `count` maps, spread over all of them, that show every recipe in turn."""
        recipes, found = len(self.editing.edits), []
        for i in range(count):
            middle = (2 * i + 1) * len(self) // (2 * count)
            ones = [n for n, drawn in enumerate(self._drawn) if drawn.edit % recipes == i % recipes]
            found.append(min(ones, key=lambda n: abs(n - middle), default=middle))
        return list(dict.fromkeys(found))

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        drawn = self._drawn[number]
        item = self.source.item(drawn.map)
        edited = self._edited(item, drawn)
        faults = () if self.editing.implausible == "keep" else self._faults(edited, item, drawn.edit)
        steps = (*item.origin.edits, *edited.steps)
        origin = item.origin.model_copy(update={"edits": steps, "edit": drawn.edit, "implausible": faults})
        unedited = item.labels if item.unedited is None else item.unedited
        return replace(item, labels=edited.labels, origin=origin, unedited=unedited)

    def _edited(self, item: MapItem, drawn: _Drawn) -> Edited:
        again = (drawn.attempt,) if drawn.attempt else ()
        seed = derive_seed("edit", self.editing.seed, self.source.name(drawn.map), drawn.edit, *again)
        recipe = self.editing.edits[drawn.edit % len(self.editing.edits)]
        return recipe.drawn(item.labels, self._anatomy(item, drawn.map), seed)

    def _faults(self, edited: Edited, item: MapItem, edit: int) -> tuple[str, ...]:
        if self.editing.limits is None:
            return ()
        recipe = self.editing.edits[edit % len(self.editing.edits)]
        removed = [self.schema.index_of(name) for name in recipe.removed]
        return self.editing.limits.faults(edited.labels, item.spacing_mm, removed=removed)

    def _refuse(self) -> None:
        """Keep of each edit the first plausible try; leave out those that have none."""
        if self.editing.limits is None:
            return
        kept: list[_Drawn] = []
        with stage("drawing edits", len(self._drawn), "edits") as bar:
            for place, drawn in enumerate(self._drawn, start=1):
                item = self.source.item(drawn.map)
                tries = (replace(drawn, attempt=attempt) for attempt in range(TRIES))
                found = next((t for t in tries if not self._faults(self._edited(item, t), item, t.edit)), None)
                kept += [] if found is None else [found]
                bar.update(place)
        self.refused = len(self._drawn) - len(kept)
        if not kept:
            raise DataError(
                f"all {self.refused} edits are implausible, after {TRIES} tries each",
                hint="Edit less, or see why with --implausible warn",
            )
        self._drawn = kept

    def _suits(self, number: int) -> bool:
        """Whether a map shows a class that each recipe needs."""
        needed = [[self.schema.index_of(name) for name in edit.needed or ()] for edit in self.editing.edits]
        if not any(needed):
            return True
        shown = np.unique(self.source.item(number).labels)
        return all(np.isin(classes, shown).any() for classes in needed if classes)

    def _anatomy(self, item: MapItem, number: int) -> Anatomy:
        return Anatomy(self.schema, item.labels.ndim, self.axis, item.spacing_mm, _Others(self, number, item))

    def _map(self, number: int) -> MapItem:
        return self.source.item(number)


@dataclass(frozen=True)
class _Others:
    """The other patients' maps of a source, as `Donors`."""

    maps: EditedMaps
    number: int
    item: MapItem

    def draw(self, seed: int, classes: Sequence[int]) -> tuple[str, LabelMap] | None:
        """See `Donors`: of the first 8 suitable maps among up to 64 that are looked at, the one most like this map.

        It has the same classes if possible, of about their sizes, so that a slice takes from one at about its height.
        Pixels of another size (by over 15 %) do not suit.
        """
        random = np.random.default_rng(seed)
        source, found = self.maps.source, list[tuple[int, int, int]]()
        ours = self._sizes(self.item)
        for number in random.permutation(len(source))[:_DONORS_LOOKED_AT].tolist():
            donor = self.maps._donors(number)
            own = _whose(donor) is not None and _whose(donor) == _whose(self.item)
            if number == self.number or own or not same_pixels(donor.spacing_mm, self.item.spacing_mm):
                continue
            if np.isin(donor.labels, list(classes)).any() if len(classes) else donor.labels.any():
                theirs = self._sizes(donor)
                unlike = int(((theirs > 0) != (ours > 0)).sum())
                found.append((unlike, int(np.abs(theirs - ours).sum()), number))
            if len(found) == _DONORS_CHOSEN_FROM:
                break
        if not found:
            return None
        number = min(found)[-1]
        return source.name(number), self.maps._donors(number).labels

    def _sizes(self, item: MapItem) -> NDArray[np.int64]:
        return np.bincount(item.labels.ravel(), minlength=self.maps.schema.count)

    def named(self, name: str) -> LabelMap:
        """See `Donors`."""
        numbers = self.maps._numbers()
        if name not in numbers:
            raise SettingsError(
                f"there is no label map '{name}' to take structures from", hint=nearest(name, list(numbers)[:1000])
            )
        return self.maps._donors(numbers[name]).labels


def _whose(item: MapItem) -> str | None:
    return item.origin.patient or item.origin.case or item.origin.file_of_map


def limits_of(
    dataset: PreparedDataset, model: ModelSpec | None = None, *, renames: Mapping[str, str] | None = None
) -> Limits:
    """The plausibility limits of a data set's training patients, of up to 2,000 maps spread over them.

    model: whose classes and geometry the maps are brought to; None takes the maps as they are. renames: as
    `maps_from_dataset` has it.

    Raises:
        DataError: There are too few training patients.
    """
    rows = [row for row in dataset.rows if row.split == "train"]
    if len(rows) > MOST_TRAINING_MAPS:
        rows = [rows[i * len(rows) // MOST_TRAINING_MAPS] for i in range(MOST_TRAINING_MAPS)]
    schema: LabelSchema = dataset.schema if model is None else model.schema
    spacings: dict[str, tuple[float, ...] | None] = {}
    maps: list[tuple[LabelMap, tuple[float, ...] | None, str]] = []
    known = set(range(1, schema.count))
    with stage("learning what is plausible", len(rows), "label maps") as bar:
        if model is not None:
            for row, labels, states in maps_from_dataset(dataset, rows, model, renames) if rows else ():
                maps.append((labels, model.spacing_mm, row.patient))
                known &= {index for index, given in enumerate(states.given, start=1) if given}
                bar.advance()
        else:
            for start in range(0, len(rows), 64):
                batch = dataset.load(rows[start : start + 64])
                for row, array in zip(batch.rows, batch.labels.numpy(), strict=True):
                    if row.case not in spacings:
                        spacings[row.case] = None if is_picture(dataset, row.case) else item_spacing(dataset, row)
                    maps.append((array, spacings[row.case], row.patient))
                    known &= {schema.index_of(name) for name in row.annotated}
                bar.update(start + len(batch))
    return learn_limits(maps, schema.names, known=known)
