from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anatogen.data import statistics
from anatogen.data.statistics import channel_statistics
from anatogen.data.store import PreparedDataset
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import denoiser_config


def test_mean_and_deviation_of_the_training_split(dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images = dataset.load(dataset.split("train")).images.double()
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 100_000)  # several blocks
    mean, std = channel_statistics(dataset)
    assert mean == pytest.approx([float(images.mean())], abs=1e-4)
    assert std == pytest.approx([float(images.std(correction=0))], abs=1e-4)
    assert channel_statistics(dataset) == (mean, std)


def test_each_channel_for_itself_and_constant_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 3, 8, 8, generator=generator) * torch.tensor([0.1, 0.4, 0.0])[:, None, None]
    images += torch.tensor([-0.5, 0.2, -1.0])[:, None, None]
    read: list[int] = []

    def batches(rows: list[int], size: int) -> list[SimpleNamespace]:
        read.extend(rows)
        return [SimpleNamespace(images=images[rows[start : start + size]]) for start in range(0, len(rows), size)]

    data = SimpleNamespace(split=lambda name: list(range(300)), batches=batches, channels=3, size=(8, 8))
    mean, std = channel_statistics(data, limit=100)  # type: ignore[arg-type]
    assert np.allclose(mean, [-0.5, 0.2, -1.0], atol=0.02) and np.allclose(std, [0.1, 0.4, 0.01], atol=0.02)
    assert len(read) == 100 and read[0] == 0 and read[-1] == 299


def test_the_denoiser_is_told_what_was_measured(dataset: PreparedDataset) -> None:
    mean, std = channel_statistics(dataset)
    settings = build_settings(values=["diffusion.data_statistics=measured"])
    config = denoiser_config(dataset, settings)
    assert (config.data_mean, config.data_std) == (mean, std) != ((0.0,), (0.5,))
    fixed = denoiser_config(dataset, build_settings(values=["diffusion.data_statistics=fixed"]))
    assert (fixed.data_mean, fixed.data_std) == ((0.0,), (0.5,))
