import numpy as np
import pytest

from anatogen.conditioning.edit import enlarge, innermost_component, shrink
from anatogen.errors import DataError


def rings() -> np.ndarray:
    """A disc of class 2 with a core of class 1, and a rim of class 1."""
    y, x = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(x, y)
    return np.select([radius < 4, radius < 13, radius < 15], [1, 2, 1], 0)


def test_the_cavity_is_the_inner_part() -> None:
    region = innermost_component(rings(), 1)
    assert region[19, 19] and not region[19, 5]
    with pytest.raises(DataError):
        innermost_component(np.zeros((8, 8), dtype=np.int64), 1)


def test_enlarge_and_shrink() -> None:
    labels = rings()
    region = innermost_component(labels, 1)
    grown = enlarge(labels, region, 2)
    assert (grown == 1).sum() > (labels == 1).sum() + 40
    assert np.array_equal(grown > 0, labels > 0)
    small = shrink(labels, region, 2)
    assert (small[region] == 2).any() and small[19, 19] == 1
    assert np.array_equal(small[~region], labels[~region])


def test_the_background_does_not_give_way() -> None:
    labels = np.zeros((9, 9), dtype=np.int64)
    labels[4, 4] = 1
    assert np.array_equal(enlarge(labels, labels == 1, 3), labels)
