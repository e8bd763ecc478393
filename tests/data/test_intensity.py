import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anatogen.data.intensity import IntensityRule, store
from anatogen.errors import DataError


def back(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    return stored.astype(np.float64) * slope + intercept


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int16, (3, 4, 5)), st.booleans())
def test_whole_numbers_come_back_exactly(values: np.ndarray, as_float: bool) -> None:
    values = values.astype(np.float32) if as_float else values
    if float(values.max()) - float(values.min()) > 65535:
        return
    stored, mapping = store(values, IntensityRule())
    assert np.array_equal(back(stored, mapping.slope, mapping.intercept), values)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_others_within_half_a_step(values: np.ndarray) -> None:
    stored, mapping = store(values, IntensityRule())
    error = np.abs(back(stored, mapping.slope, mapping.intercept) - values).max()
    assert error <= 0.5 * mapping.slope * (1 + 1e-6)


def test_sixteen_bits_above_zero() -> None:
    values = np.array([0, 40_000, 65_535], dtype=np.uint16)
    stored, mapping = store(values, IntensityRule())
    assert np.array_equal(back(stored, mapping.slope, mapping.intercept), values)


def test_window_to_the_model_and_back() -> None:
    hounsfield = np.arange(-1000, 1001, dtype=np.int16)
    stored, mapping = store(hounsfield, IntensityRule(window=(-160, 240)))
    gain, offset = mapping.to_model()
    x = gain * stored.astype(np.float64) + offset
    assert x[hounsfield == -160] == pytest.approx(-1) and x[hounsfield == 240] == pytest.approx(1)
    inside = (hounsfield >= -160) & (hounsfield <= 240)
    assert np.abs(mapping.from_model(x[inside].astype(np.float32)) - hounsfield[inside]).max() < 0.01


def test_constant_and_broken_images() -> None:
    _, mapping = store(np.full((2, 2), 5, dtype=np.int16), IntensityRule())
    assert mapping.low < 5 < mapping.high
    with pytest.raises(DataError, match="NaN"):
        store(np.array([1.0, np.nan]), IntensityRule())
