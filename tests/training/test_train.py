from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from anatogen.data.loader import Loader
from anatogen.data.store import PreparedDataset
from anatogen.errors import Interrupted, OutputError, SettingsError
from anatogen.model import load_denoiser
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.fit import fit
from anatogen.training.space import checkpoint_bytes
from anatogen.training.train import train
from conftest import SMALL


def test_what_a_run_holds(run_folder: Path) -> None:
    settings = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert settings["network"]["width"] == 8
    denoiser, about = load_denoiser(run_folder)
    assert (about.steps, about.images, about.mask_ablation, about.finished) == (6, 24, True, True)
    assert denoiser.schema.names == ("ball", "core")


def test_the_same_seed_gives_the_same_model(dataset: PreparedDataset, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = train(dataset, tmp_path / name, build_settings(values=[*SMALL, f"training.seed={seed}"]), device="cpu")
        weights.append(load_denoiser(run)[0].state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


def test_it_learns(longer_run: Path, dataset: PreparedDataset) -> None:
    """The bright core is where the map shows it, in maps of unseen patients."""
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
    assert load_denoiser(tmp_path / "run")[1].steps == math.ceil(0.1 * len(dataset.split("train")) / 2)


def test_ctrl_c_saves_the_model_and_says_so(dataset: PreparedDataset, tmp_path: Path) -> None:
    def press(share: float, text: str) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"after step 3; the current model is saved as model\.safetensors"):
        train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu", progress=press)
    assert load_denoiser(tmp_path / "run")[1].steps == 3


def test_a_run_is_never_overwritten(run_folder: Path, dataset: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="already exists"):
        train(dataset, run_folder, build_settings(values=SMALL), device="cpu")


def test_metrics_are_written(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anatogen.training.monitor.MetricsLog.__init__.__kwdefaults__", {"every": 0.0, "after": 0})
    train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(line["loss"]) and line["images_per_s"] > 0 for line in lines)


def test_the_precision_that_is_set_is_the_one_that_is_used(dataset: PreparedDataset, tmp_path: Path) -> None:
    """The reference implementation never reads its setting."""
    seen: dict[str, set[torch.dtype]] = {}
    for precision in ("float32", "bfloat16"):
        task = DenoiserTask(
            dataset, build_settings(values=[*SMALL, f"training.precision={precision}"]), torch.device("cpu")
        )
        dtypes = seen.setdefault(precision, set())
        layer = next(m for m in task.denoiser.modules() if isinstance(m, torch.nn.Conv2d))
        layer.register_forward_hook(lambda module, inputs, output, dtypes=dtypes: dtypes.add(output.dtype))
        (tmp_path / precision).mkdir()
        fit(task, Loader(dataset, dataset.split("train"), 4, 0), task.settings.training, tmp_path / precision)
        assert {p.dtype for p in task.denoiser.parameters()} == {torch.float32}
    assert seen == {"float32": {torch.float32}, "bfloat16": {torch.bfloat16}}


def test_the_space_for_checkpoints_is_looked_at_first(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = build_settings(
        values=["network.width=16"], training={"steps": 6, "batch_size": 2, "checkpoint_every": 5}
    )
    run = train(dataset, tmp_path / "run", settings, device="cpu")
    assert not caplog.text
    [file] = (run / "before_decay").glob("*.safetensors")
    one = file.stat().st_size

    def free(size: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(size)))

    free(0.9 * one)
    with pytest.raises(OutputError, match="a checkpoint takes .* MB, and .* MB are free"):
        train(dataset, tmp_path / "full", settings, device="cpu")
    assert not (tmp_path / "full").exists()
    free(3 * one)
    train(dataset, tmp_path / "scarce", settings, device="cpu")
    assert "lower training.checkpoints_kept (2)" in caplog.text
    caplog.clear()
    free(6 * one)
    train(dataset, tmp_path / "enough", settings, device="cpu")
    assert not caplog.text


def test_a_run_stays_within_its_disk_budget(dataset: PreparedDataset, tmp_path: Path) -> None:
    def how(gigabytes: float) -> RunSettings:
        more = ["training.checkpoint_every=1", "training.checkpoints_kept=4", f"training.disk_gb={gigabytes}"]
        return build_settings(
            values=[
                "network.width=8",
                "training.batch_size=2",
                "training.steps=8",
                "live.previews=false",
                *more,
                "training.optimizer=adamw",
            ]
        )

    one = checkpoint_bytes(DenoiserTask(dataset, how(1), torch.device("cpu")).phases) / 1e9
    most = [0]

    def look(share: float, text: str) -> None:
        most[0] = max(most[0], len(list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))))

    train(dataset, tmp_path / "run", how(5.2 * one), device="cpu", progress=look)
    assert most[0] == 2  # five are: two kept, one being written, one from before the decay, and the model
    assert sum(f.stat().st_size for f in (tmp_path / "run").rglob("*.safetensors")) < 5.2e9 * one
    with pytest.raises(SettingsError, match=r"disk_gb is .*a run takes up to"):
        train(dataset, tmp_path / "other", how(3.9 * one), device="cpu")
    assert not (tmp_path / "other").exists()
