"""Typed results: what is written, what is null, what is left out, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from anatogen.errors import DataError
from anatogen.labels import LabelSchema
from anatogen.reporting.answers import answers, not_applicable_in_words, realism, selection_in_words
from anatogen.reporting.cards import data_sheet, model_card
from anatogen.reporting.report import write_report
from anatogen.reporting.results import (
    AboutDataset,
    FaithfulnessResult,
    ImageCount,
    PrivacyResult,
    RealismCount,
    RealismResult,
    Report,
    Score,
    UtilityResult,
)
from anatogen.reporting.summary import summary_lines


def test_real_patients_are_named_first() -> None:
    assert "real patients" in selection_in_words(Report(real_patients=True))[0]
    assert selection_in_words(Report()) == ()
    assert "real_patients" not in Report().content()
    assert "synthetic" not in data_sheet(Report(real_patients=True)).split("## Motivation")[0].split("---")[2]
    assert "Every image here is synthetic" in data_sheet(Report())


def test_what_was_not_set_is_left_out_and_what_has_no_value_is_null(tmp_path: Path) -> None:
    score = Score(mean=np.float32(0.5), per_class={"a": math.nan, "b": math.inf}, ci95=None, no_interval="too few")
    report = Report(faithfulness=FaithfulnessResult(dice_gen_map=score), maps=None)
    assert score.per_class == {"a": None, "b": None}  # nowhere in a result is there a NaN
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "format": 1,
        "maps": None,
        "faithfulness": {
            "dice_gen_map": {
                "mean": 0.5,
                "per_class": {"a": None, "b": None},
                "ci95": None,
                "no_interval": "too few",
            }
        },
    }
    assert Report.read(tmp_path / "report.json") == report


def test_a_newer_format_is_refused_and_a_missing_number_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"format": 2, "n": {"images": 3}}))
    with pytest.raises(DataError, match=r"has format 2, and this version of anatogen reads formats up to 1\. Upgrade"):
        Report.read(path)
    path.write_text(json.dumps({"n": {"images": 3}, "something": "of a later version"}))
    assert Report.read(path).n == ImageCount(images=3)
    path.write_text(json.dumps({"faithfulness": {"dice_gen_map": {"mean": "high"}}}))
    with pytest.raises(DataError, match=r"is damaged \(faithfulness.dice_gen_map.mean: "):
        Report.read(path)


def test_results_are_true_where_something_was_set() -> None:
    assert not FaithfulnessResult() and not Score() and not RealismResult.model_validate({})
    assert Score(mean=None) and UtilityResult(selection=None)


def test_realism_by_name() -> None:
    found = RealismResult.model_validate({"kid": 0.2, "kid_error": 0.01, "kid_real": None, "n": 500})
    assert (found.of("kid"), found.of("kid", "_spread"), found.of("kid", "_real")) == (0.2, 0.01, None)
    assert found.has("kid_real") and not found.has("fid") and found.of("frd", "_spread") is None
    assert not found.tested and RealismResult(test=None).tested and found.patients is None
    assert RealismResult(n=RealismCount(patients=3)).patients == 3


def test_terms_of_a_data_set_come_along() -> None:
    about = AboutDataset.model_validate({"name": "Livers", "license": "CC0", "doi": "10.1/x"})
    assert (about.licence, about.reference) == ("CC0", "10.1/x") and about.model_dump()["license"] == "CC0"
    assert AboutDataset().licence is None


def test_what_is_not_applicable_is_one_line_by_reason(tmp_path: Path) -> None:
    reasons = {"variation": "no run", "dice_against_steps": "no run", "similarity": "not similar", "other": "no run"}
    report = Report(not_applicable=reasons)
    line = "variation between seeds, Dice against solver steps, other (no run); similarity to real images (not similar)"
    assert not_applicable_in_words(report) == line and not_applicable_in_words(Report()) == ""
    write_report(tmp_path, report, [], LabelSchema.from_names(["a"]))
    for text in ((tmp_path / "report.html").read_text(), model_card(report), data_sheet(report)):
        assert f"Not applicable: {line}." in text
    assert list(summary_lines(report)) == [f"Not applicable: {line}"]
    assert "Not applicable" not in model_card(Report()) + data_sheet(Report())


def test_a_summary_of_few_images_names_no_nan() -> None:
    nan = math.nan
    few = RealismResult(n=RealismCount(generated=3, real=3, patients=2), fid=nan, fid_real=nan, noise_ratio=nan)
    assert list(summary_lines(Report(realism=few))) == [
        "FID needs more than 3 images of 2 patients; noise could not be measured"
    ]
    enough = RealismResult(fid=1234.5, fid_real=0.5, noise_ratio=0.914)
    assert list(summary_lines(Report(realism=enough))) == [
        "FID 1,234 (between real images 0.5); noise 0.91 of the real images'"
    ]


def test_a_summary_has_a_line_for_each_question() -> None:
    score = Score(mean=0.8, per_class={"a": 0.8, "b": None}, ci95=(0.7, 0.9))
    report = Report(
        faithfulness=FaithfulnessResult(dice_gen_map=score, dice_real_map=Score(mean=0.9, ci95=None)),
        privacy=PrivacyResult(copy_rate=0.01, verdict="No copying found."),
    )
    assert list(summary_lines(report)) == [
        "Dice(generated, map) 0.800 [0.700, 0.900]: a 0.800, b not defined",
        "Dice(real, map) 0.900 (too few patients for an interval): ",
        "No copying found.",
    ]
    assert list(summary_lines(Report())) == []
    assert [answer.measured for answer in answers(report)] == [True, False, False, True]


def test_volumes_that_are_stacks_of_slices_are_said_to_be() -> None:
    """Streaked or uneven along one axis; not where all axes differ alike, or for slices, which have none."""
    n = RealismCount(generated=40, real=40, patients=20)

    def said(*continuity: float) -> str:
        return realism.answer(
            Report(realism=RealismResult(n=n, fid=1.0, fid_real=1.0, test=None, continuity=continuity))
        ).verdict

    assert "along D differ 1.9" in said(1.9, 1.0, 1.0) and "along D differ 0.3" in said(0.3, 1.0, 1.1)
    assert "along H differ 2.0" in said(1.0, 2.0, 1.0)
    for even in ((1.1, 1.0, 1.05), (), (1.6, 1.6, 1.5), (0.0, 1.0, 1.0), (math.nan, 1.0, 1.0)):
        assert "voxels along" not in said(*even)
