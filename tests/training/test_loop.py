from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from anatogen.data.store import PreparedDataset
from anatogen.errors import Interrupted, SettingsError
from anatogen.model import load_denoiser
from anatogen.training.config import TrainingSettings, build_settings
from anatogen.training.loop import Budget, learning_rate, train
from anatogen.training.state import MovingAverage
from conftest import SMALL


def test_what_a_run_holds(run_folder: Path) -> None:
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert settings["network"]["width"] == 8
    denoiser, about = load_denoiser(run_folder)
    assert about["steps"] == 6 and about["images"] == 24 and about["mask_ablation"] is True
    assert denoiser.schema.names == ("ball", "core")


def test_the_same_seed_gives_the_same_model(dataset: PreparedDataset, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = train(dataset, tmp_path / name, build_settings(values=[*SMALL, f"training.seed={seed}"]), device="cpu")
        weights.append(load_denoiser(run)[0].state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_it_learns(longer_run: Path, dataset: PreparedDataset) -> None:
    """The bright core lies where the map says, in maps of patients that were never trained on."""
    from anatogen.generation.engine import Generator

    generator = Generator.load(longer_run, device="cpu")
    batch = dataset.load([row for row in dataset.split("test") if row.slice == 6])
    labels, real = batch.labels[0].numpy(), batch.images[0, 0].numpy()
    image = generator.sample(labels)[0, 0]
    levels = [float(image[labels == c].mean()) for c in (0, 1, 2)]
    assert levels[0] < levels[1] < levels[2]
    assert np.corrcoef(image.ravel(), real.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    "values", [["conditioning.encoding=none", "conditioning.mask_ablation=false"], ["conditioning.encoding=index"]]
)
def test_other_encodings_train(dataset: PreparedDataset, tmp_path: Path, values: list[str]) -> None:
    train(dataset, tmp_path / "run", build_settings(values=[*SMALL, *values]), device="cpu")
    assert load_denoiser(tmp_path / "run")[0].config.encoding == values[0].split("=")[1]


def test_the_paper_preset_trains_small(dataset: PreparedDataset, tmp_path: Path) -> None:
    values = ["network.channels=[32, 32]", "training.epochs=0.1", "training.batch_size=2"]
    train(dataset, tmp_path / "run", build_settings("paper", values=values), device="cpu")
    assert load_denoiser(tmp_path / "run")[1]["steps"] == math.ceil(0.1 * len(dataset.split("train")) / 2)


def test_ctrl_c_saves_the_model_and_says_so(dataset: PreparedDataset, tmp_path: Path) -> None:
    def press(share: float, text: str) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"after step 3; the model so far is saved as model\.safetensors"):
        train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu", progress=press)
    assert load_denoiser(tmp_path / "run")[1]["steps"] == 3


def test_a_run_is_never_overwritten(run_folder: Path, dataset: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="is there already"):
        train(dataset, run_folder, build_settings(values=SMALL), device="cpu")


def test_metrics_are_written(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anatogen.training.loop.MetricsLog.__init__.__kwdefaults__", {"every": 0.0})
    train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(line["loss"]) and line["images_per_s"] > 0 for line in lines)


def test_budget_and_schedules() -> None:
    budget = Budget(TrainingSettings(steps=100, max_time_s=10), images_per_epoch=50)
    assert budget.share(50, 1) == 0.5 and budget.share(10, 8) == 0.8 and budget.share(0, 11) == 1
    assert Budget(TrainingSettings(steps=None, epochs=2, batch_size=16), 50).steps == 7
    with pytest.raises(SettingsError, match="how long"):
        Budget(TrainingSettings(steps=None), 50)
    decay = TrainingSettings(learning_rate=1, warmup_steps=10, decay_share=0.5)
    assert [learning_rate(decay, *at) for at in ((0, 0), (9, 0.1), (100, 0.5), (100, 0.75))] == [0.1, 1, 1, 0.5]
    cosine = TrainingSettings(learning_rate=1, warmup_steps=0, schedule="cosine")
    assert learning_rate(cosine, 5, 0.5) == pytest.approx(0.5)


def test_moving_average_is_the_weighted_mean() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = MovingAverage(module, decay=0.15)
    torch.nn.init.ones_(module.weight)
    average.update(module)  # decay min(0.15, 1/10)
    assert average.weights["weight"].item() == pytest.approx(0.9)
    average.update(module)  # decay min(0.15, 2/11)
    assert average.weights["weight"].item() == pytest.approx(1 - 0.1 * 0.15)
