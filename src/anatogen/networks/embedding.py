"""Label maps and class states as an embedding of cells, at a cost that does not grow with the number of classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from anatogen.networks.blocks import space_to_depth


class LabelEmbedding(nn.Module):
    """labels (B, *spatial), states (B, R, C-1), region (B, *spatial) -> features (B, channels, *spatial / patch).

    A cell is a patch of pixels. Its features are the sum of a learned vector for the class of each of its
    pixels, and of a linear function of the states that apply to it. Background adds nothing, so that a class which is
    absent differs from a free one by its state alone.

    Args:
        classes: C, the background included.
        patch: The sides of a cell, two or three.
        channels: Of the features.
    """

    def __init__(self, classes: int, patch: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.classes, self.patch, self.channels = classes, patch, channels
        self.cell = math.prod(patch)
        # Row 0 is the background; then the classes at the first pixel of a cell, at the second, and so on.
        self.table = nn.Parameter(torch.empty(1 + self.cell * (classes - 1), channels))
        nn.init.normal_(self.table, std=1 / math.sqrt(self.cell))
        self.of_states = nn.Linear(classes - 1, channels)

    @property
    def count(self) -> int:
        """The number of features."""
        return self.channels

    def forward(self, labels: Tensor, states: Tensor, region: Tensor | None = None) -> Tensor:
        of_labels = self._bag(space_to_depth(labels[:, None], self.patch).movedim(1, -1))  # (B, *cells, channels)
        of_states = self.of_states(states.to(self.of_states.weight.dtype))  # (B, R, channels)
        if region is None:
            of_states = of_states.reshape(len(labels), *(1,) * (labels.ndim - 1), self.channels)
        else:
            of_states = torch.einsum("b...r,brc->b...c", self._shares(region, states.shape[1]), of_states)
        return (of_labels + of_states).movedim(-1, 1)

    def _bag(self, labels: Tensor) -> Tensor:
        """The sum of the vectors of the labels (..., pixels of a cell)."""
        first = 1 + torch.arange(self.cell, device=labels.device) * (self.classes - 1)
        rows = torch.where(labels > 0, first + labels - 1, 0)
        if rows.device.type == "mps":  # has no embedding_bag
            return functional.embedding(rows, self.table, padding_idx=0).sum(-2)
        bags = functional.embedding_bag(rows.flatten(0, -2), self.table, mode="sum", padding_idx=0)
        return bags.reshape(*labels.shape[:-1], self.channels)

    def _shares(self, region: Tensor, count: int) -> Tensor:
        """The share of each region in a cell, (B, *cells, count)."""
        pixels = space_to_depth(region[:, None].long(), self.patch).movedim(1, -1)
        shares = torch.zeros(*pixels.shape[:-1], count, device=region.device, dtype=self.table.dtype)
        return shares.scatter_add_(-1, pixels, torch.full_like(pixels, 1 / self.cell, dtype=shares.dtype))
