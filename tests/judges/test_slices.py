"""Volumes as slices along their axes: which, how they are cut, and the encoders of each axis."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.fitting import Part
from anatogen.judges.of_dataset import slice_encoders_for, slice_parts
from anatogen.judges.slices import axes_of, choose_slices, cut_slices

SIZE, VOLUMES = (6, 20, 18), 3


class FewVolumes:
    """A data set of a few volumes in memory, the first of which has a voxel of unknown class."""

    size, channels = SIZE, 2
    schema = SimpleNamespace(count=3)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draw = torch.Generator().manual_seed(0)
        self.images = torch.rand(VOLUMES, 2, *SIZE, generator=draw) * 2 - 1
        self.labels = torch.zeros(VOLUMES, *SIZE, dtype=torch.int64)
        self.labels[:, 1:5, 5:15, 4:12] = 1
        self.ignored = torch.zeros_like(self.labels, dtype=torch.bool)
        self.ignored[0, 2, 0, 0] = True
        self.annotated = torch.tensor([[True, False], [True, True], [True, True]])

    def split(self, name: str) -> list[int]:
        assert name == "heldout"  # the patients that neither side of a comparison has
        return list(range(VOLUMES))

    def batches(self, rows: list[int], size: int = 256) -> list[Batch]:
        every = (self.images, self.labels, self.annotated, cast(tuple[Row, ...], ()), self.ignored)
        return [Batch(*every).part(i, i + 1) for i in rows]


def test_slices_are_spread_through_the_labelled_part() -> None:
    labels = np.zeros((3, 40, 5, 4), np.int64)
    labels[0, 4:36, 2, 2] = 1
    labels[1, [3, 30], 0, 0] = 2  # the other volumes are labelled in two slices, and nowhere
    whose, which = choose_slices(labels, 0, most=8)
    assert [which[whose == volume].tolist() for volume in range(3)] == [
        [6, 10, 14, 18, 22, 26, 30, 34],
        [3, 30],
        [2, 7, 12, 17, 22, 27, 32, 37],
    ]
    assert [place.tolist() for place in choose_slices(labels, 2)] == [[0, 1, 2, 2, 2, 2], [2, 0, 0, 1, 2, 3]]
    assert choose_slices(labels, 0, most=1)[1].tolist() == [20, 30, 20]
    assert [len(place) for place in choose_slices(labels[:0], 1)] == [0, 0]


def test_slices_are_cut_as_they_are() -> None:
    volumes = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    whose, which = np.array([0, 1, 1]), np.array([3, 0, 2])
    for axis, size in enumerate([(5, 6), (4, 6), (4, 5)]):
        found = cut_slices(volumes, axis, whose, which)
        assert found.shape == (3, 3, *size) and found.dtype == np.float32
        for each, volume, place in zip(found, whose, which, strict=True):
            assert np.array_equal(each, volumes[volume].take(place, 1 + axis))
        assert np.array_equal(cut_slices(volumes[:, 0], axis, whose, which), found[:, 0])  # label maps have no channels
    assert axes_of((4, 5, 6)) == (0, 1, 2) and axes_of((5, 6)) == ()


def test_encoders_are_trained_on_slices_of_heldout_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = FewVolumes(tmp_path)
    dataset = cast(PreparedDataset, few)
    parts = slice_parts(dataset, dataset.split("heldout"))
    assert [tuple(images.shape) for images, _, _ in parts] == [(12, 2, 20, 18), (30, 2, 6, 18), (24, 2, 6, 20)]
    images, labels, annotated = parts[0]
    assert torch.equal(images[:4], few.images[0, :, 1:5].movedim(1, 0))
    assert torch.equal(annotated[4:8], few.annotated[1].repeat(4, 1))
    assert labels[1, 0, 0] == -1 and labels[5, 0, 0] == 0  # -1: of unknown class
    assert len(slice_parts(dataset, dataset.split("heldout"), held_bytes=2 * 3 * 360 * 16)[0][0]) == 6
    assert len(slice_parts(dataset, dataset.split("heldout"), held_bytes=1)[0][0]) == 3

    def remember(part: Part, class_count: int, settings: EncoderSettings, **how: Any) -> tuple[Part, Any]:
        how["progress"](settings.steps, settings.steps, "")
        return part, how["cache"]

    monkeypatch.setattr("anatogen.judges.of_dataset.train_encoder", remember)
    encoders = cast(list[tuple[Part, Path]], slice_encoders_for(dataset, EncoderSettings(steps=1), device="cpu"))
    for (part, cache), expected in zip(encoders, parts, strict=True):
        assert cache == tmp_path and all(torch.equal(a[:], b[:]) for a, b in zip(part, expected, strict=True))


def test_slices_have_no_axes_to_be_cut_along(dataset: PreparedDataset) -> None:
    assert slice_encoders_for(dataset) == ()
