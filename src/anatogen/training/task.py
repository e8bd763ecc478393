"""What is trained: the contract between `fit`, which trains, and the systems that are trained."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from anatogen.seeds import Draws
from anatogen.training.state import MovingAverage, TrainingState


class MicroBatch(Protocol):
    """Items that are trained on together."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Self:
        """Items start to stop - 1."""
        ...


B = TypeVar("B", bound=MicroBatch)
B_contra = TypeVar("B_contra", bound=MicroBatch, contravariant=True)
B_co = TypeVar("B_co", bound=MicroBatch, covariant=True)


class Batches(Protocol[B_co]):
    """Where batches come from; `anatogen.data.loader.Loader` is one."""

    @property
    def images(self) -> int:
        """Images in an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        ...

    def stream(self, start: int = 0, attempt: int = 0) -> Generator[B_co, None, None]:
        """Batches start, start + 1, ... without end; a number and an attempt always stand for the same batch."""
        ...


@dataclass
class Phase:
    """One optimizer and what it moves. A step runs every phase of a task once, in their order.

    Attributes:
        name: Of its own in the task.
        module: All that the optimizer moves.
        optimizer: Its learning rate is set by `fit` in every step.
        learning_rate: The rate that the schedule starts from.
        average: The average of the module's weights; None where none is wanted.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: float
    average: MovingAverage | None = None


class Task(Protocol[B_contra]):
    """A system that is trained: its modules, its loss, and what becomes of it. `fit` does all the rest."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Modules with their optimizers, in the order in which a step runs them."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        ...

    @property
    def recipe(self) -> Mapping[str, str]:
        """What must be the same for a checkpoint to be gone on with, by what it is called in words."""
        ...

    def loss(self, phase: Phase, batch: B_contra, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a micro-batch, a mean over its items, and what is to be logged of it.

        Args:
            phase: One of `phases`.
            batch: Some of a step's items, not yet on the device.
            random: The random numbers of each of these items, on the device. There is no other source of them, so that
                the size of a micro-batch changes nothing, and a resume repeats them.

        Returns:
            A scalar, and tensors of one value for each item or of one value. "loss", where it is a value for each item,
            tells whose loss is not finite.
        """
        ...

    def names(self, batch: B_contra) -> Sequence[str]:
        """What each item is called, for a message about it."""
        ...

    def model(self) -> Any:
        """What generates images, with the averaged weights."""
        ...

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write the model with the averaged weights to `folder`."""
        ...
