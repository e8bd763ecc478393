"""Averages of any length from the snapshots of two: against averages that are computed directly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from anatogen.data.store import PreparedDataset
from anatogen.errors import ModelError, SettingsError
from anatogen.model import load_denoiser, read_about
from anatogen.training.config import build_settings
from anatogen.training.hooks import Moment
from anatogen.training.power_average import PowerAverages, Profile, combination, exponent_of
from anatogen.training.snapshots import average_of, interval_at, save_snapshot, snapshot_hook
from anatogen.training.train import train

STEPS = 1000


def trajectory() -> torch.Tensor:
    """Weights of each step: a constant, a drift, an oscillation, and a random walk with large steps."""
    tau = np.arange(1, STEPS + 1)
    walk = np.random.default_rng(0).normal(0, 0.05, STEPS).cumsum()
    return torch.tensor(np.stack([np.full(STEPS, 0.5), tau / STEPS, np.sin(tau / 40), walk], axis=1)).float()


def directly(weights: torch.Tensor, length: float) -> torch.Tensor:
    """The average of `length`: step tau counts as the integral of the profile from tau - 1 to tau."""
    upto = (np.arange(len(weights) + 1) / len(weights)) ** (exponent_of(length) + 1)
    return (weights.double() * torch.tensor(np.diff(upto))[:, None]).sum(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots of a training whose weights follow `trajectory`."""
    folder, module = tmp_path_factory.mktemp("run"), nn.Linear(4, 1, bias=False)
    averages = PowerAverages(module)
    hook = snapshot_hook(averages, folder)
    for step, weights in enumerate(trajectory(), start=1):
        module.weight.data[0] = weights
        averages.update(module)
        if step % hook.every == 0 or step == STEPS:
            hook.call(Moment(step, step / STEPS, lambda: None, {}))
    return folder


@pytest.mark.parametrize(("length", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponent_is_that_of_the_paper_and_gives_the_length(length: float, exponent: float) -> None:
    assert exponent_of(length) == pytest.approx(exponent, abs=0.01)
    tau = (np.arange(200_000) + 0.5) / 200_000
    weights = (exponent_of(length) + 1) * tau ** exponent_of(length) / len(tau)
    mean = (weights * tau).sum()
    assert np.sqrt((weights * (tau - mean) ** 2).sum()) == pytest.approx(length, rel=1e-4)


def test_a_tracked_average_is_the_directly_computed_one(run: Path) -> None:
    """To half precision, in which snapshots are stored."""
    for length in (0.05, 0.10):
        found = average_of(run, length)
        assert found.step == STEPS and found.error < 1e-6
        torch.testing.assert_close(
            found.weights["weight"][0].double(), directly(trajectory(), length), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize(("length", "far"), [(0.03, 0.02), (0.07, 0.002), (0.15, 0.005), (0.2, 0.01)])
def test_an_average_of_another_length_is_near_the_directly_computed_one(run: Path, length: float, far: float) -> None:
    found, truth = average_of(run, length).weights["weight"][0].double(), directly(trajectory(), length)
    assert found[0] == pytest.approx(0.5, abs=5e-4)  # the factors add up to 1
    assert (found - truth).abs().max() < far
    others = [average_of(run, tracked).weights["weight"][0].double() for tracked in (0.05, 0.10)]
    assert all((other - truth).abs().max() > 3 * far for other in others)


def test_the_error_is_that_of_the_profile() -> None:
    profiles = [Profile(step, exponent_of(length)) for step in (250, 500, 750, 1000) for length in (0.05, 0.10)]
    wanted = Profile(1000, exponent_of(0.03))
    factors, error = combination(profiles, wanted)
    tau = (np.arange(100_000) + 0.5) / 100

    def on_grid(p: Profile) -> np.ndarray:
        return np.where(tau <= p.step, (p.exponent + 1) / p.step * (tau / p.step) ** p.exponent, 0)

    truth = on_grid(wanted)
    total = sum(factor * on_grid(profile) for factor, profile in zip(factors, profiles, strict=True))
    assert error == pytest.approx(np.linalg.norm(total - truth) / np.linalg.norm(truth), rel=1e-3) and error > 0.1


def test_few_snapshots_are_kept_and_which_depends_on_the_step_only(run: Path, tmp_path: Path) -> None:
    steps = [int(file.stem) for file in sorted((run / "averages").iterdir())]
    assert steps == [*range(64, 1000, 64), 1000]
    assert all(8 <= step // interval_at(step) <= 16 for step in range(128, 100_000, 37))
    resumed = shutil.copytree(run, tmp_path / "run")
    save_snapshot(resumed, 512, PowerAverages(nn.Linear(4, 1, bias=False)))
    assert sorted(int(file.stem) for file in (resumed / "averages").iterdir()) == list(range(64, 513, 64))


def test_lengths_and_runs_that_give_no_average(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="above 0 and below 0.289, got 0.3"):
        average_of(run, 0.3)
    with pytest.raises(SettingsError, match="do not give an average of length 0.005.*nearer to 0.05"):
        average_of(run, 0.005)
    with pytest.raises(ModelError, match="no snapshots.*training.power_averages=true"):
        average_of(tmp_path, 0.07)
    torn = shutil.copytree(run, tmp_path / "run")
    (torn / "averages" / "000001000.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="000001000.safetensors: is damaged.*the other snapshots remain"):
        average_of(torn, 0.07)


def test_a_full_disk_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "averages").write_text("not a folder")
    averages = PowerAverages(nn.Linear(4, 1))
    snapshot_hook(averages, tmp_path).call(Moment(16, 0.5, lambda: None, {}))
    assert "the snapshot of the averages at step 16 was not saved" in caplog.text


def test_a_run_with_another_average(
    dataset: PreparedDataset, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """Tracking changes nothing in the model, a killed training keeps the same snapshots, and the average is a run."""
    values = ["network.width=8", "network.blocks=1", "training.batch_size=2", "training.checkpoint_every=9"]
    short = {"training.steps": 20, "training.power_averages": True}
    tracked = build_settings(values=[*values, *(f"{name}={value}" for name, value in short.items())])
    plain = train(dataset, tmp_path / "plain", build_settings(values=[*values, "training.steps=20"]), device="cpu")
    run = train(dataset, tmp_path / "run", tracked, device="cpu")
    assert (plain / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()

    class Killed(BaseException):
        pass

    calls = iter(range(1000))

    def kill(share: float, text: str) -> None:
        if next(calls) == 17:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, tmp_path / "killed", tracked, device="cpu", progress=kill)
    killed = train(dataset, tmp_path / "killed", resume=True, device="cpu")
    files = [file.name for file in sorted((run / "averages").iterdir())]
    assert files == [f"{step:09d}.safetensors" for step in (16, 20)]
    assert all((killed / "averages" / f).read_bytes() == (run / "averages" / f).read_bytes() for f in files)

    out = tmp_path / "average"
    code, said, err = cli("average", run, "--length", "0.1", "--out", out)
    assert code == 0 and "average of length 0.1 up to step 20, from 2 snapshots" in said, err
    about, ours = read_about(out), load_denoiser(out)[0].state_dict()
    assert about == read_about(run).model_copy(update={"average_length": 0.1})
    wanted = average_of(run, 0.1).weights
    assert all(torch.equal(ours[name], wanted[name]) for name in ours)
    code, _, err = cli("average", run, "--length", "0.1", "--out", out)
    assert code == 2 and "already exists" in err
    code, _, err = cli("average", plain, "--length", "0.1", "--out", tmp_path / "none")
    assert code == 2 and "no snapshots" in err and not (tmp_path / "none").exists()
