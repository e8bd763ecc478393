"""Marks, differences and floors of a comparison on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from anatogen.evaluation.comparing import difference, marks_of, with_differences, with_floors
from anatogen.reporting.comparison import Compared, Comparison, floors_in_words, latex, markdown, really_better, tables
from anatogen.reporting.results import ImageCount, RealismResult, Score

NAMES = ("a", "b")
PATIENTS = [f"p{i}" for i in range(12)]
RNG = np.random.default_rng(0)
HARDNESS = RNG.normal(0, 0.1, (12, 1))  # some patients are harder for everyone


def score(mean: float, *, noise: float = 0.01, patients: int = 12, seed: int = 0) -> Score:
    values = mean + HARDNESS[:patients] + np.random.default_rng(seed).normal(0, noise, (patients, 2))
    per_patient = {
        p: dict(zip(NAMES, map(float, line), strict=True)) for p, line in zip(PATIENTS, values, strict=False)
    }
    return Score(mean=float(values.mean()), per_class=dict(zip(NAMES, map(float, values.mean(0)), strict=True)),
                 ci95=(mean - 0.07, mean + 0.07), per_patient=per_patient)  # fmt: skip


def system(name: str, mean: float | None, *, fid: float | None = None, **how: float) -> Compared:
    realism = RealismResult(fid=fid) if fid is not None else None
    return Compared(name=name, dice_gen_map=None if mean is None else score(mean, **how), realism=realism)  # type: ignore[arg-type]


def test_a_difference_is_paired() -> None:
    """Patients differ by far more than the systems do, and the difference is still found."""
    apart = difference(score(0.80, seed=1), score(0.77, seed=2))
    assert apart is not None and apart.mean == pytest.approx(0.03, abs=0.01) and really_better(apart)
    assert not really_better(difference(score(0.77, seed=2), score(0.80, seed=1)))
    same = difference(score(0.8, seed=1), score(0.8, seed=2))
    assert not really_better(same) and same is not None and abs(same.mean or 1) < 0.01


def test_nothing_is_claimed_of_too_few_or_no_patients() -> None:
    two = difference(score(0.9, patients=2), score(0.5, patients=2, seed=1))
    assert two is not None and two.ci95 is None and not really_better(two)
    assert difference(score(0.9), Score(mean=0.5)) is None and difference(None, score(0.9)) is None
    identical = difference(score(0.9), score(0.9))
    assert identical is not None and identical.mean == 0 and not really_better(identical)


def test_marks() -> None:
    far = [system("low", 0.5, seed=1), system("high", 0.9, seed=2), system("middle", 0.7, seed=3)]
    assert marks_of(far, "dice_gen_map") == {"high": "best", "middle": "second"}
    tied = [system("one", 0.9, seed=1), system("two", 0.9, seed=2), system("low", 0.5, seed=3)]
    assert marks_of(tied, "dice_gen_map") == {}  # neither is really the best, so none is the second either
    tail = [system("high", 0.9, seed=1), system("one", 0.5, seed=2), system("two", 0.5, seed=3)]
    assert marks_of(tail, "dice_gen_map") == {"high": "best"}
    assert marks_of([system("alone", 0.9)], "dice_gen_map") == {}
    assert marks_of([system("a", None), system("b", None)], "dice_gen_map") == {}
    few = [system("high", 0.9, patients=2, seed=1), system("low", 0.5, patients=2, seed=2)]
    assert marks_of(few, "dice_gen_map") == {}


def test_marks_depend_on_no_order() -> None:
    systems = [system(name, mean, seed=i) for i, (name, mean) in enumerate((("x", 0.5), ("y", 0.9), ("z", 0.7)))]
    assert marks_of(systems, "dice_gen_map") == marks_of(systems[::-1], "dice_gen_map")


def test_what_is_not_beaten_is_said() -> None:
    nearest, painted = system("retrieval", 0.6, fid=10.0, seed=9), system("painting", 0.3, fid=90.0, seed=8)
    good, bad = system("good", 0.85, fid=12.0, seed=1), system("bad", 0.4, fid=95.0, seed=2)
    level = system("level", 0.601, fid=50.0, seed=3, noise=0.05)
    unknown = system("unknown", None)
    found = with_floors([good, bad, level, unknown, nearest, painted], "retrieval", "painting")
    said = {each.name: each.floors for each in found}
    assert said["good"] == said["unknown"] == said["retrieval"] == said["painting"] == ()
    assert len(said["bad"]) == 2 and "follows the label maps less" in said["bad"][0] and "painted 90" in said["bad"][1]
    assert len(said["level"]) == 1 and "no better" in said["level"][0]
    assert with_floors([bad], None, None)[0].floors == ()


def comparison(*systems: Compared) -> Comparison:
    judged = with_floors(with_differences(systems, systems[0].name), None, None)
    return Comparison(n=ImageCount(images=24, patients=12), split=("test",), reference=systems[0].name, systems=judged,
                      command="anatogen compare a b", version="1")  # fmt: skip


def test_tables_say_what_was_not_run() -> None:
    found = comparison(
        system("ours", 0.9, seed=1), system("other", 0.7, seed=2), Compared(name="ControlNet", not_run="no weights")
    )
    (table,) = tables(found)
    assert [row.label for row in table.rows] == ["ours", "other", "ControlNet"]
    assert table.rows[0].cells[0].startswith("**0.9") and table.rows[0].cells[1] == "–"
    assert "[" in table.rows[1].cells[1] and table.rows[1].cells[1].startswith("−0.")
    assert table.rows[2].cells[0] == "not run" and table.rows[2].detail == "no weights"
    assert "not run" in markdown(found) and "no weights" in markdown(found)
    assert Comparison.parse(found.text_on_disk(), __import__("pathlib").Path("x")) == found
    assert floors_in_words(found) == []


def test_latex_is_escaped_and_marked() -> None:
    text = latex(comparison(system("100 %_a&b", 0.9, seed=1), system("x", 0.5, seed=2)))
    assert (
        r"100 \%\_a\&b" in text
        and r"\textbf{0.9" in text
        and text.count(r"\begin{table}") == text.count(r"\end{table}")
    )
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
