"""The denoiser of codes, and the control branch that takes the label map to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from anatogen.baselines.document import BaselineConfig
from anatogen.baselines.latent.autoencoder import GROUPS, Autoencoder, AutoencoderConfig, AutoencoderNetworkSettings
from anatogen.conditioning.encode import Condition
from anatogen.diffusion.path import PATHS, PathName
from anatogen.diffusion.target import TargetName, to_x0
from anatogen.networks.padding import Padding
from anatogen.settings import Settings


class LatentNetworkSettings(Settings):
    """The size of the denoiser of codes; the control branch has its encoder's size.

    Attributes:
        channels: Of its levels, the finest first, multiples of 16.
        blocks: Residual blocks a level.
        attention: Self-attention on the coarsest level.
        control_channels: Of the finest layer that sees the label map; each halving has twice as many.
    """

    channels: tuple[int, ...] = Field((64, 128, 128), min_length=1, max_length=5)
    blocks: int = Field(2, ge=1)
    attention: bool = True
    control_channels: int = Field(32, ge=4)

    @model_validator(mode="after")
    def _in_groups(self) -> LatentNetworkSettings:
        if any(n % GROUPS or n < GROUPS for n in self.channels):
            raise ValueError(f"channels must be multiples of {GROUPS}")
        return self


class LatentConfig(BaselineConfig):
    """All that is needed to build the model.

    Attributes:
        code_mean, code_std: Of the training images' codes, a number for each channel.
    """

    autoencoder: AutoencoderNetworkSettings = AutoencoderNetworkSettings()
    network: LatentNetworkSettings = LatentNetworkSettings()
    path: PathName = "flow"
    target: TargetName = "edm"
    code_mean: tuple[float, ...]
    code_std: tuple[float, ...]


class CodeDenoiser(nn.Module):
    """D(z_t, t, condition) -> z0 of standardised codes: MONAI's `DiffusionModelUNet` with its `ControlNet`.

    The control branch sees the label map at full resolution, and the two are trained together from the start. The U-Net
    itself does not see it, as in the original.
    """

    def __init__(self, config: LatentConfig, code_size: tuple[int, ...], padded: tuple[int, ...]) -> None:
        super().__init__()
        from monai.networks.nets import ControlNet, DiffusionModelUNet

        how, dim = config.network, len(config.size)
        self.config, self.planes = config, config.planes
        halvings = len(how.channels) - 1
        self.codes = Padding(code_size[1:], (1 << halvings,) * dim)
        self.maps = Padding(config.size, (config.autoencoder.factor,) * dim)
        # The label map at full resolution is padded so that its cells meet those of the padded codes.
        self.cells = Padding(padded, tuple(config.autoencoder.factor << halvings for _ in range(dim)))
        shape = {
            "spatial_dims": dim,
            "in_channels": code_size[0],
            "num_res_blocks": how.blocks,
            "channels": how.channels,
            "attention_levels": [*[False] * halvings, how.attention],
            "norm_num_groups": GROUPS,
            "num_head_channels": how.channels[-1] // 2,
        }
        self.unet = DiffusionModelUNet(out_channels=code_size[0], **shape)
        levels = len(config.autoencoder.channels)
        self.control = ControlNet(
            conditioning_embedding_in_channels=self.planes.count,
            conditioning_embedding_num_channels=[how.control_channels << level for level in range(levels)],
            **shape,
        )
        self.path = PATHS[config.path]()

    def under(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """The denoiser with its condition bound: (z_t, t) -> z0."""
        bound = condition.resized(self.maps.pad).resized(self.cells.pad)
        planes = self.planes(bound.labels, bound.states, bound.region)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            z, times = self.codes.pad(z_t), 1000 * t
            down, middle = self.control(z, times, planes.to(z.dtype))
            made = self.unet(z, times, down_block_additional_residuals=down, mid_block_additional_residual=middle)
            prediction = self.codes.crop(made).float()
            return to_x0(self.config.target, self.path, z_t, prediction, t, mean=0.0, std=1.0)

        return denoise


class LatentNetwork(nn.Module):
    """Autoencoder and denoiser of codes."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(
            AutoencoderConfig(image_channels=config.image_channels, size=config.size, network=config.autoencoder)
        )
        self.denoiser = CodeDenoiser(config, self.autoencoder.code_size, self.autoencoder.padding.padded)
        self.mean: Tensor
        self.std: Tensor
        shape = (1, -1, *(1,) * len(config.size))
        self.register_buffer("mean", torch.tensor(config.code_mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(config.code_std).reshape(shape), persistent=False)

    def decode(self, codes: Tensor) -> Tensor:
        """Images (B, C, *size) in [-1, 1] of standardised codes."""
        return self.autoencoder.decode(codes * self.std + self.mean).clamp(-1, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images through the autoencoder alone."""
        return self.autoencoder.decode(self.autoencoder.encode(images)[0]).clamp(-1, 1)
