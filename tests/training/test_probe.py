"""The micro-batch that fits is found without touching the training."""

from __future__ import annotations

import pytest
import torch
from toy_gan import Gaussian, Points, ToyGan

from anatogen.errors import SettingsError
from anatogen.training.probe import micro_batch_that_fits, probed


class Small:
    """A device that holds so many images."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, list[int]()

    def __call__(self, size: int) -> None:
        self.tried.append(size)
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("most", "found", "tried"), [(99, 20, [20]), (20, 20, [20]), (19, 10, [20, 10]), (1, 1, [20, 10, 5, 3, 2, 1])]
)
def test_halves_until_it_fits(most: int, found: int, tried: list[int]) -> None:
    device = Small(most)
    assert micro_batch_that_fits(device, 20) == found and device.tried == tried


def test_one_image_that_is_too_much_is_said() -> None:
    with pytest.raises(SettingsError, match="one image does not fit.*network.width"):
        micro_batch_that_fits(Small(0), 8)


class Heavy(ToyGan):
    """Out of memory in its second phase with more than three points."""

    def loss(self, phase, batch, random):  # type: ignore[no-untyped-def]
        if phase.name == "generator" and len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(phase, batch, random)


def test_the_task_is_as_before() -> None:
    task = Heavy()
    before = {name: tensor.clone() for name, tensor in task.generator.state_dict().items()}
    state = torch.get_rng_state()
    [batch] = [next(Gaussian(8).stream())]
    assert isinstance(batch, Points) and probed(task, batch, "float32") == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in task.generator.state_dict().items())
    assert all(parameter.grad is None for phase in task.phases for parameter in phase.module.parameters())
    assert torch.equal(state, torch.get_rng_state())
