"""`train --plan`: true numbers, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.model import load_denoiser
from anatogen.training.config import build_settings
from anatogen.workflows.plan_training import plan_training

Cli = Callable[..., tuple[int, str, str]]
VALUES = ["network.width=16", "training.batch_size=4"]


def test_what_it_says_is_so(dataset: PreparedDataset, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anatogen.judges.of_dataset.has_segmenter", lambda dataset: False)
    before = sorted(path.name for path in dataset.folder.iterdir())
    settings = build_settings(base=run_folder / "config.yaml", training={"max_time_s": 100.0, "epochs": 1e6})
    plan = plan_training(dataset.folder, settings, device="cpu")
    rows = dataset.split("train")
    assert (plan.images, plan.patients) == (len(rows), len({row.patient for row in rows}))
    assert plan.parameters == sum(p.numel() for p in load_denoiser(run_folder)[0].parameters())
    assert plan.steps == int(100 / plan.seconds_per_step) and plan.seconds == pytest.approx(100, rel=0.2)
    assert plan.images_seen == plan.steps * plan.batch and plan.epochs == plan.images_seen / len(rows)
    assert plan.peak_mb is None or plan.peak_mb > 50  # PyTorch alone takes more
    assert sorted(path.name for path in dataset.folder.iterdir()) == before


def test_a_larger_network_and_image_count_more(dataset: PreparedDataset) -> None:
    plans = {
        width: plan_training(dataset.folder, build_settings(values=[f"network.width={width}"], training={"steps": 7}))
        for width in (16, 32)
    }
    # Convolutions between width channels: four times the work, but for the first and last layers.
    assert 3 < plans[32].gflops / plans[16].gflops < 4
    assert 3 < plans[32].parameters / plans[16].parameters < 4.1
    assert plans[16].steps == plans[32].steps == 7


@pytest.mark.parametrize(
    ("live", "steps", "there", "expected"),
    [({}, 10, False, False), ({}, 5000, False, True), ({}, 5000, True, False), ({"dice": "never"}, 5000, False, False),
     ({"dice": "always"}, 10, False, True), ({"best": True}, 10, False, True)],
)  # fmt: skip
def test_whether_a_segmenter_is_trained_first(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch, live: dict[str, object], steps: int, there: bool, expected: bool
) -> None:  # fmt: skip
    from anatogen.workflows.live import would_train_segmenter

    monkeypatch.setattr("anatogen.judges.of_dataset.has_segmenter", lambda dataset: there)
    assert would_train_segmenter(dataset, build_settings(training={"steps": steps}, live=live)) is expected


def test_on_the_command_line(cli: Cli, dataset_folder: Path, tmp_path: Path) -> None:
    options = [part for value in VALUES for part in ("--set", value)]
    code, out, err = cli("train", dataset_folder, "--plan", "--steps", 100, "--device", "cpu", *options)
    assert code == 0, err
    assert "hourglass, width 16" in out and "100 steps: 400 images seen" in out and "images/s, measured" in out
    code, _, err = cli("train", dataset_folder, "--steps", 100)
    assert code == 2 and "--out is missing" in err
