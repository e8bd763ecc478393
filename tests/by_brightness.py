"""A segmenter whose answer is known: the balls of `conftest.write_case` are told by their brightness, and need no
training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anatogen.data.store import PreparedDataset
from anatogen.evaluation import evaluate as evaluate_module


class ByBrightness:
    """The class whose mean brightness in the real images is nearest, of every pixel:

    Dice 1 on real balls, but for their noise.
    """

    def __init__(self, dataset: PreparedDataset) -> None:
        batch = dataset.load(dataset.rows)
        pixels, classes = batch.images[:, 0].numpy(), batch.labels.numpy()
        self.means = np.array([pixels[classes == c].mean() for c in range(dataset.schema.count)])

    def __call__(self, images: np.ndarray | Tensor, batch_size: int = 64) -> np.ndarray:
        pixels = torch.as_tensor(images)[:, 0].numpy()
        return np.abs(pixels[..., None] - self.means).argmin(axis=-1).astype(np.int64)


def judge_by_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `evaluate` judge by brightness: what a report says then depends on no training of a judge."""

    def stand_in(dataset: PreparedDataset, *_: Any, **__: Any) -> ByBrightness:
        return ByBrightness(dataset)

    monkeypatch.setattr(evaluate_module, "segmenter_for", stand_in)
