"""Painting against known answers: the mean and the texture of every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.baselines.document import BaselineConfig
from anatogen.baselines.painting import Painting, Statistics, make_painting
from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.errors import ModelError
from anatogen.generation.kinds import load_model
from anatogen.labels import ClassStates
from anatogen.model import AboutModel, Query

SIZE = (64, 64)
CONFIG = BaselineConfig(image_channels=1, size=SIZE, classes=(("disc", "#ff0000"), ("never", "#00ff00")))


def world(count: int = 24, seed: int = 0) -> Batch:
    """Background: mean -0.4 with smooth texture of deviation 0.1; disc: mean 0.3, which varies by 0.05 between images,
    with white noise of deviation 0.08.
    """
    rng = np.random.default_rng(seed)
    y, x = np.indices(SIZE)
    labels, images = np.zeros((count, *SIZE), np.int64), np.zeros((count, 1, *SIZE), np.float32)
    radius = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    low = np.exp(-((radius / 0.05) ** 2))
    low *= 0.1 / np.sqrt((low**2).mean())
    for i in range(count):
        disc = np.hypot(y - rng.uniform(24, 40), x - rng.uniform(24, 40)) < 14
        labels[i][disc] = 1
        smooth = np.fft.ifft2(np.fft.fft2(rng.standard_normal(SIZE)) * low).real
        inside = 0.3 + 0.05 * rng.standard_normal() + 0.08 * rng.standard_normal(SIZE)
        images[i, 0] = np.where(disc, inside, -0.4 + smooth)
    rows = tuple(Row(i, f"case{i}", f"patient{i}", 0, "train", ("disc", "never")) for i in range(count))
    return Batch(torch.from_numpy(images), torch.from_numpy(labels), torch.ones(count, 2, dtype=torch.bool), rows)


@pytest.fixture(scope="module")
def painting() -> Painting:
    found = Statistics(3, 1, SIZE)
    batch = world()
    found.add(batch.part(0, 10))
    found.add(batch.part(10, 24))
    return Painting(CONFIG, found.result(), AboutModel())


def painted(
    painting: Painting, labels: np.ndarray, given: tuple[bool, bool] = (True, True), seeds: int = 24
) -> np.ndarray:
    asked = [Query(labels, ClassStates(given), seed) for seed in range(seeds)]
    return np.stack([image[0] for _, image in painting.generate(asked)])


def neighbours(values: np.ndarray) -> float:
    """The correlation of horizontal neighbours over a set of images (N, H, W)."""
    a, b = values[..., :-1] - values.mean(), values[..., 1:] - values.mean()
    return float((a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean()))


def test_each_class_gets_its_mean_and_its_texture(painting: Painting) -> None:
    disc = painted(painting, np.ones(SIZE, np.int64))
    assert abs(disc.mean() - 0.3) < 0.03 and abs(disc.mean(axis=(1, 2)).std() - 0.05) < 0.03
    within = (disc - disc.mean(axis=(1, 2), keepdims=True)).std()
    assert abs(within - 0.08) < 0.01 and abs(neighbours(disc - disc.mean(axis=(1, 2), keepdims=True))) < 0.1
    background = painted(painting, np.zeros(SIZE, np.int64))
    assert abs(background.mean() + 0.4) < 0.03
    left = background - background.mean(axis=(1, 2), keepdims=True)
    assert abs(left.std() - 0.1) < 0.02
    real = world(seed=1).images[:, 0].numpy()[:, :8]  # no disc reaches there
    assert neighbours(left) > 0.9 and neighbours(real - real.mean(axis=(1, 2), keepdims=True)) > 0.9


def test_a_class_left_free_is_painted_as_background(painting: Painting) -> None:
    labels = np.ones(SIZE, np.int64)
    assert abs(painted(painting, labels, (False, True)).mean() + 0.4) < 0.03


def test_a_class_without_examples_is_no_number_but_zero(painting: Painting) -> None:
    assert np.abs(painted(painting, np.full(SIZE, 2), seeds=2)).max() == 0


def test_a_class_counts_only_where_it_is_annotated() -> None:
    batch = world()
    unknown = torch.tensor([[True, True]] * 12 + [[False, True]] * 12)
    found = Statistics(3, 1, SIZE)
    # Where the disc is not annotated, its map says background.
    labels = torch.where(unknown[:, :1, None], batch.labels, 0)
    found.add(Batch(batch.images, labels, unknown, batch.rows))
    assert abs(float(found.result()["mean"][0, 0]) + 0.4) < 0.03


def test_damaged_and_missing(dataset: PreparedDataset, tmp_path: Path) -> None:
    make_painting(dataset, tmp_path / "run")
    assert load_model(tmp_path / "run").spec.size == dataset.size
    (tmp_path / "run" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path / "run")
