"""The paper's network: diffusers' UNet2DModel with the mask as input channels (Konz et al. 2024, Appendix A)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from anatogen.errors import SettingsError
from anatogen.networks.contract import PlaneMaker, PlaneNetwork


class PaperUNetConfig(BaseModel):
    """The settings of a UNet2DModel.

    Attributes:
        channels: Output channels of each level (by default the paper's six). The last level but one has self-attention.
        layers_per_block: Residual layers of each level.
        options: Further arguments of UNet2DModel by diffusers' names, over the paper's: block types, attention, norm.
            `import` fills them from a checkpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["paper_unet"] = "paper_unet"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field((128, 128, 256, 256, 512, 512), min_length=1)
    layers_per_block: int = Field(2, ge=1)
    options: dict[str, Any] = {}

    def arguments(self) -> dict[str, Any]:
        """The arguments of UNet2DModel except the size and channels of the image."""
        attends = [level == len(self.channels) - 2 for level in range(len(self.channels))]
        paper = {
            "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        }
        return {
            **paper,
            **self.options,
            "layers_per_block": self.layers_per_block,
            "block_out_channels": self.channels,
        }


class PaperUNet(PlaneNetwork):
    """x (B, C, H, W), t (B,) and the planes of the condition -> prediction (B, C, H, W).

    Step k of diffusers is at t = (k + 1) / 1000.

    Raises:
        SettingsError: diffusers rejects the settings, or the images are 3D.
    """

    def __init__(self, config: PaperUNetConfig, image_channels: int, maker: PlaneMaker, size: tuple[int, ...]) -> None:
        super().__init__(maker)
        from diffusers import UNet2DModel

        if len(size) != 2:
            shape = " x ".join(map(str, size))
            raise SettingsError(f"paper_unet takes 2D images, not {shape}", hint="Use network.name=hourglass")
        groups = config.options.get("norm_num_groups", 32)
        uneven = [n for n in config.channels if n % groups]
        if uneven:
            nearest = max(1, round(uneven[0] / groups)) * groups
            raise SettingsError(
                f"network.channels: {uneven[0]} is not a multiple of {groups}, the number of normalisation groups",
                hint=f"The nearest valid value is {nearest}",
            )
        self._image_channels = image_channels
        self.multiples = (2 ** (len(config.channels) - 1),) * 2
        try:
            self.unet = UNet2DModel(
                sample_size=size,
                in_channels=image_channels + maker.count,
                out_channels=image_channels,
                **config.arguments(),
            )
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:160]
            raise SettingsError(f"diffusers cannot build a UNet2DModel with these settings ({reason})") from error

    def plane_inputs(self) -> dict[str, tuple[int, int]]:
        """See `PlaneNetwork`."""
        return {"unet.conv_in.weight": (self._image_channels, 1)}

    def predict(self, x: Tensor, t: Tensor, planes: Tensor, vector: Tensor | None = None) -> Tensor:  # noqa: ARG002
        step = torch.round(t.float() * 1000 - 1, decimals=3)  # 0.981 is not a float32, step 980 is
        prediction: Tensor = self.unet(torch.cat([x, planes], dim=1), step).sample
        return prediction
