"""Sets of label maps of which a chosen share shows a class."""

from __future__ import annotations

import numpy as np
import pytest

from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.generation.balanced_maps import BalancedMaps, share_that_shows
from anatogen.generation.edited_maps import Editing


def balanced(dataset: PreparedDataset, share: float, count: int = 20, rows: list[object] | None = None) -> BalancedMaps:
    chosen = dataset.split("train") if rows is None else rows
    editing = Editing(parse_edits(["deform 0.1"]), implausible="keep")
    return BalancedMaps(dataset, chosen, "core", share, count=count, editing=editing)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
def test_the_share_is_what_was_asked_for(dataset: PreparedDataset, share: float) -> None:
    maps = balanced(dataset, share)
    assert maps.showing and maps.lacking and len(maps) == 20
    items = [maps.item(i) for i in range(len(maps))]
    assert share_that_shows([item.labels for item in items], maps.schema, "core") == pytest.approx(share)
    assert len({maps.name(i) for i in range(20)}) == 20 and len({item.labels.tobytes() for item in items}) > 15
    assert all(item.origin.edits and item.origin.patient for item in items)
    assert maps.asked["balance"] == ("core", share)


def test_where_every_map_shows_it_the_class_is_removed(dataset: PreparedDataset) -> None:
    rows = [row for row in dataset.split("train") if bool((dataset.load([row]).labels == 2).any())]
    maps = balanced(dataset, 0.5, count=10, rows=list(rows))
    assert maps.lacking == 0
    shown = [bool((maps.item(i).labels == 2).any()) for i in range(10)]
    assert shown == [True] * 5 + [False] * 5 and all((maps.item(i).labels == 1).any() for i in range(10))


def test_what_is_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match=r"in \[0, 1\]"):
        balanced(dataset, 1.5)
    with pytest.raises(SettingsError, match="at least one image"):
        balanced(dataset, 0.5, count=0)
    none = [row for row in dataset.split("train") if not bool((dataset.load([row]).labels == 2).any())]
    with pytest.raises(DataError, match="no label map shows core"):
        balanced(dataset, 0.5, rows=list(none))
    assert np.isnan(share_that_shows([], dataset.schema, "core"))
