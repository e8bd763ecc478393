from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anatogen.conditioning import edit
from anatogen.conditioning.edit_language import Edit, parse_edit
from anatogen.conditioning.edit_steps import Grow, Move, Remove
from anatogen.conditioning.edit_words import Amount, Anatomy
from anatogen.errors import SettingsError
from anatogen.labels import LabelSchema

SCHEMA = LabelSchema.from_names(["liver", "left_kidney", "right_kidney", "grey matter"])
SLICES = Anatomy(SCHEMA, 2, "axial", (2.0, 1.0))


def organs() -> np.ndarray:
    labels = np.zeros((48, 64), np.int64)
    labels[10:30, 8:28] = 1
    labels[34:40, 44:52] = 2
    labels[34:40, 12:20] = 3
    return labels


def test_what_the_words_mean() -> None:
    found = parse_edit("grow liver 2..6mm over background, left_kidney; remove left_kidney, grey matter; deform 0.3")
    assert found.steps[0] == Grow(("liver",), Amount(2, 6, "mm"), ("background", "left_kidney"))
    assert found.steps[1] == Remove(("left_kidney", "grey matter"))
    assert found.removed == ("left_kidney", "grey matter") and found.needed is None
    assert parse_edit('move "grey matter" 3 mm left 2px up').steps == (
        Move(("grey matter",), ((Amount(3, 3, "mm"), "left"), (Amount(2, 2, "px"), "up"))),
    )
    assert parse_edit("GROW liver .5mm; ;").needed == ("liver",)


EDITS = [
    "grow liver 2..6mm over background, left_kidney",
    'grow liver, "grey matter" 3px over classes',
    "shrink liver 1.5mm",
    "move liver 5mm",
    "move liver, left_kidney 2mm left 3..4mm posterior",
    "mirror",
    "deform 0.1..0.3 20mm seed 3",
    "deform 0.2",
    "paste liver from case_0001_0007",
    "interpolate 0.3..0.7 with case_0001_0007",
    "remove liver, right_kidney",
]


@pytest.mark.parametrize("text", EDITS)
def test_an_edit_is_written_as_it_is_read(text: str) -> None:
    assert parse_edit(text).text == text and parse_edit(parse_edit(text).text) == parse_edit(text)


@given(st.lists(st.sampled_from(EDITS[:8]), min_size=1, max_size=4), st.integers(0, 2**40))
def test_what_was_drawn_can_be_done_again(texts: list[str], seed: int) -> None:
    """The drawn steps have no ranges and no seeds left to draw: read again, they give the same map by any seed."""
    drawn = parse_edit("; ".join(texts)).drawn(organs(), SLICES, seed)
    assert ".." not in "".join(drawn.steps)
    if drawn.steps:
        again = parse_edit("; ".join(drawn.steps)).drawn(organs(), SLICES, seed + 1)
        assert np.array_equal(again.labels, drawn.labels) and again.steps == drawn.steps


def test_ranges_are_drawn_by_seed() -> None:
    grown = parse_edit("grow liver 2..6mm")
    texts = [grown.drawn(organs(), SLICES, seed).steps[0] for seed in range(60)]
    amounts = [float(text.removeprefix("grow liver ").removesuffix("mm")) for text in texts]
    assert min(amounts) >= 2 and max(amounts) <= 6 and max(amounts) - min(amounts) > 3 and len(set(amounts)) > 50
    assert grown.drawn(organs(), SLICES, 7).steps == grown.drawn(organs(), SLICES, 7).steps


def test_distances_and_directions() -> None:
    """Rows of axial slices run to posterior, columns to the left; pixels here are 2 mm x 1 mm."""
    labels = organs()
    for text, steps in {
        "move liver 4mm posterior": (2, 0),
        "move liver 4mm up": (-2, 0),
        "move liver 3mm left": (0, 3),
        "move liver 3px right 2px anterior": (-2, -3),
    }.items():
        found = parse_edit(text).drawn(labels, SLICES, 0).labels
        assert np.array_equal(found == 1, edit.shifted(labels, steps) == 1)
    in_pixels = parse_edit("grow liver 3px").drawn(labels, SLICES, 0).labels
    assert np.array_equal(in_pixels, edit.grow(labels, 1, 3))
    volume = Anatomy(SCHEMA, 3, "volume", (2.0, 1.0, 1.0))
    assert [volume.direction(word) for word in ("superior", "posterior", "left")] == [(0, -1), (1, 1), (2, 1)]
    anywhere = parse_edit("move liver 6mm")
    for seed in range(20):
        step = parse_edit(anywhere.drawn(labels, SLICES, seed).steps[0]).steps[0]
        assert isinstance(step, Move)
        assert np.hypot(*(amount.low for amount, _ in step.by)) == pytest.approx(6, abs=0.002)


def test_mirroring_exchanges_left_and_right() -> None:
    mirrored = parse_edit("mirror").drawn(organs(), SLICES, 0).labels
    assert np.array_equal(mirrored == 2, organs()[:, ::-1] == 3) and np.array_equal(
        mirrored == 1, organs()[:, ::-1] == 1
    )


def test_a_step_without_its_class_is_passed_over() -> None:
    labels = np.where(organs() == 2, 0, organs())
    found = parse_edit("grow left_kidney 3mm; remove liver").drawn(labels, SLICES, 0)
    assert found.steps == ("remove liver",) and not (found.labels == 1).any()
    assert parse_edit("paste liver; interpolate 0.5").drawn(labels, SLICES, 0).steps == ()  # nobody to take from


BAD = {
    "grwo liver 3mm": "unknown edit 'grwo'. Did you mean 'grow'?",
    "grow liver": "a distance is missing",
    "grow 5mm": "the name of a class is missing before '5mm'",
    "grow liver 5": "'5' has no unit",
    "grow liver 5cm": "has the unit 'cm'",
    "grow liver 6..2mm": "Write 2..6mm",
    "grow liver 0mm": "changes nothing",
    "grow livr 3mm": "unknown class 'livr'. Did you mean 'liver'?",
    "grow liver 3mm over backgruond": "Did you mean 'background'?",
    "grow liver 3mm over all, liver": "'all' stands for everything",
    "move liver 5mm lft": "unknown direction 'lft'. Did you mean 'left'?",
    "move liver 3mm superior": "there is no 'superior' in axial slices",
    "move liver 3mm left 2mm": "a direction is missing",
    "deform 2": "out of range",
    "deform": "a number is missing",
    "deform 30%": "has the unit '%'",
    "deform 0.3 3mm": "below two pixels",
    "deform 0.3 seed x": "'x' is no seed",
    "interpolate 1.5": "out of range",
    "paste liver from": "the name of a map is missing",
    "mirror liver": "'liver' was not expected",
    'grow "grey matter 3mm': "is not closed",
    "remove": "the name of a class is missing",
    "remove liver,": "the name of a class is missing",
    " ; ": "the edit is empty",
}


@pytest.mark.parametrize("text", BAD)
def test_an_error_names_the_word(text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_edit(text).check(Anatomy(SCHEMA, 2, "axial", (2.0, 1.0)))
    assert BAD[text] in str(raised.value) and "\n" not in str(raised.value)


def test_mm_need_a_pixel_size() -> None:
    for text, wrong in {"grow liver 3mm": True, "grow liver 3px": False, "move liver 3mm left": True}.items():
        edits: Edit = parse_edit(text)
        if wrong:
            with pytest.raises(SettingsError, match="pixel size is unknown"):
                edits.check(Anatomy(SCHEMA, 2, "axial"))
        else:
            edits.check(Anatomy(SCHEMA, 2, "axial"))
    with pytest.raises(SettingsError, match="no 'left' in sagittal slices"):
        parse_edit("mirror").check(Anatomy(SCHEMA, 2, "sagittal"))
