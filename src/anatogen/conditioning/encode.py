"""Encodings of a label map and its class states as input planes of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Encoding = Literal["onehot", "index", "none"]


@dataclass(frozen=True)
class Condition:
    """What the denoiser sees besides the noisy image.

    labels: int64 (B, *spatial), 0 background, 1..C-1 classes. states: bool (B, C-1), True where the class is given.
    """

    labels: Tensor
    states: Tensor

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on `device`."""
        return Condition(self.labels.to(device), self.states.to(device))


def plane_count(encoding: Encoding, class_count: int) -> int:
    """How many planes `encode` makes for `class_count` = C classes, the background counted."""
    return {"onehot": 2 * (class_count - 1), "index": 1, "none": 0}[encoding]


def encode(condition: Condition, encoding: Encoding, class_count: int) -> Tensor:
    """The condition as float32 planes (B, P, *spatial), P = plane_count(encoding, class_count).

    `onehot`: C-1 planes, 1 where a given class is; then C-1 constant planes, 1 for the classes that are given.
    A class that is given and nowhere drawn (absent) thus differs from one that is free.
    `index`: one plane, label/255, free classes 0: the paper's, in which absent, free and background are the same.
    `none`: no planes, the unconditional model.
    """
    labels, states = condition.labels, condition.states
    spatial = labels.shape[1:]
    if encoding == "none":
        return torch.zeros(labels.shape[0], 0, *spatial, device=labels.device)
    # Looking each pixel's class up in a table of states: the background counts as given.
    table = functional.pad(states, (1, 0), value=True)  # (B, C)
    given = table.gather(1, labels.flatten(1)).reshape(labels.shape)  # (B, *spatial)
    obeyed = torch.where(given, labels, 0)
    if encoding == "index":
        return (obeyed.float() / 255).unsqueeze(1)
    onehot = functional.one_hot(obeyed, class_count)[..., 1:].movedim(-1, 1).float()
    constant = states.float().reshape(*states.shape, *(1,) * len(spatial)).expand(*states.shape, *spatial)
    return torch.cat([onehot, constant], dim=1)
