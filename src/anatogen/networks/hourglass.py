"""The default network: a lossless stem, a convolutional hourglass with thin top levels, attention at low resolution.

As in simple diffusion (Hoogeboom et al. 2023) most of the work is done at low resolution. The label map enters with the
noisy image and again at every decoder level, as a scale and shift (as in SPADE).
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from anatogen.networks.blocks import (
    Attention,
    ResidualBlock,
    TimeEmbedding,
    convolution,
    depth_to_space,
    space_to_depth,
    zeroed,
)
from anatogen.networks.contract import PlaneMaker, PlaneNetwork
from anatogen.networks.embedding import LabelEmbedding


class HourglassConfig(BaseModel):
    """The size of the hourglass.

    Attributes:
        width: Channels of the level of 32 pixels; finer levels have fewer, coarser ones more. It scales the network.
        patch: The stem turns patch x patch pixels into channels.
        blocks: Residual blocks per level, in the encoder and in the decoder.
        smallest: The hourglass halves the image until its longest side is at most this many pixels.
        attention_up_to: Levels of at most this many pixels a side have self-attention.
        label_channels: Features of a cell of the label map, with the encoding "embedding".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["hourglass"] = "hourglass"
    width: int = Field(64, ge=8, multiple_of=8)
    patch: int = Field(2, ge=1)
    blocks: int = Field(2, ge=1)
    smallest: int = Field(8, ge=2)
    attention_up_to: int = Field(8, ge=0)
    label_channels: int = Field(32, ge=1)


def level_channels(width: int, pixels: int) -> int:
    """Channels of a level whose longest side is `pixels`: 1/2, 3/4, 1, 2, 3, 4 times width at 128, 64, 32, 16, 8, 4."""
    for limit, factor in ((4, 4.0), (8, 3.0), (16, 2.0), (32, 1.0), (64, 0.75)):
        if pixels <= limit:
            return int(width * factor)
    return width // 2


class Stage(nn.Module):
    """The residual blocks of one level of the encoder (planes = 0) or the decoder."""

    def __init__(self, dim: int, channels: int, time_channels: int, blocks: int, planes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(dim, channels, time_channels, planes) for _ in range(blocks))

    def forward(self, h: Tensor, time: Tensor, planes: Tensor | None = None) -> Tensor:
        for block in self.blocks:
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
    """

    def __init__(
        self,
        config: HourglassConfig,
        image_channels: int,
        maker: PlaneMaker | None,
        size: tuple[int, ...],
        *,
        classes: int = 0,
    ) -> None:
        dim = len(size)
        embedding = None
        if maker is None:
            embedding = maker = LabelEmbedding(classes, config.patch, dim, config.label_channels)
        super().__init__(maker)
        planes = self.planes.count
        sides = [-(-max(size) // config.patch)]  # of the padded image, once the number of levels is known
        while sides[-1] > config.smallest:
            sides.append(-(-sides[-1] // 2))
        sides = [sides[-1] * 2**level for level in reversed(range(len(sides)))]
        self.multiples = (config.patch * 2 ** (len(sides) - 1),) * dim
        self.patch, per_patch = config.patch, config.patch**dim
        self._stem_inputs = (image_channels, per_patch)
        channels = [level_channels(config.width, side) for side in sides]
        time_channels = 4 * config.width
        self.time = TimeEmbedding(time_channels)
        inputs = image_channels if embedding is not None else image_channels + planes
        self.stem = convolution(dim, inputs * per_patch, channels[0])
        self.stem_map = convolution(dim, planes, channels[0], kernel=1) if embedding is not None else None

        def stage(level: int, planes: int) -> nn.Module:
            return Stage(dim, channels[level], time_channels, config.blocks, planes)

        def attention(level: int) -> nn.Module:
            return Attention(dim, channels[level]) if sides[level] <= config.attention_up_to else nn.Identity()

        levels = range(len(sides))
        self.down = nn.ModuleList(stage(i, planes=0) for i in levels)
        self.shrink = nn.ModuleList(convolution(dim, a, b, kernel=2, stride=2) for a, b in itertools.pairwise(channels))
        self.attend = nn.ModuleList(attention(i) for i in levels)
        self.grow = nn.ModuleList(convolution(dim, b, a, kernel=1) for a, b in itertools.pairwise(channels))
        self.up = nn.ModuleList(stage(i, planes) for i in levels)
        self.head = zeroed(convolution(dim, channels[0], image_channels * per_patch))

    def plane_inputs(self) -> dict[str, tuple[int, int]]:
        """See `PlaneNetwork`."""
        if self.stem_map is not None:
            return {}
        of_maps = [name for name, _ in self.named_parameters() if name.endswith("from_map.weight")]
        return {"stem.weight": self._stem_inputs, **dict.fromkeys(of_maps, (0, 1))}

    def predict(self, x: Tensor, t: Tensor, planes: Tensor) -> Tensor:
        time = functional.silu(self.time(t))
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
                pooled.append(_area_pool(pooled[-1], 2))
        for level in reversed(range(len(self.up))):
            h = self.attend[level](h)
            h = self.up[level](h, time, pooled[level])
            if level > 0:
                h = skips.pop() + functional.interpolate(self.grow[level - 1](h), scale_factor=2.0, mode="nearest")
        return depth_to_space(self.head(h), self.patch)


def _area_pool(planes: Tensor, factor: int) -> Tensor:
    if planes.shape[1] == 0:  # the unconditional model
        return planes
    return (functional.avg_pool2d if planes.ndim == 4 else functional.avg_pool3d)(planes, factor)
