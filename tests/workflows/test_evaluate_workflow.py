"""The evaluation as a workflow: typed in and out, watched, cancelled; and under its public name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import anatogen
from anatogen.data.store import PreparedDataset
from anatogen.errors import Interrupted, SettingsError
from anatogen.progress import Monitor, Stage
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Report
from anatogen.workflows.evaluate import EvaluateRequest, evaluate, opened
from by_brightness import judge_by_brightness
from cohorts import sample_set

pytestmark = pytest.mark.usefixtures("small_judges")


class Watching(Monitor):
    """Keeps the stages' titles; cancels in the one called `until`."""

    def __init__(self, until: str = "") -> None:
        super().__init__()
        self.titles: list[str] = []
        self.until = until

    def open(self, stage: Stage) -> None:
        self.titles.append(stage.title)
        if stage.title == self.until:
            self.cancel()


def test_of_a_run(run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by_brightness(monkeypatch)
    request = EvaluateRequest(
        subjects=(run_folder,),
        dataset=dataset_folder,
        out=tmp_path / "report",
        only=("faithfulness",),
        count=2,
        quick=True,
        figures=(Figure("mine", "Mine", b"\x89PNG", "A figure of the caller's."),),
        device="cpu",
        command="anatogen evaluate a run",
    )
    with pytest.raises(Interrupted, match="sampling test was stopped"):
        evaluate(request, monitor=Watching(until="sampling test"))
    watching = Watching()
    result = evaluate(request, monitor=watching)
    assert watching.titles == ["sampling test", "evaluating"]  # no images of heldout maps: utility is not asked for
    assert result.report == Report.read(result.folder / "report.json") and result.page.is_file()
    assert result.report.n.images == 2 and result.report.version == anatogen.__version__
    assert result.report.faithfulness and not result.report.utility
    assert "A figure of the caller&#39;s." in result.page.read_text() and (result.folder / "figures/mine.png").is_file()
    card = (result.folder / "model_card.md").read_text()
    assert "| batch size, learning rate, seed | 4," in card and result.report.model_digest is not None
    assert result.report.model_digest in card
    # The public name gives what the file holds; the samples that are there are taken.
    found = anatogen.evaluate(
        run_folder, dataset_folder, tmp_path / "report", only=["faithfulness"], count=2, quick=True, device="cpu"
    )
    assert found == json.loads((tmp_path / "report" / "report.json").read_text()) and found["command"]
    with pytest.raises(SettingsError, match="no question 'faith'"):
        evaluate(replace(request, only=("faith",)))


def test_which_of_two_sets_is_which(dataset: PreparedDataset, tmp_path: Path) -> None:
    images = dataset.load(dataset.split("test")[:2]).images.numpy()
    main = sample_set(tmp_path / "main", dataset, images)
    heldout = sample_set(tmp_path / "heldout", dataset, images)
    manifest = heldout.folder / "manifest.jsonl"
    lines = [{**json.loads(line), "split": "heldout"} for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for order in ((main.folder, heldout.folder), (heldout.folder, main.folder)):
        first, second = opened(order, dataset)
        assert second is not None and (first.folder, second.folder) == (main.folder, heldout.folder)
    first, second = opened([heldout.folder], dataset)
    assert first is second
    assert opened([main.folder], dataset)[1] is None
    with pytest.raises(SettingsError, match="2 sample sets are too many for one report"):
        opened([main.folder, main.folder], dataset)


def test_an_unknown_option_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'coutn'"):
        anatogen.evaluate(tmp_path, tmp_path, tmp_path / "out", coutn=3)  # type: ignore[call-arg]
