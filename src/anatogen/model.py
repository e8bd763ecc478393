"""The denoiser: a network, a path, a target and an encoding, behind one contract, D(x_t, t, condition) -> x0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anatogen.conditioning.encode import Condition, Encoding, Planes
from anatogen.diffusion.path import PATHS, PathName
from anatogen.diffusion.target import ASSUMED_MEAN, ASSUMED_STD, TargetName, to_x0
from anatogen.errors import ModelError
from anatogen.files import writing
from anatogen.labels import LabelClass, LabelSchema
from anatogen.networks.contract import Network, PlaneNetwork
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.padding import Padding
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig

NetworkConfig = Annotated[HourglassConfig | PaperUNetConfig, Field(discriminator="name")]
_FORMAT = 1


class DenoiserConfig(BaseModel):
    """All that is needed to build a denoiser.

    Attributes:
        classes: (name, colour) of the classes 1..C-1.
        size: (H, W) or (D, H, W).
        data_mean, data_std: of the training images in [-1, 1], one number for each channel, or one for all; see `to_x0`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_channels: int = Field(ge=1)
    size: tuple[int, ...] = Field(min_length=2, max_length=3)
    classes: tuple[tuple[str, str], ...]
    encoding: Encoding = "onehot"
    path: PathName = "flow"
    target: TargetName = "edm"
    data_mean: tuple[float, ...] = (ASSUMED_MEAN,)
    data_std: tuple[Annotated[float, Field(gt=0)], ...] = (ASSUMED_STD,)
    network: NetworkConfig = HourglassConfig()

    @model_validator(mode="after")
    def _a_number_for_each_channel(self) -> DenoiserConfig:
        if not {len(self.data_mean), len(self.data_std)} <= {1, self.image_channels}:
            raise ValueError(f"data_mean and data_std want one number for each of the {self.image_channels} channels")
        return self

    @property
    def schema_of_labels(self) -> LabelSchema:
        """The classes of the label maps that it takes."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))


class Denoiser(nn.Module):
    """D(x_t, t, condition) -> x0. Raises SettingsError where network and image size do not fit together."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.schema = config.schema_of_labels
        self.path = PATHS[config.path]()
        # Known from the configuration, and thus no part of the weights.
        self.data_mean: Tensor
        self.data_std: Tensor
        self.register_buffer("data_mean", torch.tensor(config.data_mean), persistent=False)  # (C or 1,)
        self.register_buffer("data_std", torch.tensor(config.data_std), persistent=False)
        planes = Planes(config.encoding, self.schema.count)
        if isinstance(config.network, HourglassConfig):
            self.network: Network = Hourglass(config.network, config.image_channels, planes, config.size)
        else:
            self.network = PaperUNet(config.network, config.image_channels, planes, config.size)
        self.padding = Padding(config.size, self.network.multiples)

    def placed(self, device: torch.device) -> Denoiser:
        """This denoiser on `device`, its weights in the memory format that convolutions are quickest in."""
        self.memory_format = torch.channels_last if len(self.config.size) == 2 else torch.channels_last_3d
        self.to(device)
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return self

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The image x0 (B, C, *spatial), expected from x_t (B, C, *spatial) at times t (B,) under `condition`."""
        return self.under(condition)(x_t, t)

    def under(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """This denoiser with its condition bound and encoded once, as solvers want it: (x_t, t) -> x0.

        The network sees images of any size padded to what it takes; they are given back at their own.
        """
        bound = condition.resized(self.padding.pad)
        of_data = [v.reshape(-1, *(1,) * len(self.config.size)) for v in (self.data_mean, self.data_std)]
        parts = (bound.labels, bound.states, bound.region, bound.vector)
        ready = {"planes": self.network.planes(*parts[:3])} if isinstance(self.network, PlaneNetwork) else {}

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            prediction = self.network(self.padding.pad(x_t), t, *parts, **ready)
            prediction = self.padding.crop(prediction).float()
            return to_x0(self.config.target, self.path, x_t, prediction, t, mean=of_data[0], std=of_data[1])

        return denoise


def save_denoiser(folder: FilePath, config: DenoiserConfig, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write model.safetensors and model.json to `folder`. about: what else is known of the model (steps, data, version)."""
    with writing(folder / "model.safetensors") as path:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}, path)
    description = {"format": _FORMAT, "denoiser": config.model_dump(mode="json"), "about": about}
    with writing(folder / "model.json") as path:
        path.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def load_denoiser(folder: FilePath) -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser in the run `folder`, in evaluation mode, and what is known of it.

    Raises ModelError where there is none, or where it is damaged.
    """
    if not folder.is_dir():
        raise ModelError("there is no such run", path=folder, hint="Make one with: anatogen train DATASET --out RUN")
    if not (folder / "model.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ModelError(
            "holds no model (model.json and model.safetensors)",
            path=folder,
            hint="Name the folder that anatogen train wrote, or train again",
        )
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        denoiser = Denoiser(DenoiserConfig.model_validate(description["denoiser"]))
        denoiser.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the model is damaged or of another version ({reason})", path=folder, hint="Train it again"
        ) from error
    return denoiser.eval().requires_grad_(False), description["about"]
