"""The default network: a lossless stem, a convolutional hourglass with thin top levels, attention at low resolution.

As in simple diffusion (Hoogeboom et al. 2023) most of the work is done at low resolution. The label map enters with the
noisy image and again at every decoder level, as a scale and shift (as in SPADE).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from anatogen.errors import SettingsError
from anatogen.networks.blocks import (
    Attention,
    ResidualBlock,
    TimeEmbedding,
    convolution,
    depth_to_space,
    shrinking,
    space_to_depth,
    zeroed,
)
from anatogen.networks.contract import PlaneMaker, PlaneNetwork
from anatogen.networks.embedding import LabelEmbedding
from anatogen.networks.levels import Factors, Levels, cubic_levels, level_channels, levels_of

Side = Annotated[int, Field(ge=1)]
_VECTOR_GAIN = 8.0
"""The map of the attributes is learned that much faster than other weights. It starts at zero and matters most at the
highest noise, which training meets rarely: without it, a toy set's two contrasts were mixed up after 400 steps."""


class HourglassConfig(BaseModel):
    """The size of the hourglass.

    Attributes:
        width: Channels of the level of 32 pixels; finer levels have fewer, coarser ones more. It scales the network.
        patch: The stem turns so many pixels a side into channels; a number for all axes or one for each.
        blocks: Residual blocks per level, in the encoder and in the decoder; a number for all levels or one for each.
        smallest: The hourglass halves the image until its longest side is at most this many pixels.
        attention_up_to: Levels of at most this many pixels a side have self-attention.
        label_channels: Features of a cell of the label map, with the encoding "embedding".
        halvings: From each level to the next, 2 for the axes that are halved and 1 for the others, such as [[1, 2, 2],
            [2, 2, 2]]; planned for volumes. None: every axis is halved.
        channels: Of each level, the finest first; planned for volumes. None: as `width` has them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["hourglass"] = "hourglass"
    width: int = Field(64, ge=8, multiple_of=8)
    patch: Side | tuple[Side, ...] = 2
    blocks: Side | tuple[Side, ...] = 2
    smallest: int = Field(8, ge=2)
    attention_up_to: int = Field(8, ge=0)
    label_channels: int = Field(32, ge=1)
    halvings: tuple[tuple[Literal[1, 2], ...], ...] | None = None
    channels: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] | None = None

    def levels(self, size: tuple[int, ...]) -> Levels:
        """The levels for images of `size`.

        Raises:
            SettingsError: A value has not one entry for each axis or level.
        """
        dim = len(size)
        patch = self.patch if isinstance(self.patch, tuple) else (self.patch,) * dim
        if len(patch) != dim or any(len(factors) != dim for factors in self.halvings or ()):
            raise SettingsError(
                f"network.patch and network.halvings need {dim} numbers, one for each axis of the image"
            )
        if self.halvings is None:
            return cubic_levels(size, patch, self.smallest)
        return levels_of(size, patch, self.halvings)

    def channels_of(self, levels: Levels) -> tuple[int, ...]:
        """The channels of each level. Raises SettingsError where `channels` are not so many."""
        if self.channels is None:
            return tuple(level_channels(self.width, side) for side in levels.sides)
        return self._one_a_level(self.channels, levels, "channels")

    def blocks_of(self, levels: Levels) -> tuple[int, ...]:
        """The residual blocks of each level. Raises SettingsError where `blocks` are not so many."""
        if isinstance(self.blocks, int):
            return (self.blocks,) * len(levels.sides)
        return self._one_a_level(self.blocks, levels, "blocks")

    def _one_a_level(self, values: tuple[int, ...], levels: Levels, name: str) -> tuple[int, ...]:
        if len(values) != len(levels.sides):
            sides = ", ".join(map(str, levels.sides))
            raise SettingsError(
                f"network.{name} has {len(values)} numbers for {len(levels.sides)} levels",
                hint=f"Give one for each level; the longest sides are {sides}",
            )
        return values


class Stage(nn.Module):
    """The residual blocks of one level of the encoder (planes = 0) or the decoder."""

    def __init__(self, dim: int, channels: int, time_channels: int, blocks: int, planes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(dim, channels, time_channels, planes) for _ in range(blocks))
        self.recomputed = False

    def forward(self, h: Tensor, time: Tensor, planes: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            if self.recomputed and torch.is_grad_enabled():
                h = checkpoint(block, h, time, planes, use_reentrant=False)
            else:
                h = block(h, time, planes)
        return h


class Hourglass(PlaneNetwork):
    """x (B, C, *spatial), t (B,) and the planes of the condition -> prediction (B, C, *spatial), for 2D and 3D.

    Args:
        config: The size of the network.
        image_channels: C.
        maker: Makes the planes; None for an embedding of the label map, which is learned.
        classes: C, the background included; for the embedding.
        size: Of the images, (H, W) or (D, H, W); the network takes them padded to `multiples`.
        coordinates: Further channels of x, after those of the image, that are seen and not predicted.
        attributes: V, the length of the vector of attributes, which is added to the embedding of the time; an unknown
            attribute, zeros in the vector, adds nothing.

    Raises:
        SettingsError: `config` does not fit images of that size.
    """

    def __init__(
        self,
        config: HourglassConfig,
        image_channels: int,
        maker: PlaneMaker | None,
        size: tuple[int, ...],
        *,
        classes: int = 0,
        coordinates: int = 0,
        attributes: int = 0,
    ) -> None:
        dim, levels = len(size), config.levels(size)
        embedding = None
        if maker is None:
            embedding = maker = LabelEmbedding(classes, levels.patch, config.label_channels)
        super().__init__(maker)
        planes = self.planes.count
        self.multiples, self.patch, self.halvings = levels.multiples, levels.patch, levels.halvings
        per_patch = math.prod(self.patch)
        seen = image_channels + coordinates
        self._stem_inputs = (seen, per_patch)
        channels, blocks = config.channels_of(levels), config.blocks_of(levels)
        time_channels = 4 * config.width
        self.time = TimeEmbedding(time_channels)
        inputs = seen if embedding is not None else seen + planes
        self.stem = convolution(dim, inputs * per_patch, channels[0])
        self.stem_map = convolution(dim, planes, channels[0], kernel=1) if embedding is not None else None

        def stage(level: int, planes: int) -> Stage:
            return Stage(dim, channels[level], time_channels, blocks[level], planes)

        def attention(level: int) -> nn.Module:
            near = levels.sides[level] <= config.attention_up_to
            return Attention(dim, channels[level]) if near else nn.Identity()

        places, pairs = range(len(channels)), list(itertools.pairwise(channels))
        self.down = nn.ModuleList(stage(i, planes=0) for i in places)
        self.shrink = nn.ModuleList(
            shrinking(a, b, factors) for (a, b), factors in zip(pairs, self.halvings, strict=True)
        )
        self.attend = nn.ModuleList(attention(i) for i in places)
        self.grow = nn.ModuleList(convolution(dim, b, a, kernel=1) for a, b in pairs)
        self.up = nn.ModuleList(stage(i, planes) for i in places)
        self.head = zeroed(convolution(dim, channels[0], image_channels * per_patch))
        self.vector_size = attributes
        self.from_vector = zeroed(nn.Linear(attributes, time_channels, bias=False)) if attributes else None

    def recompute(self, wanted: bool) -> None:
        """Whether training computes activations again in the backward pass instead of keeping them."""
        for stage in (*self.down, *self.up):
            stage.recomputed = wanted

    def hidden_matrices(self) -> Iterator[Tensor]:
        """The weights between features of the network, without those that images, maps, times and attributes enter
        and images leave by.
        """
        for name, module in self.named_modules():
            outer = name.startswith(("stem", "head", "time", "planes", "from_vector")) or name.endswith("from_time")
            if not outer and isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                yield module.weight

    def plane_inputs(self) -> dict[str, tuple[int, int]]:
        """See `PlaneNetwork`."""
        if self.stem_map is not None:
            return {}
        of_maps = [name for name, _ in self.named_parameters() if name.endswith("from_map.weight")]
        return {"stem.weight": self._stem_inputs, **dict.fromkeys(of_maps, (0, 1))}

    def predict(self, x: Tensor, t: Tensor, planes: Tensor, vector: Tensor | None = None) -> Tensor:
        embedded = self.time(t)
        if self.from_vector is not None and vector is not None:
            embedded = embedded + _VECTOR_GAIN * self.from_vector(vector)
        time = functional.silu(embedded)
        if self.stem_map is not None:
            h = self.stem(space_to_depth(x, self.patch)) + self.stem_map(planes)
            pooled = [planes]
        else:
            h = self.stem(space_to_depth(torch.cat([x, planes], dim=1), self.patch))
            pooled = [_area_pool(planes, self.patch)]
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            h = stage(h, time)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
                pooled.append(_area_pool(pooled[-1], self.halvings[level]))
        for level in reversed(range(len(self.up))):
            h = self.attend[level](h)
            h = self.up[level](h, time, pooled[level])
            if level > 0:
                h = skips.pop() + _repeated(self.grow[level - 1](h), self.halvings[level - 1])
        return depth_to_space(self.head(h), self.patch)


def _area_pool(planes: Tensor, factors: Factors) -> Tensor:
    if planes.shape[1] == 0:  # the unconditional model
        return planes
    return (functional.avg_pool2d if planes.ndim == 4 else functional.avg_pool3d)(planes, factors)


def _repeated(h: Tensor, factors: Factors) -> Tensor:
    return functional.interpolate(h, scale_factor=tuple(map(float, factors)), mode="nearest")
