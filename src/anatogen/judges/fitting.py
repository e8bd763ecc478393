"""Shared parts of training segmenter and encoder: images, initial weights, batches, learning rate, cached weights."""

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
_PIXELS_AT_A_TIME = 64 * 256 * 256
_WAIT_S = 7 * 24 * 3600.0  # for another process that trains the same network; a killed one releases its lock

_Network = TypeVar("_Network", bound=nn.Module)


class Items(Protocol):
    """A sequence that is indexed like a tensor along its first axis, in memory or not."""

    @property
    def shape(self) -> Sequence[int]:
        """The shape of the whole."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice | Tensor, /) -> Tensor:
        """Some of the items, by a slice without a step or by places (K,)."""


Part = tuple[Items, Items, Tensor]
"""Images (N, C, *spatial) in [-1, 1], labels (N, *spatial), -1 where unknown, annotated (N, class_count - 1)."""


class Lazy:
    """Items that are read when they are indexed.

    Args:
        shape: The shape of all items.
        read: Places -> tensor (K, ...).
    """

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
    """The items of `first`, then those of `second`, without a copy."""

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


def at_a_time(spatial: Sequence[int], most: int = 64) -> int:
    """How many images or volumes of that size a judge sees at a time: up to `most`, fewer of large ones."""
    return max(1, min(most, _PIXELS_AT_A_TIME // math.prod(spatial)))


def blocks_of(items: Items, size: int | None = None) -> Iterator[Tensor]:
    """`items` in order, in blocks of `size`; by default of 256, or of fewer large ones."""
    size = size or at_a_time(tuple(items.shape[1:]) or (1,), BLOCK)
    return (items[start : start + size] for start in range(0, len(items), size))


def each_of(items: Items) -> Iterator[Tensor]:
    """`items` one by one."""
    return (item for block in blocks_of(items) for item in block)


def first_network(build: Callable[[], _Network], seed: int, dim: int, device: torch.device) -> _Network:
    """Build a network on `device` whose initial weights depend on `seed` only.

    Args:
        build: Makes the network.
        seed: Of the weights.
        dim: Dimensions of its images, 2 or 3.
        device: Where it is put.
    """
    with torch.random.fork_rng(devices=[]):  # initial weights come from the global generator
        torch.default_generator.manual_seed(seed)
        network = build().to(device)
    # Also if weights are read afterwards, so that trained and cached weights give bit-identical results.
    return network.to(memory_format=torch.channels_last if dim == 2 else torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def draw_batch(
    part: Part, size: int, generator: torch.Generator, device: torch.device, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `size` items of `part` with replacement.

    Args:
        part: Images, labels and annotated classes.
        size: Items in the batch.
        generator: Source of randomness.
        device: Where the batch is put.
        weights: (N,), relative probability of each item; by default uniform.
    """
    if weights is None:
        index = torch.randint(len(part[0]), (size,), generator=generator)
    else:
        index = torch.multinomial(weights.double(), size, replacement=True, generator=generator)
    return part[0][index].to(device), part[1][index].to(device), part[2][index].to(device)


def anneal(optimizer: torch.optim.Optimizer, learning_rate: float, progress: float) -> None:
    """Set the learning rate by cosine annealing: `learning_rate` at `progress` 0, zero at 1."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def digest_of(*parts: str | Items) -> str:
    """A digest of 16 hexadecimal digits that names cached weights; of a tensor the values count, not the shape.

    Weights cached by earlier versions are found by it, so it must not change.
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
    """Hold a lock on the file `kept` while training; waits for another process that trains the same network.

    Does nothing where `kept` is None or cannot be written.
    """
    if kept is None or not is_writable(kept.parent):
        yield
        return
    hint = "Another process is training the same network; wait for it to finish"
    with locked(kept.parent, part=kept.stem, wait_s=_WAIT_S, hint=hint):
        try:
            yield
        finally:
            with suppress(OSError):  # a process that waits for a removed lock looks for it again
                (kept.parent / f".{kept.stem}{LOCK_ENDING}").unlink()


def is_writable(folder: Path) -> bool:
    """Whether files can be written to `folder`, which is created if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def read_weights(path: Path, network: nn.Module) -> bool:
    """Load the weights in `path` into `network`; False if they are missing, damaged or of another architecture."""
    try:
        weights = load_file(path)
    except (SafetensorError, OSError):
        return False
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in network.state_dict().items()}:
        return False
    network.load_state_dict(weights)
    return True


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write `weights` to `path`.

    Raises:
        OutputError: `path` cannot be written.
    """
    with writing(path) as partial:  # as bytes, because safetensors reports a full disk by its own exception
        partial.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))
