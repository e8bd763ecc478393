import pytest
from hypothesis import given
from hypothesis import strategies as st

from anatogen.data.split import DEFAULT_SHARES, parse_shares, split_patients
from anatogen.errors import SettingsError


@given(st.integers(4, 200), st.integers(0, 5))
def test_every_patient_once_and_every_split_filled(count: int, seed: int) -> None:
    patients = [f"p{i}" for i in range(count)]
    splits = split_patients(patients * 2, DEFAULT_SHARES, seed)
    assert set(splits) == set(patients)
    sizes = {name: list(splits.values()).count(name) for name in DEFAULT_SHARES}
    assert min(sizes.values()) >= 1
    if count >= 40:
        assert all(abs(sizes[name] - share / 100 * count) <= 1 for name, share in DEFAULT_SHARES.items())


def test_the_split_ignores_order_and_depends_on_the_seed() -> None:
    patients = [f"p{i}" for i in range(50)]
    assert split_patients(patients, DEFAULT_SHARES, 0) == split_patients(patients[::-1], DEFAULT_SHARES, 0)
    assert split_patients(patients, DEFAULT_SHARES, 0) != split_patients(patients, DEFAULT_SHARES, 1)


def test_shares() -> None:
    assert parse_shares("train=80, test=20") == {"train": 80, "test": 20}
    for wrong in ("trian=80", "train=many", "train=-1", "train=0", "train"):
        with pytest.raises(SettingsError):
            parse_shares(wrong)


def test_too_few_patients() -> None:
    with pytest.raises(SettingsError, match="2 patients cannot fill"):
        split_patients(["a", "b"], DEFAULT_SHARES, 0)
