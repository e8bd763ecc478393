"""The largest part of a batch that fits into device memory at a time."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from anatogen.device import Precision, autocast
from anatogen.distributed import current_group
from anatogen.errors import SettingsError
from anatogen.seeds import Draws
from anatogen.training.task import B, Batches, Task

if TYPE_CHECKING:
    from anatogen.training.config import TrainingSettings

_log = logging.getLogger(__name__)


def micro_batch_that_fits(attempt: Callable[[int], None], batch: int) -> int:
    """The first of `batch`, `batch` / 2, `batch` / 4, ... that `attempt` takes without running out of device memory.

    Args:
        attempt: Computes with so many images; raises torch.OutOfMemoryError where they are too many.
        batch: The most that is wanted, at least 1.

    Raises:
        SettingsError: One image is too much.
    """
    size = batch
    while True:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            _give_back()
            if size == 1:
                raise SettingsError(
                    "one image does not fit into device memory", hint="Use a smaller network.width or smaller images"
                ) from None
            size = -(-size // 2)
            continue
        _give_back()
        return size


def micro_batch_of(task: Task[B], data: Batches[B], settings: TrainingSettings) -> int:
    """The micro-batch size of a training: that of `settings`, otherwise what fits on a GPU, elsewhere the batch."""
    if settings.micro_batch_size is not None:
        return settings.micro_batch_size
    if task.device.type != "cuda":
        return data.batch_size
    with closing(data.stream(shard=current_group().shard)) as stream:
        return probed(task, next(stream), settings.precision)


def probed(task: Task[B], batch: B, precision: Precision) -> int:
    """The micro-batch size of `task` for batches such as `batch`; all processes of a group agree on the smallest.

    Forward and backward passes are tried; weights and random numbers of the training stay as they are.
    """

    def attempt(size: int) -> None:
        try:
            for phase in task.phases:
                part = batch.part(0, size)
                with autocast(task.device, precision):
                    loss, _ = task.loss(phase, part, Draws(range(len(part)), task.device))
                loss.backward()  # type: ignore[no-untyped-call]
        finally:
            for phase in task.phases:
                phase.optimizer.zero_grad(set_to_none=True)

    own = micro_batch_that_fits(attempt, len(batch)) if len(batch) else None
    found = min(size for size in current_group().gather(own) if size is not None)
    if found < len(batch):
        _log.info("%d of the %d images of a batch fit into device memory at a time", found, len(batch))
    return found


def _give_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
