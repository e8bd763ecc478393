"""The processes that work together: their number, what each does of the whole, and what they tell one another.

`torchrun` starts the processes and tells each its number by environment variables. A training joins them to a group;
sampling only divides its images and needs none. This is the only module that knows `torch.distributed`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from anatogen.errors import AnatogenError, GroupError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")

# The others wait this long for the first process, which trains the auxiliary segmenter and samples previews. A process
# that dies is noticed at once, by its closed connection.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count` equal parts of a whole."""

    index: int = 0
    count: int = 1

    def of(self, total: int) -> range:
        """The positions, out of 0 .. total - 1, that belong to this part: contiguous, sizes differ by at most one."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)

    def split(self, part: Shard) -> Shard:
        """Part `part` of this part, as a part of the whole."""
        return Shard(self.index * part.count + part.index, self.count * part.count)


WHOLE = Shard()


class Group:
    """The processes of one training; this one has number `rank` of `size`. A group of one communicates nothing.

    Every process must make the same calls in the same order. Each method raises GroupError where another process has
    ended.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, on_this_machine: int = 0) -> None:
        self.rank, self.size, self._on_this_machine = rank, size, on_this_machine

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """What this process does of a batch."""
        return Shard(self.rank, self.size)

    def device(self, name: str) -> str:
        """The device of this process: `name`, but with several processes `auto` and `cuda` are one GPU for each.

        Raises:
            SettingsError: There are fewer GPUs than processes on this machine, or the device takes one process only.
        """
        if self.size == 1:
            return name
        import torch

        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu":
            return name
        if name != "cuda":
            raise SettingsError(
                f"--device {name} is for one process, and there are {self.size}", hint="Use --device auto, cuda or cpu"
            )
        gpus = torch.cuda.device_count()
        if self._on_this_machine >= gpus:
            hint = f"Start {gpus} with --nproc-per-node {gpus}, or use --device cpu"
            raise SettingsError(f"there are more processes on this machine than GPUs ({gpus})", hint=hint)
        torch.cuda.set_device(self._on_this_machine)
        return f"cuda:{self._on_this_machine}"

    def first(self, work: Callable[[], R]) -> R:
        """What `work` returns in the first process, in all of them; only the first does it.

        Raises:
            AnatogenError: The first process raised it; in the others it is marked as `told`.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        problem: BaseException | None = None
        if self.is_first:
            try:
                outcome[0] = work()
            except AnatogenError as error:
                outcome[1] = problem = error
        self._broadcast(outcome, 0)
        if problem is not None:
            raise problem
        if outcome[1] is not None:
            outcome[1].told = True
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def gather(self, value: R) -> list[R]:
        """The `value` of every process, in the order of their numbers."""
        values = [value]
        if self.size > 1:
            values = []
            for rank in range(self.size):
                box: list[Any] = [value]
                self._broadcast(box, rank)
                values.append(box[0])
        return values

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sum of each of `values` over the processes."""
        if self.size == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64)
        with _others_may_end(self):
            torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients of `parameters` over the processes, in place. No gradient counts as zero."""
        if self.size == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of hundreds
        with _others_may_end(self):
            torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def _broadcast(self, box: list[Any], rank: int) -> None:
        import torch

        with _others_may_end(self):
            torch.distributed.broadcast_object_list(box, src=rank, device=torch.device("cpu"))


ALONE = Group()
_current = ALONE


def current_group() -> Group:
    """The group that this process has joined, otherwise a group of one."""
    return _current


def is_first_process() -> bool:
    """Whether this process is alone, or the first that `torchrun` has started."""
    group = _of_environment()
    return group is None or group.is_first


def share_and_device(device: str) -> tuple[Shard, str]:
    """The share and the device of a process that `torchrun` has started and that joins no group; otherwise everything.

    Raises SettingsError as `Group.device`.
    """
    group = _of_environment() or ALONE
    return group.shard, group.device(device)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group of the processes that `torchrun` has started, for the block; otherwise a group of one.

    Raises:
        GroupError: The processes do not reach one another.
    """
    global _current
    group = _of_environment()
    if group is None or group.size == 1 or _current is not ALONE:
        yield _current
        return
    import torch

    if not torch.distributed.is_available():
        raise SettingsError("this build of PyTorch cannot train with several processes", hint="Start one process")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _others_may_end(group):
        torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    _current = group
    try:
        yield group
    finally:
        _current = ALONE
        torch.distributed.destroy_process_group()


def _of_environment() -> Group | None:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
    if not all(name in os.environ for name in names):
        return None
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return Group(rank, size, on_this_machine=int(os.environ.get("LOCAL_RANK", "0")))
    except ValueError as error:
        hint = "torchrun sets them; unset them to start one process"
        raise SettingsError("RANK, WORLD_SIZE and LOCAL_RANK in the environment are no numbers", hint=hint) from error


@contextmanager
def _others_may_end(group: Group) -> Iterator[None]:
    """Say that another process has ended where the connection to it is closed."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, NotImplementedError):
            raise
        problem = f"process {group.rank} of {group.size}: another process of this training has ended"
        raise GroupError(problem, hint="The message of that process says why") from error
