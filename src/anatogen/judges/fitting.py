"""What trainings of the judges (segmenter and encoder) have in common: images, first weights, batches, learning rate, kept weights."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from anatogen.files import LOCK_ENDING, locked, writing

BLOCK = 256
_WAIT_S = 7 * 24 * 3600.0  # for another process that trains the same judge; a killed one is not waited for

_Network = TypeVar("_Network", bound=nn.Module)


class Items(Protocol):
    """What is read like a tensor along its first axis: a tensor, or one that is not in memory."""

    @property
    def shape(self) -> Sequence[int]:
        """Of all of it."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice | Tensor, /) -> Tensor:
        """Some of the items: a slice without a step, or places (K,)."""


Part = tuple[Items, Items, Tensor]
"""Images (N, C, *spatial) in [-1, 1], labels (N, *spatial), -1 where unknown, annotated (N, class_count - 1)."""


class Lazy:
    """Items of `shape` that are read when they are asked for. read: places -> tensor (K, ...)."""

    def __init__(self, shape: Sequence[int], read: Callable[[list[int]], Tensor]) -> None:
        self.shape, self._read = tuple(shape), read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | Tensor) -> Tensor:
        chosen = list(range(len(self)))[places] if isinstance(places, slice) else [int(p) for p in places]
        if not chosen:
            return self._read([0])[:0]
        return self._read(chosen)


class Joined:
    """The items of `first`, then those of `second`; neither is copied."""

    def __init__(self, first: Items, second: Items) -> None:
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | Tensor) -> Tensor:
        chosen = torch.arange(len(self))[places] if isinstance(places, slice) else places
        of_first = chosen < len(self.first)
        found = [self.first[chosen[of_first]], self.second[chosen[~of_first] - len(self.first)]]
        joined = torch.cat(found)
        order = torch.empty(len(chosen), dtype=torch.int64)
        order[torch.cat([of_first.nonzero()[:, 0], (~of_first).nonzero()[:, 0]])] = torch.arange(len(chosen))
        return joined[order]


def blocks_of(items: Items, size: int = BLOCK) -> Iterator[Tensor]:
    """`items` in their order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def each_of(items: Items) -> Iterator[Tensor]:
    """`items` one by one."""
    return (item for block in blocks_of(items) for item in block)


def first_network(build: Callable[[], _Network], seed: int, dim: int, device: torch.device) -> _Network:
    """What `build` makes, on `device`, its first weights by `seed` alone. dim: of its images, 2 or 3."""
    with torch.random.fork_rng(devices=[]):  # first weights come from the global generator
        torch.default_generator.manual_seed(seed)
        network = build().to(device)
    # Also where weights are read afterwards, so that trained and read ones compute alike to the last bit.
    return network.to(memory_format=torch.channels_last if dim == 2 else torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def draw_batch(
    part: Part, size: int, generator: torch.Generator, device: torch.device, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`size` items of `part`, with repetition, on `device`. weights: (N,), how often each is drawn; without it, all alike."""
    if weights is None:
        index = torch.randint(len(part[0]), (size,), generator=generator)
    else:
        index = torch.multinomial(weights.double(), size, replacement=True, generator=generator)
    return part[0][index].to(device), part[1][index].to(device), part[2][index].to(device)


def anneal(optimizer: torch.optim.Optimizer, learning_rate: float, progress: float) -> None:
    """Set the learning rate by cosine annealing: `learning_rate` at `progress` 0, nothing at 1."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def digest_of(*parts: str | Items) -> str:
    """16 hexadecimal digits that name kept weights. Of a tensor the values count, and not its shape.

    What was kept by earlier versions is found by them, so they must stay what they are, in memory or not.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        for block in (part,) if isinstance(part, Tensor) else blocks_of(part):
            digest.update(block.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


@contextmanager
def alone(kept: Path | None) -> Iterator[None]:
    """Holds the file `kept` for this process, once no other trains the same; does nothing where there is none, or it cannot be kept."""
    if kept is None or not is_writable(kept.parent):
        yield
        return
    hint = "Another process trains the same judge; wait for it to end"
    with locked(kept.parent, part=kept.stem, wait_s=_WAIT_S, hint=hint):
        try:
            yield
        finally:
            with suppress(OSError):  # whoever waits for a lock that is gone looks for it anew
                (kept.parent / f".{kept.stem}{LOCK_ENDING}").unlink()


def is_writable(folder: Path) -> bool:
    """Whether weights can be kept in `folder`, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def read_weights(path: Path, network: nn.Module) -> bool:
    """Give `network` the weights in `path`; False where they are not there, not whole, or not those of such a network."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError):
        return False
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in network.state_dict().items()}:
        return False
    network.load_state_dict(weights)
    return True


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Keep `weights` in `path`. Raises OutputError where it cannot be written."""
    with writing(path) as partial:  # as bytes, for safetensors tells of a full disk by an error of its own
        partial.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))
