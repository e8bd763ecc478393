"""The parts of Stable Diffusion, from a folder that the user has, and how images and label maps enter them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from anatogen.baselines.document import BaselineConfig, read_baseline, with_weights
from anatogen.errors import ModelError, SettingsError
from anatogen.io.tensors import read_tensors
from anatogen.model import RunDocument
from anatogen.networks.padding import Padding

VAE, UNET = "vae", "unet"
PROMPT = "empty_prompt.safetensors"
"""In place of text_encoder and tokenizer: the tensor "prompt", (1, tokens, channels), that they make of no text."""
HINT = (
    "Download stable-diffusion-v1-5 from Hugging Face (the folders vae, unet, scheduler, text_encoder and tokenizer), "
    "and name the folder with --set controlnet.weights=FOLDER"
)
_COLOURS = 3  # channels of Stable Diffusion's images


class PartDocument(RunDocument):
    """model.json of a finetuned part; its weights lie beside it.

    Attributes:
        config: As diffusers has it.
        scheduler: The noise schedule, as diffusers has it.
    """

    HINT: ClassVar[str] = "Train it again"

    kind: Literal["controlnet-vae", "controlnet-unet"]
    config: dict[str, Any]
    scheduler: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class StableDiffusion:
    """VAE, U-Net, the scheduler's settings, and what the text encoder makes of no text, (1, tokens, channels)."""

    vae: Any
    unet: Any
    scheduler: dict[str, Any]
    prompt: Tensor


def load_stable_diffusion(folder: str | None) -> StableDiffusion:
    """The parts in `folder`, in the layout of a diffusers pipeline.

    Raises:
        SettingsError: No folder is named, or it is missing or holds something else; says what to fetch. Or transformers
            is missing, which the text encoder needs.
    """
    if folder is None:
        raise SettingsError("ControlNet needs the weights of Stable Diffusion 1.5", hint=HINT)
    place = Path(folder)
    if not place.is_dir():
        raise SettingsError("holds no weights of Stable Diffusion: it does not exist", path=place, hint=HINT)
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for name in (VAE, UNET, "scheduler"):
        if not (place / name).is_dir():
            problem = f"holds no weights of Stable Diffusion: the folder {name} is missing"
            raise SettingsError(problem, path=place, hint=HINT)
    try:
        vae = AutoencoderKL.from_pretrained(place / VAE, local_files_only=True, low_cpu_mem_usage=False)
        unet = UNet2DConditionModel.from_pretrained(place / UNET, local_files_only=True, low_cpu_mem_usage=False)
        scheduler = json.loads((place / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        prompt = _empty_prompt(place)
    except SettingsError:
        raise
    except Exception as error:  # whatever diffusers and transformers raise for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(f"its weights cannot be read ({reason})", path=place, hint=HINT) from error
    if vae.config.in_channels != _COLOURS:
        raise SettingsError(f"its VAE takes {vae.config.in_channels} channels, not 3", path=place, hint=HINT)
    return StableDiffusion(vae, unet, scheduler, prompt)


def _empty_prompt(place: Path) -> Tensor:
    if (place / PROMPT).is_file():
        return read_tensors(place / PROMPT)["prompt"].float()
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        hint = 'Install it with: pip install "anatogen[controlnet]"'
        raise SettingsError("the text encoder of Stable Diffusion needs transformers", hint=hint) from error
    tokenizer = CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True)
    encoder = CLIPTextModel.from_pretrained(place / "text_encoder", local_files_only=True).eval()
    tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        return encoder(tokens.input_ids)[0].float()


def require_trainable(channels: int, size: tuple[int, ...]) -> None:
    """Raises SettingsError for images that Stable Diffusion cannot take: volumes, and others than gray or RGB."""
    if len(size) != 2:
        raise SettingsError("ControlNet makes slices only", hint="Prepare the data with --dim 2")
    if channels not in (1, _COLOURS):
        raise SettingsError(
            f"ControlNet takes images of 1 or 3 channels, not {channels}",
            hint="Use the model denoiser, spade or latent",
        )


def read_part(stage: Path) -> tuple[PartDocument, Any]:
    """A finetuned part in the folder of its stage, and its document. Raises ModelError where it is missing."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    document = read_baseline(PartDocument, stage)
    kind: Any = AutoencoderKL if document.kind == "controlnet-vae" else UNet2DConditionModel
    return document, with_weights(kind.from_config(document.config), stage)


def plain_config(part: Any) -> dict[str, Any]:
    """The settings of a diffusers model as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps({k: v for k, v in part.config.items() if not k.startswith("_")}))
    return found


class ControlnetConfig(BaselineConfig):
    """What the control branch is built for, besides the parts in the run's stages.

    Attributes:
        control: Of diffusers' `ControlNetModel`.
    """

    control: dict[str, Any]


class Frame:
    """Images of any size and 1 or 3 channels as the VAE takes them, and codes as the U-Net does.

    Args:
        size: Of the images.
        vae, unet: Of diffusers.
    """

    def __init__(self, size: tuple[int, ...], vae: Any, unet: Any) -> None:
        self.factor = 1 << (len(vae.config.block_out_channels) - 1)
        multiple = self.factor << (len(unet.config.block_out_channels) - 1)
        self.padding = Padding(size, (multiple,) * len(size))
        self.scale = float(vae.config.scaling_factor)
        self.channels = int(vae.config.latent_channels)

    @property
    def code_size(self) -> tuple[int, ...]:
        """(K, h, w) of a code."""
        return self.channels, *(side // self.factor for side in self.padding.padded)

    def images(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) -> (B, 3, *padded)."""
        return self.padding.pad(images).expand(-1, _COLOURS, -1, -1)

    def back(self, images: Tensor, channels: int) -> Tensor:
        """(B, 3, *padded) -> (B, 1 or 3, H, W); gray is the mean of the colours."""
        cropped = self.padding.crop(images)
        return cropped if channels == _COLOURS else cropped.mean(1, keepdim=True)


def noise_levels(scheduler: Mapping[str, Any]) -> Tensor:
    """alpha-bar of the schedule's steps, (steps,), by diffusers' DDPMScheduler."""
    from diffusers import DDPMScheduler

    found: Tensor = DDPMScheduler.from_config(dict(scheduler)).alphas_cumprod
    return found


def checked_steps(scheduler: Mapping[str, Any], stage: Path) -> None:
    """Raises ModelError for a schedule whose U-Net predicts something other than the noise."""
    if (kind := scheduler.get("prediction_type", "epsilon")) != "epsilon":
        raise ModelError(f"its U-Net predicts '{kind}', not the noise", path=stage, hint="Use Stable Diffusion 1.5")


class ControlnetNetwork(nn.Module):
    """VAE, U-Net and control branch, with what the text encoder makes of no text."""

    def __init__(
        self, config: ControlnetConfig, vae: Any, unet: Any, prompt: Tensor, scheduler: dict[str, Any]
    ) -> None:
        super().__init__()
        from diffusers import ControlNetModel

        self.scheduler = scheduler
        self.config, self.planes = config, config.planes
        self.vae, self.unet = vae, unet
        self.control = ControlNetModel.from_config(config.control)
        self.prompt: Tensor
        self.register_buffer("prompt", prompt)
        self.frame = Frame(config.size, vae, unet)

    def predicted_noise(self, codes: Tensor, times: Tensor, planes: Tensor) -> Tensor:
        """The noise in `codes` (B, K, h, w) at steps `times` (B,), under planes (B, P, *padded)."""
        prompt = self.prompt.expand(len(codes), -1, -1)
        down, middle = self.control(codes, times, prompt, planes, return_dict=False)
        found: Tensor = self.unet(
            codes,
            times,
            prompt,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return found

    def decode(self, codes: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]."""
        made = self.vae.decode(codes / self.frame.scale, return_dict=False)[0]
        return self.frame.back(made, self.config.image_channels).clamp(-1, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images through the VAE alone."""
        codes = self.vae.encode(self.frame.images(images)).latent_dist.mode()
        return self.decode(codes * self.frame.scale)
