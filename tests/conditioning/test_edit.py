import numpy as np
import pytest

from anatogen.conditioning.edit import enlarge, shrink
from anatogen.errors import DataError


def rings() -> np.ndarray:
    """A disc of class 2 with a core of class 1."""
    y, x = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(x, y)
    return np.select([radius < 4, radius < 13], [1, 2], 0)


def test_enlarge_and_shrink() -> None:
    labels = rings()
    region = labels == 1
    grown = enlarge(labels, region, 2)
    assert (grown == 1).sum() > (labels == 1).sum() + 40
    assert np.array_equal(grown > 0, labels > 0)
    small = shrink(labels, region, 2)
    assert (small[region] == 2).any() and small[19, 19] == 1
    assert np.array_equal(small[~region], labels[~region])


def test_the_background_gives_way_where_it_is_told_to() -> None:
    labels = np.zeros((9, 9), dtype=np.int64)
    labels[4, 4] = 1
    assert np.array_equal(enlarge(labels, labels == 1, 3), labels)
    grown = enlarge(labels, labels == 1, 1, into_background=True)
    assert set(zip(*np.nonzero(grown), strict=True)) == {(4, 4), (3, 4), (5, 4), (4, 3), (4, 5)}
    assert (enlarge(labels, labels == 1, 3, into_background=True) == 1).sum() == 29  # lattice points within 3


def test_nothing_to_enlarge_is_said() -> None:
    with pytest.raises(DataError, match="empty"):
        enlarge(np.zeros((4, 4), dtype=np.int64), np.zeros((4, 4), dtype=bool), 1)
