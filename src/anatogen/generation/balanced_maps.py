"""Label maps of which a chosen share shows a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, SettingsError
from anatogen.generation.edited_maps import EditedMaps, Editing
from anatogen.generation.plan import DatasetMaps, MapItem
from anatogen.labels import LabelSchema


class BalancedMaps:
    """Edited maps of a data set, of which a share shows a class.

    Those that show it are made of maps that do; the others of maps that do not, or, where the data set has none of
    these, of maps from which the class is removed.

    Args:
        dataset: The data set.
        rows: Of it.
        name: The class.
        share: Of the maps, 0 to 1.
        count: Of the maps in all.
        editing: What is done with every map, so that none is used as it is.

    Attributes:
        showing, lacking: How many of `rows` show the class, and how many do not.

    Raises:
        SettingsError: An unknown class, a share outside 0 to 1, or no map at all.
        DataError: No map shows the class, or fewer than wanted stay after implausible edits were refused.
    """

    def __init__(
        self, dataset: PreparedDataset, rows: Sequence[Row], name: str, share: float, *, count: int, editing: Editing
    ) -> None:
        if not 0 <= share <= 1:
            raise SettingsError(f"the share must be in [0, 1], got {share:g}", hint="Choose for instance 0.3")
        if count < 1:
            raise SettingsError("there must be at least one image to make", hint="Give --count at least 1")
        self.dataset, self.rows, self.schema = dataset, rows, dataset.schema
        self.class_name, self.share, self.editing = name, share, editing
        shown = self._showing(self.schema.index_of(name))
        with_it = [row for row, there in zip(rows, shown, strict=True) if there]
        without = [row for row, there in zip(rows, shown, strict=True) if not there]
        self.showing, self.lacking = len(with_it), len(without)
        if not with_it:
            raise DataError(
                f"no label map shows {name}",
                path=dataset.folder,
                hint="Choose others with --split; a class that nobody has drawn cannot be balanced",
            )
        wanted = round(share * count)
        self._parts = [
            *self._part("with", with_it, wanted, editing.edits),
            *self._part("without", without or with_it, count - wanted, self._removing(bool(without))),
        ]
        if len(self) < count:
            raise DataError(
                f"only {len(self)} of {count} edited maps are plausible", hint="Use milder edits, or --implausible warn"
            )

    def _showing(self, index: int) -> list[bool]:
        return [
            bool(there)
            for batch in self.dataset.batches(self.rows)
            for there in (batch.labels == index).flatten(1).any(dim=1).tolist()
        ]

    def _removing(self, some_lack_it: bool) -> tuple[Any, ...]:
        """The edits of maps without the class."""
        if some_lack_it:
            return self.editing.edits
        return parse_edits([f"remove {self.class_name}; {edit.text}" for edit in self.editing.edits])

    def _part(self, kind: str, rows: Sequence[Row], count: int, edits: tuple[Any, ...]) -> list[tuple[str, EditedMaps]]:
        if count == 0:
            return []
        editing = Editing(
            edits,
            per_map=-(-count // len(rows)),
            count=count,
            seed=self.editing.seed,
            limits=self.editing.limits,
            implausible=self.editing.implausible,
        )
        return [(kind, EditedMaps(DatasetMaps(self.dataset, rows), editing))]

    @property
    def axis(self) -> str | None:
        """See `MapSource`."""
        return self._parts[0][1].axis

    @property
    def asked(self) -> Mapping[str, Any]:
        """See `MapSource`."""
        more = {
            "edits": tuple(edit.text for edit in self.editing.edits),
            "edit_seed": self.editing.seed,
            "implausible": self.editing.implausible,
            "balance": (self.class_name, self.share),
        }
        return {**DatasetMaps(self.dataset, self.rows).asked, **more}

    def __len__(self) -> int:
        return sum(len(part) for _, part in self._parts)

    def _at(self, number: int) -> tuple[str, EditedMaps, int]:
        for kind, part in self._parts:
            if number < len(part):
                return kind, part, number
            number -= len(part)
        raise IndexError(number)

    def name(self, number: int) -> str:
        """See `MapSource`."""
        kind, part, place = self._at(number)
        return f"{part.name(place)}_{kind}"

    def item(self, number: int) -> MapItem:
        """See `MapSource`."""
        _, part, place = self._at(number)
        return part.item(place)


def share_that_shows(labels: Sequence[np.ndarray], schema: LabelSchema, name: str) -> float:
    """The share of label maps that show a class; NaN without maps."""
    index = schema.index_of(name)
    return float(np.mean([bool((each == index).any()) for each in labels])) if len(labels) else float("nan")
