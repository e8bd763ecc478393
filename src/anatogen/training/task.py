"""The interface between `fit`, which trains, and the systems that are trained."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from anatogen.data.store import PreparedDataset
from anatogen.distributed import WHOLE, Shard
from anatogen.model import StartingPoint
from anatogen.seeds import Draws
from anatogen.training.power_average import PowerAverages
from anatogen.training.state import MovingAverage, TrainingState

STAGES = "stages"


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
    """A source of batches; `anatogen.data.loader.Loader` is one."""

    @property
    def images(self) -> int:
        """Images in an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        ...

    def stream(self, start: int = 0, attempt: int = 0, shard: Shard = WHOLE) -> Generator[B_co, None, None]:
        """What `shard` has of batches start, start + 1, ... without end: items `shard.of(batch_size)`, which may be
        none. An index and an attempt always give the same batch.
        """
        ...


@dataclass
class Phase:
    """One optimizer and its module. Each step runs every phase of a task once, in order.

    Attributes:
        name: Unique in the task.
        module: Everything that the optimizer updates.
        optimizer: `fit` sets its learning rate in every step.
        learning_rate: The peak rate of the schedule.
        average: The average of the module's weights, or None.
        power_averages: Further averages, from which one of another length can be made afterwards; or None.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: float
    average: MovingAverage | None = None
    power_averages: PowerAverages | None = None


class Task(Protocol[B_contra]):
    """A system to train: its modules, its loss and its export. `fit` does the rest."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Modules with their optimizers, in the order in which a step runs them."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the modules."""
        ...

    @property
    def recipe(self) -> Mapping[str, str]:
        """What must match for a checkpoint to be resumed, each with its name in error messages."""
        ...

    def loss(self, phase: Phase, batch: B_contra, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a micro-batch, a mean over its items, and the metrics to log.

        Args:
            phase: One of `phases`.
            batch: Some of a step's items, not yet on the device.
            random: The random numbers of each of these items, on the device. Use no other source, so that the
                micro-batch size has no effect and a resume repeats them.

        Returns:
            A scalar, and metrics of one value per item or of a single value. A per-item "loss" identifies the items
            whose loss is not finite.
        """
        ...

    def names(self, batch: B_contra) -> Sequence[str]:
        """The name of each item, for messages."""
        ...

    def model(self) -> nn.Module:
        """A separate network with the averaged weights, for generation."""
        ...

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write the model with the averaged weights to `folder`."""
        ...


@runtime_checkable
class StartsFromRun(Protocol):
    """A task that can start from the weights of another run (`train --from`)."""

    started_from: StartingPoint | None

    def start_from(self, run: Path) -> tuple[str, ...]:
        """Start from the weights in `run`; returns the classes that it does not have."""
        ...


@dataclass(frozen=True)
class System:
    """A learned system, as `train` needs to know it.

    Attributes:
        name: The kind of its model: "denoiser", "spade", ...
        settings: The class of its settings.
        task: Makes its task: (data set, settings, device, folder of the run). Without a folder, to plan, it does
            without what earlier stages have trained.
        before: Trainings that it builds on, in their order.
    """

    name: str
    settings: type[BaseModel]
    task: Callable[[PreparedDataset, Any, torch.device, Path | None], Task[Any]]
    before: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A training that a system builds on, in a folder of its run.

    Attributes:
        name: Of the folder; see `stage_folder`.
        system: What is trained.
        settings: Its settings, from those of the whole.
    """

    name: str
    system: System
    settings: Callable[[Any], Any]


def stage_folder(run: Path, name: str) -> Path:
    """The folder of a stage of `run`."""
    return run / STAGES / name
