"""Images that are read as they are needed are those that would be held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from anatogen.data.store import PreparedDataset
from anatogen.evaluation.sections.utility import synthetic_parts
from anatogen.judges.fitting import Lazy
from anatogen.judges.of_dataset import part_of
from cohorts import sample_set


def test_of_a_data_set(dataset: PreparedDataset) -> None:
    rows = dataset.split("train")[::-1]
    held, read = part_of(dataset, rows), part_of(dataset, rows, held_bytes=0)
    assert isinstance(held[0], torch.Tensor) and isinstance(read[0], Lazy) and isinstance(read[1], Lazy)
    some = torch.tensor([3, 0, 3])
    for one, other in zip(held, read, strict=True):
        assert tuple(one.shape) == tuple(other.shape)
        assert torch.equal(one[some], other[some]) and torch.equal(one[2:5], other[2:5])
    assert torch.equal(held[1], dataset.load(rows).truth)


def test_of_a_sample_set(dataset: PreparedDataset, tmp_path: Path) -> None:
    images = dataset.load(dataset.split("test")).images.numpy()
    samples = sample_set(tmp_path / "samples", dataset, images)
    held, read = (
        synthetic_parts(samples, samples.entries, dataset.schema.names, dataset, held_bytes=limit)
        for limit in (1 << 30, 0)
    )
    assert isinstance(held.images, torch.Tensor) and isinstance(read.images, Lazy)
    for one, other in zip(held.tensors, read.tensors, strict=True):
        assert torch.equal(one[:], other[:])
    assert np.array_equal(held.groups, read.groups)
    patient = held.of_patients(1, 0), read.of_patients(1, 0)
    assert torch.equal(patient[0].images[:], patient[1].images[:]) and isinstance(patient[1].images, Lazy)
