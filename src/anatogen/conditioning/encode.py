"""Conditions, and their encodings as input planes for networks that need planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Encoding = Literal["embedding", "onehot", "index", "none"]


@dataclass(frozen=True)
class Condition:
    """What the denoiser sees besides the noisy image.

    Attributes:
        labels: int64 (B, *spatial), 0 background, 1..C-1 classes; free classes are 0, which `of` ensures.
        states: bool (B, R, C-1), True if the class is given; a row for each region.
        region: uint8 (B, *spatial), the row of `states` that applies at a pixel; None if R = 1.
        vector: float32 (B, V) of attributes, zeros where unknown; None if there are none.
        origin: int64 (B, d), where labels are a crop: its first voxel in the whole; None for the whole.
    """

    labels: Tensor
    states: Tensor
    region: Tensor | None = None
    vector: Tensor | None = None
    origin: Tensor | None = None

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or len(self.states) != len(self.labels):
            raise ValueError(f"states must be (B, R, C-1) with B = {len(self.labels)}, got {tuple(self.states.shape)}")
        if (self.region is None) != (self.states.shape[1] == 1):
            raise ValueError(
                "region selects among several rows of states, so it is required with R > 1 and not allowed with R = 1"
            )
        if self.region is not None and self.region.shape != self.labels.shape:
            raise ValueError(
                f"region must have the shape of labels {tuple(self.labels.shape)}, got {tuple(self.region.shape)}"
            )

    @classmethod
    def of(
        cls,
        labels: Tensor,
        given: Tensor,
        region: Tensor | None = None,
        vector: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> Condition:
        """The condition of complete label maps: free classes are removed from them.

        Args:
            labels: int64 (B, *spatial), free classes included.
            given: bool (B, C-1) for the whole image, or (B, R, C-1) with a row for each region.
            region: uint8 (B, *spatial), if R > 1.
            vector: float32 (B, V).
            origin: int64 (B, d), of crops.
        """
        states = given if given.ndim == 3 else given[:, None]
        # Look up each pixel's class in the table of states; the background counts as given.
        table = functional.pad(states, (1, 0), value=True)  # (B, R, C)
        place = labels if region is None else region.long() * table.shape[2] + labels
        visible = table.flatten(1).gather(1, place.flatten(1)).reshape(labels.shape)  # (B, *spatial)
        return cls(torch.where(visible, labels, 0), states, region, vector, origin)

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on `device`."""
        others = (self.region, self.vector, self.origin)
        region, vector, origin = (None if part is None else part.to(device) for part in others)
        return Condition(self.labels.to(device), self.states.to(device), region, vector, origin)

    def without_attributes(self) -> Condition:
        """The same condition with every attribute unknown."""
        return replace(self, vector=None if self.vector is None else torch.zeros_like(self.vector))

    def leaving_free(self, classes: Sequence[int] | None = None) -> Condition:
        """The same condition with `classes` (of 1..C-1) free, in every region; with all of them, by default."""
        states = self.states.clone()
        states[:, :, slice(None) if classes is None else [index - 1 for index in classes]] = False
        return Condition.of(self.labels, states, self.region, self.vector, self.origin)

    def resized(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `change`: (B, *spatial) -> (B, *other) applied to labels and region."""
        region = None if self.region is None else change(self.region)
        return Condition(change(self.labels), self.states, region, self.vector, self.origin)


@dataclass(frozen=True)
class Planes:
    """The encoding of a condition as float32 planes (B, count, *spatial) for `class_count` = C classes.

    `onehot`: C-1 planes that are 1 where a given class is, then C-1 planes that are 1 where the class is given
    (constant without regions). A class that is given but absent thus differs from a free class. `index`: one plane,
    label/255, free classes 0, as in the paper; absent, free and background are the same. `none`: no planes, for the
    unconditional model. (`embedding` makes no planes: the network has a `LabelEmbedding`.)
    """

    encoding: Encoding
    class_count: int

    @property
    def count(self) -> int:
        """The number of planes."""
        return {"onehot": 2 * (self.class_count - 1), "index": 1, "none": 0, "embedding": 0}[self.encoding]

    def __call__(self, labels: Tensor, states: Tensor, region: Tensor | None = None) -> Tensor:
        """The planes of a condition's `labels`, `states` and `region`."""
        spatial = labels.shape[1:]
        if self.encoding == "none":
            return torch.zeros(labels.shape[0], 0, *spatial, device=labels.device)
        if self.encoding == "index":
            return (labels.float() / 255).unsqueeze(1)
        onehot = functional.one_hot(labels, self.class_count)[..., 1:].movedim(-1, 1).float()
        batch, _, classes = states.shape
        by_region = states.float().transpose(1, 2)  # (B, C-1, R)
        if region is None:
            given = by_region.reshape(batch, classes, *(1,) * len(spatial)).expand(batch, classes, *spatial)
        else:
            index = region.long().flatten(1)[:, None].expand(batch, classes, -1)
            given = by_region.gather(2, index).reshape(batch, classes, *spatial)
        return torch.cat([onehot, given], dim=1)


def encode(condition: Condition, encoding: Encoding, class_count: int) -> Tensor:
    """The planes of a whole condition; see `Planes`."""
    return Planes(encoding, class_count)(condition.labels, condition.states, condition.region)
