"""What trainings of the judges (segmenter and encoder) have in common: first weights, batches, learning rate, kept weights."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from anatogen.files import writing

Part = tuple[Tensor, Tensor, Tensor]
"""Images (N, C, *spatial) in [-1, 1], labels (N, *spatial), -1 where unknown, annotated (N, class_count - 1)."""

_Network = TypeVar("_Network", bound=nn.Module)


def first_network(build: Callable[[], _Network], seed: int, dim: int, device: torch.device) -> _Network:
    """What `build` makes, on `device`, its first weights by `seed` alone. dim: of its images, 2 or 3."""
    with torch.random.fork_rng(devices=[]):  # first weights come from the global generator
        torch.default_generator.manual_seed(seed)
        network = build().to(device)
    # Also where weights are read afterwards, so that trained and read ones compute alike to the last bit.
    return network.to(memory_format=torch.channels_last if dim == 2 else torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def draw_batch(
    part: Part, size: int, generator: torch.Generator, device: torch.device, weights: Tensor | None = None
) -> Part:
    """`size` items of `part`, with repetition, on `device`. weights: (N,), how often each is drawn; without it, all alike."""
    if weights is None:
        index = torch.randint(len(part[0]), (size,), generator=generator)
    else:
        index = torch.multinomial(weights.double(), size, replacement=True, generator=generator)
    images, labels, annotated = (tensor[index].to(device) for tensor in part)
    return images, labels, annotated


def anneal(optimizer: torch.optim.Optimizer, learning_rate: float, progress: float) -> None:
    """Set the learning rate by cosine annealing: `learning_rate` at `progress` 0, nothing at 1."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def digest_of(*parts: str | Tensor) -> str:
    """16 hexadecimal digits that name kept weights. Of a tensor the values count, and not its shape.

    What was kept by earlier versions is found by them, so they must stay what they are.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            digest.update(part.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


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
