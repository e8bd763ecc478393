"""Averages of any length from snapshots of two: against what the formulas and a direct average give."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from anatogen.data.store import PreparedDataset
from anatogen.errors import ModelError
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.model import read_about
from anatogen.training.averages import PowerAverages, averaged, combination, exponent_of
from anatogen.training.config import build_settings
from anatogen.training.train import train

Cli = Callable[..., tuple[int, str, str]]


class Point(nn.Module):
    """Weights that follow a given path."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def at(self, t: float) -> Point:
        with torch.no_grad():
            self.w.copy_(torch.tensor([t, math.sin(6 * t), math.exp(-3 * t)]))
        return self


def tracked(lengths: tuple[float, ...], steps: int, folder: Path | None = None) -> PowerAverages:
    """Averages along the path, with eight snapshots in float32."""
    point = Point().at(0)
    averages = PowerAverages(point, lengths)
    for step in range(1, steps + 1):
        averages.update(point.at(step / steps))
        if folder is not None and step % (steps // 8) == 0:
            (folder / "averages").mkdir(exist_ok=True)
            for length, weights in averages.weights.items():
                write_tensors(folder / "averages" / f"{step:09d}-{length:g}.safetensors", weights)
    return averages


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2])
def test_a_profile_has_the_length_it_is_called_by(length: float) -> None:
    gamma = exponent_of(length)
    tau = (np.arange(200_000) + 0.5) / 200_000
    profile = tau**gamma / (tau**gamma).sum()
    mean = (profile * tau).sum()
    assert math.sqrt((profile * (tau - mean) ** 2).sum()) == pytest.approx(length, rel=1e-3)


def test_the_average_of_a_straight_path_is_the_profiles_mean() -> None:
    averages = tracked((0.05, 0.1), 2000)
    for length, weights in averages.weights.items():
        gamma = exponent_of(length)
        assert weights["w"][0] == pytest.approx((gamma + 1) / (gamma + 2), abs=2e-3)


def test_a_length_that_was_tracked_is_found_exactly(tmp_path: Path) -> None:
    averages = tracked((0.05, 0.1), 800, tmp_path)
    for length in (0.05, 0.1):
        assert torch.allclose(averaged(tmp_path, length)["w"], averages.weights[length]["w"], atol=1e-5)
    shares = combination(np.array([4.0, 8.0]), np.array([0.1, 0.1]), 8.0, 0.1)
    assert np.allclose(shares, [0, 1], atol=1e-9)


@pytest.mark.parametrize("length", [0.04, 0.07, 0.15])
def test_another_length_is_close_to_its_direct_average(tmp_path: Path, length: float) -> None:
    tracked((0.05, 0.1), 800, tmp_path)
    direct = tracked((length,), 800).weights[length]["w"]
    found = averaged(tmp_path, length)["w"]
    apart = [(weights["w"] - direct).norm() for weights in tracked((0.05, 0.1), 800).weights.values()]
    assert (found - direct).norm() < 0.1 * min(apart)  # ten times nearer than the nearer snapshot


def test_of_a_training(cli: Cli, dataset: PreparedDataset, tmp_path: Path) -> None:
    values = [
        "network.width=8",
        "network.blocks=1",
        "training.average_lengths=[0.05,0.1]",
        "training.checkpoint_every=5",
    ]
    settings = build_settings(values=values, training={"steps": 16, "batch_size": 4})
    run = train(dataset, tmp_path / "run", settings, device="cpu")
    names = sorted(path.name for path in (run / "averages").iterdir())
    assert len(names) == 16 and names[-1] == "000000016-0.1.safetensors"
    code, out, err = cli("average", run, "--length", 0.07, "--out", tmp_path / "other")
    assert code == 0 and "Next: anatogen sample" in out, err
    assert read_about(tmp_path / "other").average_length == 0.07
    own, other = (read_tensors(tmp_path / name / "model.safetensors") for name in ("run", "other"))
    last = read_tensors(run / "averages" / names[-1])
    assert own.keys() == other.keys()
    assert all(torch.allclose(other[name], last[name].float(), atol=0.05) for name in own)
    code, _, err = cli("average", run, "--length", 0.5, "--out", tmp_path / "third")
    assert code == 2 and "--length must be in" in err
    with pytest.raises(ModelError, match="holds no snapshots.*average_lengths"):
        averaged(tmp_path / "other", 0.07)
