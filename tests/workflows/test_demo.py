"""The demo, from its patients to its report, with trainings of a few steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from anatogen.data import sources
from anatogen.errors import SettingsError
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.progress import Monitor, Stage
from anatogen.workflows.demo import DemoRequest, demo, paced

pytestmark = pytest.mark.usefixtures("small_judges")


class Titles(Monitor):
    """Keeps the stages' titles."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []

    def open(self, stage: Stage) -> None:
        self.titles.append(stage.title)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_answers_four_questions_on_real_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sources.open_source("hippocampus")
    by_split = {
        name: [case for case in whole.cases if case.split == name] for name in ("train", "heldout", "val", "test")
    }
    cases = tuple(case for of_split in by_split.values() for case in of_split[:2])
    monkeypatch.setattr(sources, "open_source", lambda *_: replace(whole, cases=cases))
    few = SegmenterSettings(steps=20, validations=1)
    judges = EvaluationSettings(few, EncoderSettings(steps=5), SegmenterSettings(steps=2, validations=1))
    out, seen = tmp_path / "demo", Titles()
    request = DemoRequest(
        out, training_steps=3, evaluation=judges, count=6, quick=True, device="cpu", command="demo it"
    )
    made = demo(request, monitor=seen)
    report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    assert {"faithfulness", "utility", "realism", "privacy"} <= report.keys()
    assert report["command"] == "demo it" and "Real patients" in report["dataset"]["notice"]
    assert (out / "report" / "figures" / "edit.png").is_file()
    assert (out / "report" / "report.html").is_file() and made.evaluation.folder == out / "report"
    assert set(made.seconds) == {"prepare", "train", "evaluate"} and min(made.seconds.values()) > 0
    assert {"preparing", "training", "training the segmenter"} <= set(seen.titles)


def test_slow_machines_train_the_auxiliary_models_for_fewer_steps() -> None:
    steps = [paced(speed).segmenter.steps for speed in (0.0, 10, 60, 120, 5000)]
    assert steps == [400, 400, 600, 1200, 1200]
    assert paced(5000).utility.steps == 300 and paced(0.1).utility.steps == 150 and paced(0.1).encoder.steps == 150


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(SettingsError, match="already exists"):
        demo(DemoRequest(tmp_path))
    assert (tmp_path / "mine").read_text() == "kept"
