"""Completed label maps keep what was given and take the rest from what was found."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from anatogen.conditioning.complete import completed


def test_a_small_map() -> None:
    labels = np.array([[1, 1, 2, 0]])  # 2 is free: what is drawn of it does not count
    found = np.array([[[2, 0, 0, 2]], [[0, 2, 1, 0]]])  # a given class that is found elsewhere is not added
    assert completed(labels, (True, False), found).tolist() == [[[1, 1, 0, 2]], [[1, 1, 0, 0]]]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_given_classes_are_kept_and_free_ones_are_found(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, max_side=5))
    labels = data.draw(arrays(np.int64, shape, elements=st.integers(0, 3)))
    found = data.draw(arrays(np.int64, (2, *shape), elements=st.integers(0, 3)))
    states = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    full = completed(labels, states, found)
    for index, is_given in enumerate(states, start=1):
        for one, seen in zip(full, found, strict=True):
            if is_given:
                assert np.array_equal(one == index, labels == index)
            else:
                covered = np.isin(labels, [i for i, state in enumerate(states, start=1) if state])
                assert np.array_equal(one == index, (seen == index) & ~covered)
