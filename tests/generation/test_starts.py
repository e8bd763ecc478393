"""What of a real image stays in a counterfactual, and how a translation starts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.conditioning.counterfactual import kept_outside
from anatogen.errors import SettingsError
from anatogen.generation.starts import Counterfactual, Translation
from anatogen.model import Known, Noised


def test_the_image_is_kept_from_the_margin_on() -> None:
    before = np.zeros((41, 41), np.int64)
    after = before.copy()
    after[20, 20] = 1
    kept = kept_outside(before, after, 8.0)
    distance = np.hypot(*(np.indices(before.shape) - 20))
    assert (kept[distance >= 8] == 1).all() and (kept[distance <= 4] == 0).all()
    between = kept[(distance > 4) & (distance < 8)]
    assert (between > 0).all() and (between < 1).all()
    ray = kept[20, 20:29]
    assert (np.diff(ray) >= 0).all() and np.diff(ray).max() < 0.5  # it rises smoothly


@given(st.integers(0, 2**32 - 1), st.floats(0, 12), st.sampled_from([(14, 18), (9, 10, 11)]))
@settings(max_examples=40, deadline=None)
def test_what_differs_is_made_anew(seed: int, margin: float, size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 3, (2, *size))
    kept = kept_outside(before, after, margin)
    assert kept.dtype == np.float32 and kept.shape == size and (kept[before != after] == 0).all()
    assert ((kept >= 0) & (kept <= 1)).all()
    assert (kept_outside(before, before, margin) == 1).all()


def test_the_margin_is_in_mm_along_every_axis() -> None:
    before = np.zeros((21, 21, 21), np.int64)
    after = before.copy()
    after[10, 10, 10] = 1
    kept = kept_outside(before, after, 6.0, (3.0, 1.0, 2.0))
    ends = [int(np.argmax(np.moveaxis(kept, axis, 0)[10:, 10, 10] == 1)) for axis in range(3)]
    assert ends == [2, 6, 3]


def test_starts() -> None:
    real = np.zeros((1, 8, 8), np.float32)
    labels = np.zeros((8, 8), np.int64)
    edited = labels.copy()
    edited[2, 2] = 1
    start = Counterfactual(0.0).start(real, edited, labels)
    assert isinstance(start, Known) and start.kept.sum() == 63 and start.kept[2, 2] == 0
    whole = Counterfactual(4.0).start(real, labels, None)
    assert isinstance(whole, Known) and (whole.kept == 1).all()
    noised = Translation(600).start(real, labels, None)
    assert isinstance(noised, Noised) and noised.step == 600
    assert (
        Counterfactual(4, (1.0, 1.0)).described == {"margin": "4mm"} and Counterfactual(4).described["margin"] == "4px"
    )
    with pytest.raises(SettingsError, match="at least 0"):
        Counterfactual(-1.0)
    with pytest.raises(SettingsError, match="outside 1 to 999"):
        Translation(1000)
