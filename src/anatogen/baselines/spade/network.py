"""The networks of SPADE, after the paper (Park et al. 2019, section 3 and appendix A).

MONAI's `SPADENet` is not used for the generator: it normalises the modulation itself once more over each image
(`mlp_gamma` and `mlp_beta` have an instance norm), and its last residual block works at half of the resolution and
gives as many channels as the image has, so that fine structures of the label map never enter. Its `PatchDiscriminator`
is used.
"""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from anatogen.baselines.document import BaselineConfig
from anatogen.conditioning.encode import Condition
from anatogen.networks.blocks import convolution
from anatogen.networks.padding import Padding
from anatogen.settings import Settings

_SMALLEST, _MOST_LEVELS = 4, 6  # pixels of the coarsest level, and halvings at most
_SLOPE = 0.2


class SpadeNetworkSettings(Settings):
    """The size of SPADE's generator. The defaults are the original's.

    Attributes:
        width: Channels of the finest level; each coarser one has twice as many, up to 16 times.
        hidden: Channels between the label map and the modulation.
        encoder: Train an image encoder, and start from its code instead of the label map: images vary with the seed.
            Without it there is one image of a label map.
        code: Numbers in the code.
    """

    width: int = Field(64, ge=4)
    hidden: int = Field(128, ge=4)
    encoder: bool = False
    code: int = Field(256, ge=1)


class SpadeConfig(BaselineConfig):
    """All that is needed to build the generator."""

    network: SpadeNetworkSettings = SpadeNetworkSettings()


def levels_of(size: tuple[int, ...]) -> int:
    """How often the image is halved: until its shortest side has 4 to 7 pixels, at most six times."""
    levels = 1
    while levels < _MOST_LEVELS and min(size) >= _SMALLEST << (levels + 1):
        levels += 1
    return levels


def level_channels(width: int, levels: int) -> list[int]:
    """Channels of the levels, the finest first: 1, 2, 4, 8, 16, 16, ... times the width."""
    return [width * min(16, 1 << level) for level in range(levels + 1)]


@torch.no_grad()
def settle(module: nn.Module, iterations: int = 50) -> None:
    """Bring the spectral norms of `module` up to its weights, by power iterations to convergence.

    Each norm is kept as two singular vectors, which follow the weights of a training step by step. Averaged over steps
    like the weights, they are neither of unit length nor those of the averaged weights: the norms come out too small,
    and the images with too much contrast.
    """
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            norms, training = layer.parametrizations, layer.training
            norms.train()  # type: ignore[operator, union-attr]
            for _ in range(iterations):
                _ = layer.weight  # read in training, takes one iteration
            norms.train(training)  # type: ignore[operator, union-attr]


class Modulation(nn.Module):
    """Spatially-adaptive normalisation: each channel is normalised over the image, then scaled and shifted by the label
    map (Park et al. 2019, Eq. 1). Instance norm, so that an image does not depend on its batch.
    """

    def __init__(self, dim: int, channels: int, planes: int, hidden: int) -> None:
        super().__init__()
        self.shared = convolution(dim, planes, hidden)
        self.scale, self.shift = convolution(dim, hidden, channels), convolution(dim, hidden, channels)

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        """x (B, C, *spatial) under planes (B, P, *spatial)."""
        from_map = functional.relu(self.shared(planes))
        return functional.instance_norm(x) * (1 + self.scale(from_map)) + self.shift(from_map)


class SpadeBlock(nn.Module):
    """A residual block with modulation before every convolution, on the shortcut too where the channels change."""

    def __init__(self, dim: int, channels_in: int, channels_out: int, planes: int, hidden: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.norm1 = Modulation(dim, channels_in, planes, hidden)
        self.norm2 = Modulation(dim, middle, planes, hidden)
        self.conv1 = spectral_norm(convolution(dim, channels_in, middle))
        self.conv2 = spectral_norm(convolution(dim, middle, channels_out))
        self.short: nn.Module | None = None
        if channels_in != channels_out:
            self.norm_short = Modulation(dim, channels_in, planes, hidden)
            self.short = spectral_norm(convolution(dim, channels_in, channels_out, kernel=1))

    def forward(self, x: Tensor, planes: Tensor) -> Tensor:
        """x (B, C_in, *spatial) under planes (B, P, *spatial) -> (B, C_out, *spatial)."""
        h = self.conv1(functional.leaky_relu(self.norm1(x, planes), _SLOPE))
        h = self.conv2(functional.leaky_relu(self.norm2(h, planes), _SLOPE))
        return h + (x if self.short is None else self.short(self.norm_short(x, planes)))


class ImageEncoder(nn.Module):
    """Mean and log variance of an image's code: convolutions of stride 2 with instance norm, then a linear layer."""

    def __init__(self, image_channels: int, size: tuple[int, ...], levels: int, width: int, code: int) -> None:
        super().__init__()
        channels = [image_channels, *(width * min(8, 1 << level) for level in range(levels))]
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
        self.layers = nn.ModuleList(
            spectral_norm(kind(before, after, 3, stride=2, padding=1)) for before, after in itertools.pairwise(channels)
        )
        cells = 1
        for side in size:
            cells *= side >> levels
        self.to_code = nn.Linear(channels[-1] * cells, 2 * code)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (B, code), of images (B, C, *padded)."""
        h = images
        for layer in self.layers:
            h = functional.leaky_relu(functional.instance_norm(layer(h)), _SLOPE)
        mean, log_variance = self.to_code(h.flatten(1)).chunk(2, dim=1)
        return mean, log_variance


class SpadeGenerator(nn.Module):
    """From a label map, and a code where there is an encoder, to an image in [-1, 1]."""

    def __init__(self, config: SpadeConfig) -> None:
        super().__init__()
        self.config, how, dim = config, config.network, len(config.size)
        levels = levels_of(config.size)
        self.padding = Padding(config.size, (1 << levels,) * dim)
        self.planes = config.planes
        channels = level_channels(how.width, levels)
        self._coarsest = tuple(side >> levels for side in self.padding.padded)
        cells = 1
        for side in self._coarsest:
            cells *= side
        self.encoder: ImageEncoder | None = None
        if how.encoder:
            self.encoder = ImageEncoder(config.image_channels, self.padding.padded, levels, how.width, how.code)
            self.start: nn.Module = nn.Linear(how.code, channels[-1] * cells)
        else:
            self.start = convolution(dim, self.planes.count, channels[-1])
        steps = [(channels[-1], channels[-1]), *zip(channels[:0:-1], channels[-2::-1], strict=True)]
        self.blocks = nn.ModuleList(SpadeBlock(dim, a, b, self.planes.count, how.hidden) for a, b in steps)
        self.to_image = convolution(dim, channels[0], config.image_channels)

    def planes_of(self, condition: Condition) -> Tensor:
        """The planes (B, P, *padded) of a condition, padded to what the network takes."""
        bound = condition.resized(self.padding.pad)
        return self.planes(bound.labels, bound.states, bound.region)

    def forward(self, planes: Tensor, code: Tensor | None = None) -> Tensor:
        """Images (B, C, *padded) in [-1, 1].

        Args:
            planes: (B, P, *padded), of `planes_of`.
            code: (B, code), where there is an encoder.
        """
        if self.encoder is None:
            h = self.start(functional.interpolate(planes, size=self._coarsest, mode="nearest"))
        else:
            assert code is not None
            h = self.start(code).reshape(len(planes), -1, *self._coarsest)
        for place, block in enumerate(self.blocks):
            if place:
                h = functional.interpolate(h, scale_factor=2, mode="nearest")
            h = block(h, functional.interpolate(planes, size=h.shape[2:], mode="nearest"))
        return torch.tanh(self.to_image(functional.leaky_relu(h, _SLOPE)))
