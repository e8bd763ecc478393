"""The paper's network: diffusers' UNet2DModel with the mask as further input channels (Konz et al. 2024, Appendix A)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from anatogen.errors import SettingsError


class PaperUNetConfig(BaseModel):
    """channels: output channels of each level (the paper's six). The last level but one has self-attention."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["paper_unet"] = "paper_unet"
    channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    layers_per_block: int = 2


class PaperUNet(nn.Module):
    """x (B, C, H, W), t (B,), planes (B, P, H, W) -> prediction (B, C, H, W). Step k of diffusers is t = (k + 1) / 1000."""

    def __init__(self, config: PaperUNetConfig, image_channels: int, planes: int, size: tuple[int, ...]) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        levels = len(config.channels)
        if len(size) != 2 or levels < 2 or any(side % 2 ** (levels - 1) for side in size):
            raise SettingsError(
                f"paper_unet of {levels} levels takes 2D images whose sides are multiples of {2 ** (levels - 1)}, not {size}",
                hint="Set network.channels to fewer levels (at least two), or use network.name=hourglass",
            )
        attends = [level == levels - 2 for level in range(levels)]
        self.unet = UNet2DModel(
            sample_size=size,
            in_channels=image_channels + planes,
            out_channels=image_channels,
            layers_per_block=config.layers_per_block,
            block_out_channels=config.channels,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        )

    def forward(self, x: Tensor, t: Tensor, planes: Tensor) -> Tensor:
        step = torch.round(t.float() * 1000 - 1, decimals=3)  # 0.981 is no float32, step 980 is
        prediction: Tensor = self.unet(torch.cat([x, planes], dim=1), step).sample
        return prediction
