"""A model and a segmenter whose answers are known, in place of trained ones: the core is there in some samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.distributed import WHOLE, Shard
from anatogen.generation.request import Request
from anatogen.workflows.complete import CompleteRequest
from anatogen.workflows.sample import MapChoice
from by_brightness import ByBrightness
from cohorts import RealImages


class SometimesACore(RealImages):
    """Paints the label map in the classes' brightness, the core of it, if that is free, for even seeds only."""

    def __init__(self, dataset: PreparedDataset, segmenter: ByBrightness) -> None:
        super().__init__(dataset)
        self.means = segmenter.means
        self.spec = replace(self.spec, takes_free=True, axis=dataset.info.axis)

    def generate(
        self,
        requests: Sequence[Request],
        settings: object = None,
        *,
        batch_size: int = 16,
    ) -> Iterator[tuple[Request, np.ndarray]]:
        for request in requests:
            self.made.append(request.id)
            labels = request.labels
            if not request.states.given[1] and request.seed % 2:
                labels = np.where(labels == 2, 0, labels)
            yield request, self.means[labels][None].astype(np.float32)


class Counting(ByBrightness):
    """Counts the images that it labels."""

    seen = 0

    def __call__(self, images: Any, batch_size: int = 64) -> np.ndarray:
        self.seen += len(images)
        return super().__call__(images, batch_size)


def put_in(
    monkeypatch: pytest.MonkeyPatch, dataset: PreparedDataset, kind: type[SometimesACore] = SometimesACore
) -> tuple[SometimesACore, Counting]:
    """A model and a segmenter in place of trained ones."""
    segmenter = Counting(dataset)
    model = kind(dataset, segmenter)
    monkeypatch.setattr("anatogen.judges.of_dataset.segmenter_for", lambda *_, **__: segmenter)
    monkeypatch.setattr("anatogen.judges.of_dataset.name_of_segmenter", lambda *_: "segmenter-known.safetensors")
    monkeypatch.setattr("anatogen.generation.kinds.load_model", lambda *_, **__: model)
    return model, segmenter


def asked(
    dataset: PreparedDataset, out: Path, *, calibrate: int = 0, shard: Shard = WHOLE, **maps: Any
) -> CompleteRequest:
    """Four samples of each of six label maps."""
    choice = MapChoice(dataset.folder, **{"free": ("core",), "per_mask": 4, "count": 24, **maps})
    return CompleteRequest(Path("run"), out, choice, calibrate=calibrate, device="cpu", shard=shard)
