"""Class states by region in training: random regions, and pixels of unknown class."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anatogen.data.store import PreparedDataset
from anatogen.seeds import Draws
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import DenoiserTask

SIZE = (32, 32)


def task_of(dataset: PreparedDataset, *values: str) -> DenoiserTask:
    settings = build_settings(values=["network.width=8", *values])
    return DenoiserTask(dataset, settings, torch.device("cpu"))


def states_of(task: DenoiserTask, count: int, ignored: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    annotated = torch.ones(count, 2, dtype=torch.bool)
    annotated[:, 1] = torch.arange(count) % 2 == 0
    labels = torch.zeros(count, *SIZE, dtype=torch.int64)
    labels[:, :8, :8] = 1
    rows, region = task._states(annotated, Draws(range(count)), labels, ignored)
    assert region is not None
    return rows, region


def test_ablation_holds_in_the_region_alone(dataset: PreparedDataset) -> None:
    task = task_of(dataset, "conditioning.regional_share=0.5", "conditioning.ablated_share=1")
    rows, region = states_of(task, 600)
    assert rows.shape == (600, 2, 2) and region.shape == (600, *SIZE) and region.dtype == torch.uint8
    assert torch.equal(rows[:, 0, 1], torch.arange(600) % 2 == 0) and rows[:, 0, 0].all()  # outside: as annotated
    assert not (rows[:, 1] & ~rows[:, 0]).any()
    assert 0.42 < rows[:, 1, 0].float().mean() < 0.58
    everywhere = region.flatten(1).all(dim=1).float().mean()
    assert 0.42 < everywhere < 0.6
    inside = region > 0
    freed, regional = ~rows[:, 1, 0], ~inside.flatten(1).all(dim=1)
    held = inside[:, :8, :8].flatten(1).any(dim=1)
    assert held[freed & regional].float().mean() > held[~freed & regional].float().mean() + 0.2  # around what is free


def test_without_regions_nothing_more_is_drawn(dataset: PreparedDataset) -> None:
    """Trainings of before there were regions continue bit for bit."""
    task = task_of(dataset)
    annotated = torch.ones(8, 2, dtype=torch.bool)
    draws, same = Draws(range(8)), Draws(range(8))
    rows, region = task._states(annotated, draws, torch.zeros(8, *SIZE, dtype=torch.int64), None)
    same.uniform(3)
    assert region is None and rows.shape == (8, 1, 2)
    assert torch.equal(draws.normal(4), same.normal(4))


def test_unknown_pixels_are_free_for_every_class(dataset: PreparedDataset) -> None:
    ignored = torch.zeros(4, *SIZE, dtype=torch.bool)
    ignored[:, :5] = True
    for share, last in ((0.0, 1), (0.5, 2)):
        rows, region = states_of(task_of(dataset, f"conditioning.regional_share={share}"), 4, ignored)
        assert rows.shape[1] == last + 1 and not rows[:, last].any()
        assert (region[:, :5] == last).all() and (region[:, 5:] < last).all()


@pytest.mark.parametrize("encoding", ["embedding", "onehot", "index"])
def test_images_are_learned_where_the_class_is_unknown(dataset: PreparedDataset, encoding: str) -> None:
    """Not with `index`, in which unknown and background are the same."""
    task = task_of(dataset, f"conditioning.encoding={encoding}")
    batch = dataset.load(dataset.split("train")[:2])
    ignored = torch.ones_like(batch.labels, dtype=torch.bool)
    unknown = replace(batch, ignored=ignored, labels=torch.zeros_like(batch.labels))
    loss, _ = task.loss(task.phases[0], unknown, Draws([0, 1]))
    assert (float(loss.detach()) > 0) == (encoding != "index")
