"""The first stage: an autoencoder of images, trained with a discriminator (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from anatogen.baselines.adversarial import fooled, told_apart
from anatogen.baselines.discriminators import Discriminators
from anatogen.baselines.document import PlaneConditioning, read_baseline, with_weights
from anatogen.baselines.perceptual import PerceptualLoss
from anatogen.data.augment import AugmentSettings
from anatogen.data.store import Batch, PreparedDataset
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.io.tensors import write_tensors
from anatogen.model import RunDocument
from anatogen.networks.padding import Padding
from anatogen.seeds import Draws, derive_seed
from anatogen.settings import Settings
from anatogen.training.config import LiveSettings, TrainingSettings
from anatogen.training.exporting import about_training, recipe_of, weights_to_export
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase, System

AUTOENCODER = "autoencoder"
GROUPS = 16
_FIRST_LOG_VARIANCE = -6.0


class AutoencoderNetworkSettings(Settings):
    """The size of the autoencoder.

    Attributes:
        channels: Of its levels, the finest first, multiples of 16; each but the first halves the image.
        blocks: Residual blocks a level.
        code_channels: Of the code.
    """

    channels: tuple[int, ...] = Field((32, 64, 64), min_length=2, max_length=5)
    blocks: int = Field(1, ge=1)
    code_channels: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _in_groups(self) -> AutoencoderNetworkSettings:
        if any(n % GROUPS or n < GROUPS for n in self.channels):
            raise ValueError(f"channels must be multiples of {GROUPS}")
        return self

    @property
    def factor(self) -> int:
        """How much smaller a side of the code is."""
        return 1 << (len(self.channels) - 1)


class AutoencoderOptions(AutoencoderNetworkSettings):
    """The autoencoder and its losses.

    Attributes:
        code_weight: Of the Kullback-Leibler divergence of the codes from a standard normal.
        adversarial_weight: Of the discriminator's verdict.
        adversarial_after: Steps before it counts: of an autoencoder that makes no images yet, the discriminator's
            gradient is noise (Rombach et al. 2022 wait for 50,000 steps of their much longer training).
        perceptual_weight: Of the perceptual loss.
        perceptual: A file of VGG-19 weights; without it there is no perceptual loss.
        discriminator_width: Channels of the first layer of the discriminator.
    """

    code_weight: float = Field(1e-6, ge=0)
    adversarial_weight: float = Field(0.05, ge=0)
    adversarial_after: int = Field(500, ge=0)
    perceptual_weight: float = Field(0.1, ge=0)
    perceptual: str | None = None
    discriminator_width: int = Field(32, ge=4)

    @property
    def of_network(self) -> AutoencoderNetworkSettings:
        """The part that the networks are built from."""
        names = AutoencoderNetworkSettings.model_fields
        return AutoencoderNetworkSettings(**{name: getattr(self, name) for name in names})


class AutoencoderTraining(TrainingSettings):
    """Length and optimisation of the autoencoder."""

    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    gradient_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class AutoencoderSettings(Settings):
    """All settings of an autoencoder's training."""

    model: Literal["autoencoder"] = "autoencoder"
    autoencoder: AutoencoderOptions = AutoencoderOptions()
    conditioning: PlaneConditioning = PlaneConditioning(mask_ablation=False)
    training: TrainingSettings = AutoencoderTraining()
    augment: AugmentSettings = AugmentSettings()
    live: LiveSettings = LiveSettings(previews=False)


class AutoencoderConfig(BaseModel):
    """All that is needed to build an autoencoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_channels: int = Field(ge=1)
    size: tuple[int, ...] = Field(min_length=2, max_length=3)
    network: AutoencoderNetworkSettings = AutoencoderNetworkSettings()


class Autoencoder(nn.Module):
    """Images (B, C, *size) in [-1, 1] to codes (B, K, *smaller) and back: MONAI's `AutoencoderKL`, for any size."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        from monai.networks.nets import AutoencoderKL

        self.config, how, dim = config, config.network, len(config.size)
        self.padding = Padding(config.size, (how.factor,) * dim)
        self.net = AutoencoderKL(
            spatial_dims=dim,
            in_channels=config.image_channels,
            out_channels=config.image_channels,
            num_res_blocks=how.blocks,
            channels=how.channels,
            attention_levels=[False] * len(how.channels),
            latent_channels=how.code_channels,
            norm_num_groups=GROUPS,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )

        # Codes begin with little noise: of a short training from a deviation of 1, most channels would stay noise.
        spread = self.net.quant_conv_log_sigma.conv
        nn.init.zeros_(spread.weight)
        nn.init.constant_(spread.bias, _FIRST_LOG_VARIANCE)

    @property
    def code_size(self) -> tuple[int, ...]:
        """(K, *smaller) of a code."""
        how = self.config.network
        return how.code_channels, *(side // how.factor for side in self.padding.padded)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the codes of images (B, C, *size)."""
        mean, deviation = self.net.encode(self.padding.pad(images))
        return mean, deviation

    def decode(self, codes: Tensor) -> Tensor:
        """Images (B, C, *size) of codes; they may leave [-1, 1] a little."""
        return self.padding.crop(self.net.decode(codes))


class AutoencoderDocument(RunDocument):
    """model.json of an autoencoder; its weights lie beside it."""

    kind: Literal["autoencoder"] = "autoencoder"
    autoencoder: AutoencoderConfig


def load_autoencoder(run: Path) -> Autoencoder:
    """The autoencoder in a run. Raises ModelError where there is none."""
    return with_weights(Autoencoder(read_baseline(AutoencoderDocument, run).autoencoder), run)


class AutoencoderTask:
    """Trains an autoencoder on the images of the split "train"; a `Task` of two phases.

    Raises:
        SettingsError: The weights of the perceptual loss cannot be read.
    """

    def __init__(self, dataset: PreparedDataset, settings: AutoencoderSettings, device: torch.device) -> None:
        how, options = settings.training, settings.autoencoder
        self.dataset, self.settings, self.device = dataset, settings, device
        self.config = AutoencoderConfig(image_channels=dataset.channels, size=dataset.size, network=options.of_network)
        with torch.random.fork_rng(devices=[]):  # for the initial weights only
            torch.manual_seed(derive_seed("weights", how.seed))
            self.autoencoder = Autoencoder(self.config).to(device)
            self.discriminator = Discriminators(
                len(dataset.size), dataset.channels, dataset.size, width=options.discriminator_width, scales=1, layers=3
            ).to(device)
        self.perceptual: PerceptualLoss | None = None
        if options.perceptual is not None:
            if len(dataset.size) != 2:
                raise SettingsError("the perceptual loss is of slices", hint="Leave out autoencoder.perceptual")
            self.perceptual = PerceptualLoss(Path(options.perceptual)).to(device)
        self.average = MovingAverage(self.autoencoder, how.ema_decay)
        fused = device.type in ("cpu", "cuda")
        rate, betas = how.learning_rate, (0.5, 0.9)
        self.phases: Sequence[Phase] = (
            Phase(
                "autoencoder",
                self.autoencoder,
                torch.optim.AdamW(self.autoencoder.parameters(), lr=rate, weight_decay=how.weight_decay, fused=fused),
                rate,
                self.average,
            ),
            Phase(
                "discriminator",
                self.discriminator,
                torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=betas, fused=fused),
                rate,
            ),
        )

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings and the data that a checkpoint belongs to."""
        return recipe_of(self.settings, self.dataset)

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The reconstruction's loss, or that of the discriminator."""
        images = batch.images.to(self.device, non_blocking=True)
        if batch.ignored is not None:  # blank there, in what is wanted and in what is made
            images = images * (~batch.ignored.to(self.device))[:, None]
        if phase.name == "discriminator":
            with torch.no_grad():
                made, _ = self._made(images, batch, random)
            losses = told_apart(self.discriminator(images), self.discriminator(made))
            return losses.mean(), {"discriminator_loss": losses.detach()}
        options = self.settings.autoencoder
        made, divergence = self._made(images, batch, random)
        self.discriminator.requires_grad_(False)
        try:
            verdict = fooled(self.discriminator(made))
        finally:
            self.discriminator.requires_grad_(True)
        parts = {
            "reconstruction": (made - images).abs().flatten(1).mean(1),
            "code": options.code_weight * divergence,
            "adversarial": options.adversarial_weight * verdict * self._counts(),
        }
        if self.perceptual is not None:
            parts["perceptual"] = options.perceptual_weight * self.perceptual(made, images)
        losses = torch.stack(list(parts.values())).sum(0)
        return losses.mean(), {"loss": losses.detach(), **{name: part.detach() for name, part in parts.items()}}

    def _counts(self) -> Tensor:
        """1 once the discriminator's verdict counts, 0 before; by the optimizer's steps, which a resume restores."""
        states = self.phases[0].optimizer.state.values()
        taken = next((state["step"] for state in states), torch.zeros(()))
        return (taken >= self.settings.autoencoder.adversarial_after).to(self.device, torch.float32)

    def _made(self, images: Tensor, batch: Batch, random: Draws) -> tuple[Tensor, Tensor]:
        """The reconstruction from codes drawn for images, and the divergence of each item's codes."""
        mean, deviation = self.autoencoder.encode(images)
        made = self.autoencoder.decode(mean + deviation * random.normal(*mean.shape[1:]))
        if batch.ignored is not None:
            made = made * (~batch.ignored.to(self.device))[:, None]
        divergence = 0.5 * (mean.square() + deviation.square() - 2 * deviation.clamp(min=1e-12).log() - 1)
        return made, divergence.flatten(1).sum(1)

    def names(self, batch: Batch) -> Sequence[str]:
        """The case and slice of each item."""
        return [row.id for row in batch.rows]

    @torch.no_grad()
    def model(self) -> Autoencoder:
        """A separate autoencoder with the averaged weights."""
        with torch.random.fork_rng(devices=[]):
            averaged = Autoencoder(self.config)
        averaged.load_state_dict(self.average.weights)
        return averaged.to(self.device).eval().requires_grad_(False)

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors and model.json of the averaged autoencoder."""
        found = weights_to_export(folder, self.settings, state, self.average)
        with writing(folder / "model.safetensors") as path:
            write_tensors(path, found.weights)
        about = about_training(self.dataset, self.settings, state, found)
        AutoencoderDocument(autoencoder=self.config, about=about).write(folder / "model.json")


def _task(dataset: PreparedDataset, settings: Any, device: torch.device, out: Path | None) -> AutoencoderTask:  # noqa: ARG001
    return AutoencoderTask(dataset, settings, device)


AUTOENCODER_SYSTEM = System(AUTOENCODER, AutoencoderSettings, _task)
