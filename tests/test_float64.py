"""Nothing sends float64 to a device: Apple's GPUs have none."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import refusing_device
from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.path import Grid, PathName
from anatogen.diffusion.solvers import SolverName
from anatogen.generation.engine import Generator
from anatogen.generation.request import Request
from anatogen.judges.denoising_loss import denoising_losses
from anatogen.training.config import build_settings
from anatogen.training.train import train

DATASET = Path(__file__).parent / "fixtures" / "format1" / "dataset"


def test_the_device_refuses_float64_and_computes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_device.device_without_float64(monkeypatch):
        there = torch.arange(6.0).to(refusing_device.NAME).reshape(2, 3)
        assert there.device.type == refusing_device.NAME
        there[:, 0].add_(1)
        assert torch.equal((there @ there.T).cpu(), torch.tensor([[6.0, 18.0], [18.0, 57.0]]))
        for wrong in (
            lambda: torch.ones(2, dtype=torch.float64).to(refusing_device.NAME),
            lambda: torch.ones(2, dtype=torch.float64, device=refusing_device.NAME),
            lambda: there.double(),
            lambda: there * torch.tensor(0.5, dtype=torch.float64),
        ):
            with pytest.raises(refusing_device.Float64RefusedError):
                wrong()


@pytest.mark.parametrize("path", get_args(PathName))
def test_train_sample_and_interpolate_without_float64(
    path: PathName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PreparedDataset.open(DATASET)
    values = ["network.width=8", "network.blocks=1", f"diffusion.path={path}", "training.batch_size=2"]
    settings = build_settings(values=values, training={"steps": 2, "precision": "float32"})
    item = dataset.load(dataset.split("test")[:1])
    labels, real = item.labels[0].numpy(), item.images[0].numpy()

    def walk(device: str) -> list[np.ndarray]:
        train(dataset, tmp_path / device, settings, device=device)
        generator = Generator.load(tmp_path / device, device=device)
        requests = [Request(labels, generator.schema.states(), 3, id="0")]
        images = [
            image
            for solver in get_args(SolverName)
            for grid in get_args(Grid)
            for _, image in generator.generate(requests, generator.with_settings(solver=solver, grid=grid, steps=3))
        ]
        images.append(generator.sampling_with(generator.with_settings(steps=8)).interpolate(labels, real, [0.5]))
        condition = Condition.of(item.labels, item.annotated).to(device)
        denoise = generator.denoiser.under(condition)
        return [*images, denoising_losses(denoise, generator.denoiser.path, item.images.to(device), draws=1)]

    expected = walk("cpu")
    with refusing_device.device_without_float64(monkeypatch):
        found = walk(refusing_device.NAME)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
