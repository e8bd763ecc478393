"""Discriminators of patches, which score whether parts of an image look real."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class Discriminators(nn.Module):
    """MONAI's patch discriminator at several scales: of image and planes, of both at half of the size, and so on.

    Args:
        dim: 2 or 3.
        channels: Of images and planes together.
        size: Of the images.
        width: Channels of the first layer.
        scales: Number of discriminators.
        layers: Of each, at most; small images take fewer.
    """

    def __init__(self, dim: int, channels: int, size: tuple[int, ...], *, width: int, scales: int, layers: int) -> None:
        super().__init__()
        from monai.networks.nets import PatchDiscriminator

        self.scales = nn.ModuleList()
        for scale in range(scales):
            fitting = max(1, min(layers, (min(size) >> scale).bit_length() - 3))
            patches = PatchDiscriminator(
                spatial_dims=dim, channels=width, in_channels=channels, num_layers_d=fitting, norm="INSTANCE"
            )
            for module in list(patches.modules()):
                if isinstance(module, nn.Conv2d | nn.Conv3d):
                    spectral_norm(module)
            self.scales.append(patches)
        self._halved = {2: functional.avg_pool2d, 3: functional.avg_pool3d}[dim]

    def forward(self, images: Tensor, planes: Tensor | None = None) -> list[list[Tensor]]:
        """For each scale the features of each layer, the last of them the scores of the patches."""
        x, found = images if planes is None else torch.cat([images, planes], dim=1), []
        for place, patches in enumerate(self.scales):
            if place:
                x = self._halved(x, 3, stride=2, padding=1, count_include_pad=False)
            found.append(patches(x))
        return found
