"""Attributes as vectors: known answers, what is unknown, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anatogen.conditioning.attributes import (
    MOST_LEVELS,
    AttributeSchema,
    Categorical,
    Numeric,
    Value,
    draw_known,
    learned,
    parse_attributes,
)
from anatogen.conditioning.encode import Condition
from anatogen.errors import DataError, SettingsError

SEQUENCE = Categorical(name="sequence", levels=("T1", "T2", "flair"))
AGE = Numeric(name="age", mean=60, std=10, low=40, high=80)
SCHEMA = AttributeSchema(attributes=(SEQUENCE, AGE))


def vectors(*items: dict[str, Value]) -> list[list[float]]:
    return SCHEMA.vectors(SCHEMA.codes(items)).tolist()


def test_known_answers() -> None:
    assert SCHEMA.size == 6 and SCHEMA.names == ("sequence", "age")
    assert vectors({"sequence": "T2", "age": 75}, {"age": "50"}, {"sequence": "T1"}, {}) == [
        [0, 1, 0, 1, 1.5, 1],
        [0, 0, 0, 0, -1, 1],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_what_was_not_seen_in_training_is_unknown_to_the_model() -> None:
    assert SCHEMA.understood({"sequence": "PD", "age": 81, "scanner": "A"}) == {}
    assert vectors({"sequence": "PD", "age": 39}) == [[0] * 6]
    assert SCHEMA.understood({"age": 80 + 1e-7}) == {"age": 80 + 1e-7}  # rounding


def test_a_schema_comes_back_from_json() -> None:
    assert AttributeSchema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=2, max_size=20))
def test_a_categorical_attribute_is_read_back_from_its_vector(values: list[str]) -> None:
    if len(set(values) - {""}) < 2:
        with pytest.raises(SettingsError, match="single value|no known value"):
            learned("x", values)
        return
    attribute = learned("x", values)
    assert isinstance(attribute, Categorical)
    schema = AttributeSchema(attributes=(attribute,))
    vector = schema.vectors(schema.codes([{"x": value} if value else {} for value in values]))
    for value, one in zip(values, vector, strict=True):
        assert one[-1] == bool(value) and one[:-1].sum() == bool(value)
        assert not value or attribute.levels[int(one[:-1].argmax())] == value


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=30).filter(lambda values: len(set(values)) > 1))
def test_numbers_are_standardised(values: list[int]) -> None:
    attribute = learned("x", [*map(str, values), "n/a", None])
    assert isinstance(attribute, Numeric) and (attribute.low, attribute.high) == (min(values), max(values))
    schema = AttributeSchema(attributes=(attribute,))
    vector = schema.vectors(schema.codes([{"x": value} for value in values]))
    assert vector[:, 0].mean() == pytest.approx(0, abs=1e-3) and (vector[:, 1] == 1).all()
    assert vector[:, 0].std(correction=0) == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_learned() -> None:
    for values, said in (
        (["61", "70", "old", "55"], "text 'old' among numbers"),
        (["61", "nan", "70"], "text 'nan' among numbers"),
    ):
        with pytest.raises(DataError, match=said):
            learned("age", values)
    with pytest.raises(SettingsError, match="no known value"):
        learned("age", ["", "n/a"])
    with pytest.raises(SettingsError, match="a single value"):
        learned("age", ["61", "61.0"])
    with pytest.raises(SettingsError, match="different texts"):
        learned("name", [f"patient {number}" for number in range(MOST_LEVELS + 1)])


def test_each_attribute_is_left_out_on_its_own_and_all_together() -> None:
    codes = torch.zeros(20_000, 2)
    codes[:1000, 1] = math.nan
    chance = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    known = draw_known(codes, chance, dropout=0.2).isfinite()
    assert not known[:1000, 1].any()  # what is unknown stays so
    first, second = known[1000:].T
    assert first.float().mean().item() == pytest.approx(0.8 * 0.8, abs=0.02)
    assert (first & second).float().mean().item() == pytest.approx(0.8**3, abs=0.02)
    assert (~first & ~second).float().mean().item() == pytest.approx(0.2 + 0.8 * 0.2**2, abs=0.02)
    assert draw_known(codes, chance, dropout=0.0).isfinite().equal(codes.isfinite())
    assert not draw_known(codes, chance, dropout=1.0).isfinite().any()


def test_a_condition_without_its_attributes() -> None:
    labels, states = torch.zeros(2, 4, 4, dtype=torch.int64), torch.ones(2, 1, dtype=torch.bool)
    told = Condition.of(labels, states, vector=torch.ones(2, 3))
    without = told.without_attributes()
    assert without.vector is not None and not without.vector.any() and without.labels is told.labels
    assert Condition.of(labels, states).without_attributes().vector is None


def test_what_is_asked_for() -> None:
    assert parse_attributes([], None) == {}
    assert parse_attributes(["sequence=T2", "age = 61.5"], SCHEMA) == {"sequence": "T2", "age": 61.5}
    assert parse_attributes(["age=unknown"], SCHEMA) == {"age": None}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["sequence"], "expected NAME=VALUE"),
        (["sequence="], "expected NAME=VALUE"),
        (["sequence=T1", "sequence=T2"], "given twice"),
        (["sequenze=T1"], "Did you mean 'sequence'"),
        (["sequence=PD"], "no value 'PD'. Known: T1, T2, flair"),
        (["age=90"], "was 40 to 80 in training, got 90"),
        (["age=old"], "must be a number, got 'old'. Known: 40 to 80"),
        (["age=inf"], "must be a number"),
    ],
)
def test_what_cannot_be_asked_for(texts: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_attributes(texts, SCHEMA)


def test_a_model_without_attributes_is_asked_for_none() -> None:
    with pytest.raises(SettingsError, match="takes no attributes, but sequence is asked for"):
        parse_attributes(["sequence=T1"], None)
