"""Trackers get every number and preview once, over resumes too, and end no training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.training.config import build_settings
from anatogen.workflows.tracking import Tracking
from anatogen.workflows.train import TrainRequest, train

Cli = Callable[..., tuple[int, str, str]]
VALUES = ["network.width=8", "network.blocks=1", "training.batch_size=4", "sampling.steps=2", "live.dice=never"]
SETTINGS = build_settings(values=VALUES, training={"steps": 20})


class FakeWandb(ModuleType):
    """The calls of wandb that are used, by their real names and arguments."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.api = SimpleNamespace(api_key=None)
        self.fails_at = fails_at
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.ends: list[int] = []

    def init(
        self, *, project: str, name: str, id: str, resume: str, dir: str, config: dict[str, Any], mode: str | None
    ) -> Any:
        self.inits.append(
            {"project": project, "name": name, "id": id, "resume": resume, "mode": mode, "config": config}
        )
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, data: dict[str, Any], step: int) -> None:
        if self.fails_at is not None and step >= self.fails_at:
            raise ConnectionError("no network")
        self.logged.append((step, data))

    def finish(self, exit_code: int, quiet: bool) -> None:
        self.ends.append(exit_code)

    def Image(self, path: str) -> str:  # noqa: N802
        return Path(path).name


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_everything_arrives_once(dataset: PreparedDataset, tmp_path: Path, wandb: FakeWandb) -> None:
    run = tmp_path / "run"
    train(TrainRequest(dataset.folder, run, SETTINGS, "cpu", track=("wandb",)))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    numbers = [(step, data) for step, data in wandb.logged if "preview" not in data]
    assert [step for step, _ in numbers] == [line["step"] for line in lines]
    assert all(data["loss"] == line["loss"] for (_, data), line in zip(numbers, lines, strict=True) if "loss" in line)
    assert (20, {"preview": "000000020.png"}) in wandb.logged
    [begun] = wandb.inits
    assert begun["mode"] == "offline" and begun["name"] == "run" and begun["config"]["network"]["width"] == 8
    assert wandb.ends == [0]


def test_a_resume_continues_the_trackers_run(dataset: PreparedDataset, tmp_path: Path, wandb: FakeWandb) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 9, "lo')
    (tmp_path / "previews").mkdir()
    first = Tracking(tmp_path, SETTINGS, ["wandb"])
    first.send()
    first.close(finished=False)
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 9, "loss": 0.5, "dice": null}\n')
    second = Tracking(tmp_path, SETTINGS, ["wandb"])
    second.close(finished=True)
    assert wandb.logged == [(5, {"loss": 1.0}), (9, {"loss": 0.5})]
    assert wandb.inits[0]["id"] == wandb.inits[1]["id"] and wandb.ends == [1, 0]


def test_a_tracker_that_fails_ends_nothing(
    dataset: PreparedDataset, tmp_path: Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.fails_at = 1
    result = train(TrainRequest(dataset.folder, tmp_path / "run", SETTINGS, "cpu", track=("wandb",)))
    assert result.steps == 20 and not wandb.logged
    assert caplog.text.count("wandb gets nothing more of this training: no network") == 1


def test_mlflow_keeps_settings_numbers_and_previews(tmp_path: Path) -> None:
    """With the real mlflow, where it is installed."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0, "dice/ball": 0.25}\n{"step": 9, "loss": 0.5}\n')
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "000000009.png").write_bytes(b"picture")
    tracking = Tracking(tmp_path, SETTINGS, ["mlflow"])
    tracking.close(finished=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    [found] = client.search_runs([client.get_experiment_by_name("anatogen").experiment_id])
    assert found.data.metrics == {"loss": 0.5, "dice/ball": 0.25} and found.data.params["network.width"] == "8"
    assert found.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(found.info.run_id, "previews")] == ["previews/000000009.png"]


def test_what_is_missing_is_said(
    cli: Cli, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match="wandb is not installed.*anatogen\\[trackers\\]"):
        Tracking(tmp_path, SETTINGS, ["wandb"])
    code, _, err = cli("train", dataset_folder, "--out", tmp_path / "run", "--track", "excel", "--steps", 1)
    assert code == 2 and "there is no tracker 'excel'" in err and not (tmp_path / "run").exists()
