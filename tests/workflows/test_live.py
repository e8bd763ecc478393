"""Previews while a model trains: they tell the truth, change nothing and end nothing."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.data.store import PreparedDataset
from anatogen.errors import Interrupted, OutputError, SettingsError
from anatogen.io.tensors import read_tensors
from anatogen.judges.of_dataset import has_segmenter, segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.model import read_about
from anatogen.reporting.training_page import read_metrics, series, write_training_page
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.hooks import Hook, Moment
from anatogen.training.train import train
from anatogen.workflows.live import Live, live_for
from anatogen.workflows.train import TrainRequest
from anatogen.workflows.train import train as train_workflow

pytestmark = pytest.mark.usefixtures("small_judges")


class Clock:
    """Rises by a second whenever it is read."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class TrueSegmenter:
    """Finds the label maps exactly in the real images, and nothing in others."""

    def __init__(self, dataset: PreparedDataset) -> None:
        batch = dataset.load(dataset.split("val"))
        self.known = {
            image.tobytes(): labels for image, labels in zip(batch.images.numpy(), batch.truth.numpy(), strict=True)
        }

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self.known.get(image.tobytes(), np.zeros(image.shape[1:], np.int64)) for image in images])


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anatogen.workflows.live.write_training_page", lambda run: run)


def settings(**more: object) -> RunSettings:
    return build_settings(
        values=["network.width=16", "sampling.steps=2"], training={"steps": 30, "batch_size": 4}, **more
    )


def test_a_training_is_the_same_with_and_without_previews(dataset: PreparedDataset, tmp_path: Path) -> None:
    train(dataset, tmp_path / "plain", settings(), device="cpu")
    live = Live(dataset, tmp_path / "shown", settings(), None, device="cpu", clock=Clock(10))
    train(dataset, tmp_path / "shown", settings(), device="cpu", hooks=[live.hook()])
    assert list((tmp_path / "shown" / "previews").glob("*.png"))
    plain, shown = (read_tensors(tmp_path / name / "model.safetensors") for name in ("plain", "shown"))
    assert all(torch.equal(plain[name], shown[name]) for name in plain)


def test_the_dice_of_real_images_is_the_ceiling_and_of_noise_far_below(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    live = Live(dataset, tmp_path, settings(), TrueSegmenter(dataset), device="cpu")  # type: ignore[arg-type]
    assert live._ceiling["dice"] == 1
    noise = np.random.default_rng(0).normal(size=live._real.images.shape).astype(np.float32)
    assert live._dice(noise)["dice"] == 0


def test_previews_keep_to_their_share_of_the_time(dataset: PreparedDataset, tmp_path: Path) -> None:
    clock = Clock()
    live = Live(dataset, tmp_path, settings(live={"share": 0.05}), None, device="cpu", clock=clock)
    spent = [0.0]

    def show(step: int, model: object) -> dict[str, float]:
        clock.now += 30
        spent[0] += 30
        return {}

    live.show = show  # type: ignore[method-assign]
    for step in range(5, 20_000, 5):
        live._call(Moment(step, 0.0, lambda: None, {}))
    assert 0.02 < spent[0] / clock.now <= 0.05


def test_a_preview_that_fails_ends_nothing(
    dataset: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = Live(dataset, tmp_path / "run", settings(), None, device="cpu", clock=Clock(10))

    def show(step: int, model: object) -> dict[str, float]:
        raise RuntimeError("out of memory")

    live.show = show  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        train(dataset, tmp_path / "run", settings(), device="cpu", hooks=[live.hook()])
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert sum("no more previews" in message for message in caplog.messages) == 1


@pytest.mark.usefixtures("no_page")
def test_a_full_disk_costs_one_preview_only(
    dataset: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = Live(dataset, tmp_path, settings(live={"share": 1.0}), None, device="cpu", clock=Clock(100))

    def show(step: int, model: object) -> dict[str, float]:
        if step == 5:
            raise OutputError("cannot be written (No space left on device)")
        return {"dice": 0.5}

    live.show = show  # type: ignore[method-assign]
    answers = [live._call(Moment(step, 0.1, lambda: None, {})) for step in (5, 10, 15)]
    assert "the preview of step 5 was not written" in caplog.text and {"dice": 0.5} in answers


def test_the_workflow_leaves_a_page_and_a_last_preview(dataset: PreparedDataset, tmp_path: Path) -> None:
    result = train_workflow(TrainRequest(dataset.folder, tmp_path / "run", settings(), "cpu"))
    assert result.page == tmp_path / "run" / "training.html"
    text = result.page.read_text(encoding="utf-8")
    assert "Training is finished" in text and "http-equiv" not in text and "http://" not in text
    assert (tmp_path / "run" / "previews" / "000000030.png").exists()


def test_without_previews_nothing_is_written(dataset: PreparedDataset, tmp_path: Path) -> None:
    off = settings(live={"previews": False})
    assert live_for(dataset, tmp_path, off, device="cpu") is None
    result = train_workflow(TrainRequest(dataset.folder, tmp_path / "run", off, "cpu"))
    assert result.page is None and not (tmp_path / "run" / "previews").exists()


@pytest.mark.parametrize("trained_before", [False, True])
def test_a_short_training_uses_a_segmenter_but_does_not_train_one(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_before: bool
) -> None:
    # Other tests may have trained the segmenter of this data set, so what is there is said here.
    known = TrueSegmenter(dataset)
    monkeypatch.setattr("anatogen.judges.of_dataset.has_segmenter", lambda dataset: trained_before)
    monkeypatch.setattr("anatogen.judges.of_dataset.segmenter_for", lambda dataset, device: known)
    live = live_for(dataset, tmp_path, settings(), device="cpu")
    assert live is not None and live.segmenter is (known if trained_before else None)


def test_the_page_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo', encoding="utf-8")
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    text = write_training_page(tmp_path).read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text


def test_a_series_is_thinned_without_moving_its_mean() -> None:
    lines = [{"step": i, "loss": float(i % 7)} for i in range(4000)]
    thinned = series(lines, "loss")
    assert len(thinned) == 400 and thinned[-1][0] == 3999
    assert np.isclose(np.mean([value for _, value in thinned]), np.mean([i % 7 for i in range(4000)]))
    assert series([{"step": 1, "loss": None}], "loss") == []


def test_measures_reach_metrics_jsonl(dataset: PreparedDataset, tmp_path: Path) -> None:
    live = Live(dataset, tmp_path / "run", settings(), TrueSegmenter(dataset), device="cpu", clock=Clock(10))  # type: ignore[arg-type]
    train(dataset, tmp_path / "run", settings(), device="cpu", hooks=[live.hook()])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("dice_ceiling") == 1 for line in lines)


def test_a_training_can_be_resumed_with_and_without_previews(dataset: PreparedDataset, tmp_path: Path) -> None:
    def stop_at(step: int) -> Callable[[float, str], None]:
        seen = iter(range(10_000))

        def progress(share: float, text: str) -> None:
            if next(seen) == step:
                raise KeyboardInterrupt

        return progress

    train(dataset, tmp_path / "whole", settings(), device="cpu")
    for name, first in (("a", True), ("b", False)):
        hooks = [[Live(dataset, tmp_path / name, settings(), None, device="cpu", clock=Clock(10)).hook()], []]
        with pytest.raises(Interrupted):
            train(dataset, tmp_path / name, settings(), device="cpu", hooks=hooks[not first], progress=stop_at(12))
        train(dataset, tmp_path / name, settings(), device="cpu", hooks=hooks[first], resume=True)
        resumed, whole = (read_tensors(tmp_path / run / "model.safetensors") for run in (name, "whole"))
        assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_the_dice_can_be_turned_off_on_the_command_line(dataset: PreparedDataset, tmp_path: Path) -> None:
    assert build_settings(values=["live.dice=never"]).live.dice == "never"
    assert build_settings(values=["live.dice=always"]).live.dice == "always"


def test_a_segmenter_of_other_settings_is_not_the_one_of_the_previews(dataset_folder: Path, tmp_path: Path) -> None:
    """Otherwise a training of two steps trains a whole segmenter first."""
    shutil.copytree(dataset_folder, tmp_path / "data", ignore=shutil.ignore_patterns("segmenter-*"))
    dataset = PreparedDataset.open(tmp_path / "data")
    short = SegmenterSettings(steps=2, batch_size=2, validations=1)
    segmenter_for(dataset, short, device="cpu")
    assert has_segmenter(dataset, short) and not has_segmenter(dataset)


class Script:
    """Gives the previews the Dice of a list, one after the other, without making any image."""

    def __init__(self, live: Live, values: list[float]) -> None:
        self.values, self.steps = values, list[int]()
        live.show = self.__call__  # type: ignore[method-assign]

    def __call__(self, step: int, model: object) -> dict[str, float]:
        self.steps.append(step)
        return {"dice": self.values[min(len(self.steps), len(self.values)) - 1]}


def choosing(dataset: PreparedDataset, run: Path, values: list[float], **more: object) -> Live:
    """Previews every five steps, with these Dice."""
    how = settings(live={"best": True, "share": 1.0, **more})
    live = Live(dataset, run, how, TrueSegmenter(dataset), device="cpu", clock=Clock(1e4))  # type: ignore[arg-type]
    Script(live, values)
    return live


@pytest.mark.usefixtures("no_page")
def test_the_best_weights_become_the_model(dataset: PreparedDataset, tmp_path: Path) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def note(moment: Moment) -> None:
        kept[moment.step] = {name: tensor.clone() for name, tensor in moment.model().state_dict().items()}

    out = tmp_path / "run"
    live = choosing(dataset, out, [0.3, 0.7, 0.5, 0.6])
    watch = Hook("watch", 5, note, remembered=False)
    train(dataset, out, live.settings, device="cpu", hooks=[watch, live.hook()])
    about = read_about(out)
    assert (about.selected_step, about.selected_dice, about.steps) == (10, 0.7, 30)
    model = read_tensors(out / "model.safetensors")
    assert all(torch.equal(model[name], kept[10][name]) for name in model)
    assert not all(torch.equal(model[name], kept[30][name]) for name in model)
    assert not list(out.glob("best*"))


@pytest.mark.usefixtures("no_page")
def test_what_was_best_survives_a_kill(dataset: PreparedDataset, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(share: float, text: str) -> None:
        if share > 0.7:
            raise Killed

    out = tmp_path / "run"
    how = settings(live={"best": True, "share": 1.0}).model_copy(
        update={"training": settings().training.model_copy(update={"checkpoint_every": 7})}
    )
    for values, progress in (([0.9, 0.2], kill), ([0.3], None)):
        live = choosing(dataset, out, values)
        if progress is not None:
            with pytest.raises(Killed):
                train(dataset, out, how, device="cpu", hooks=[live.hook()], progress=progress)
        else:
            train(dataset, out, device="cpu", hooks=[live.hook()], resume=True)
    assert read_about(out).selected_dice == 0.9


@pytest.mark.usefixtures("no_page")
def test_without_a_gain_the_training_is_finished_early_and_decays(dataset: PreparedDataset, tmp_path: Path) -> None:
    rates: list[float] = []
    task_rate = Hook("rates", 1, lambda moment: rates.append(moment.share), remembered=False)
    out = tmp_path / "run"
    how = settings(live={"patience": 2, "share": 1.0})
    how = how.model_copy(update={"training": how.training.model_copy(update={"steps": 1000})})
    live = Live(dataset, out, how, TrueSegmenter(dataset), device="cpu", clock=Clock(1e4))  # type: ignore[arg-type]
    Script(live, [0.5, 0.501, 0.4, 0.3, 0.2])
    train(dataset, out, how, device="cpu", hooks=[task_rate, live.hook()])
    about = read_about(out)
    # Previews after 5, 10, 15 steps; two without a gain; after step 20 the decay begins, for 0.3 of the whole length.
    assert about.finished and about.steps == 29 and about.selected_step == 10
    chosen = (out / "model.safetensors").read_bytes()
    assert rates[18] < 0.03 and rates[20] == pytest.approx(0.7 + 0.3 / 9) and rates == sorted(rates)
    assert (out / "before_decay").is_dir()

    # Extended from step 20: patience begins anew, and the best so far stays the model's until a better one comes.
    longer = how.model_copy(update={"training": how.training.model_copy(update={"steps": 2000})})
    live = choosing(dataset, out, [0.45, 0.4, 0.3], patience=2)
    train(dataset, out, longer, device="cpu", hooks=[live.hook()], resume=True)
    about = read_about(out)
    assert about.steps == 50 and (about.selected_step, about.selected_dice) == (10, 0.501)
    assert (out / "model.safetensors").read_bytes() == chosen


def test_choosing_needs_a_segmenter(dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="best and patience need previews"):
        settings(live={"best": True, "dice": "never"})
    dataset.rows = tuple(row for row in dataset.rows if row.split != "heldout")
    with pytest.raises(SettingsError, match="has no split heldout"):
        live_for(dataset, tmp_path, settings(live={"best": True}), device="cpu")
