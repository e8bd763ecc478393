"""SPADE's training task: a generator and its discriminators, each with its own optimizer (Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from anatogen.baselines.adversarial import feature_loss, fooled, told_apart
from anatogen.baselines.discriminators import Discriminators
from anatogen.baselines.document import BaselineTraining, PlaneConditioning, basis_of, given_in_training
from anatogen.baselines.perceptual import PerceptualLoss
from anatogen.baselines.spade.model import SPADE, SpadeDocument
from anatogen.baselines.spade.network import SpadeConfig, SpadeGenerator, SpadeNetworkSettings
from anatogen.conditioning.encode import Condition
from anatogen.data.augment import AugmentSettings
from anatogen.data.store import Batch, PreparedDataset
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.io.tensors import write_tensors
from anatogen.seeds import Draws, derive_seed
from anatogen.settings import Settings
from anatogen.training.best import forget_best
from anatogen.training.config import LiveSettings
from anatogen.training.exporting import about_training, recipe_of, weights_to_export
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase, System


class SpadeOptions(SpadeNetworkSettings):
    """The generator and its losses. The defaults are the original's.

    Attributes:
        discriminator_width: Channels of the first layer of a discriminator.
        discriminator_layers: Layers of each, at most; small images take fewer.
        scales: Number of discriminators, each at half of the resolution of the one before.
        discriminator_rate: Its peak learning rate, as a multiple of the generator's (two time scales).
        feature_weight: Of the feature-matching loss.
        perceptual_weight: Of the perceptual loss.
        perceptual: A file of VGG-19 weights; without it there is no perceptual loss.
        code_weight: Of the Kullback-Leibler divergence of the codes, with an encoder.
    """

    discriminator_width: int = Field(64, ge=4)
    discriminator_layers: int = Field(4, ge=1)
    scales: int = Field(2, ge=1)
    discriminator_rate: float = Field(4.0, gt=0)
    feature_weight: float = Field(10.0, ge=0)
    perceptual_weight: float = Field(10.0, ge=0)
    perceptual: str | None = None
    code_weight: float = Field(0.05, ge=0)

    @property
    def of_network(self) -> SpadeNetworkSettings:
        """The part that the generator is built from."""
        return SpadeNetworkSettings(**{name: getattr(self, name) for name in SpadeNetworkSettings.model_fields})


class SpadeTraining(BaselineTraining):
    """Length and optimisation, with SPADE's own defaults (50 epochs of batches of 128, no decay, no clipping).

    Attributes:
        ema_decay: Of the generator's averaged weights; the original has no average (0).
    """

    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(50, gt=0)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["decay", "cosine", "constant"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    gradient_norm: float = Field(1e6, gt=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)


class SpadeSettings(Settings):
    """All settings of a run of SPADE."""

    model: Literal["spade"] = "spade"
    spade: SpadeOptions = SpadeOptions()
    conditioning: PlaneConditioning = PlaneConditioning()
    training: SpadeTraining = SpadeTraining()
    augment: AugmentSettings = AugmentSettings()
    live: LiveSettings = LiveSettings()


class SpadeTask:
    """Trains SPADE on the split "train" of a data set; a `Task` of two phases.

    Spectral normalisation takes one power iteration a forward pass in training, so that with another micro-batch the
    training is the same but for the speed at which that iteration converges.

    Args:
        dataset: The prepared data set.
        settings: The settings of the run.
        device: Where to train.

    Raises:
        SettingsError: The weights of the perceptual loss cannot be read.
    """

    def __init__(self, dataset: PreparedDataset, settings: SpadeSettings, device: torch.device) -> None:
        how, options = settings.training, settings.spade
        self.dataset, self.settings, self.device = dataset, settings, device
        basis = basis_of(dataset, settings.conditioning.encoding)
        self.config = SpadeConfig.model_validate({**basis, "network": options.of_network})
        dim = len(dataset.size)
        with torch.random.fork_rng(devices=[]):  # for the initial weights only
            torch.manual_seed(derive_seed("weights", how.seed))
            self.generator = SpadeGenerator(self.config).to(device)
            self.discriminators = Discriminators(
                dim,
                dataset.channels + self.config.planes.count,
                self.generator.padding.padded,
                width=options.discriminator_width,
                scales=options.scales,
                layers=options.discriminator_layers,
            ).to(device)
        for module in (self.generator, self.discriminators):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.Conv3d) and layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.perceptual: PerceptualLoss | None = None
        if options.perceptual is not None:
            if dim != 2:
                raise SettingsError("the perceptual loss is of slices", hint="Leave out spade.perceptual")
            self.perceptual = PerceptualLoss(Path(options.perceptual)).to(device)
        self.average = MovingAverage(self.generator, how.ema_decay)
        rates = (how.learning_rate, how.learning_rate * options.discriminator_rate)
        self.phases: Sequence[Phase] = (
            Phase("generator", self.generator, self._adam(self.generator, rates[0]), rates[0], self.average),
            Phase("discriminators", self.discriminators, self._adam(self.discriminators, rates[1]), rates[1]),
        )

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            module.parameters(), lr=rate, betas=(0.0, 0.9), fused=self.device.type in ("cpu", "cuda")
        )

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings and the data that a checkpoint belongs to."""
        return recipe_of(self.settings, self.dataset)

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The generator's loss, or that of the discriminators, with the ablated classes drawn for each item."""
        padding = self.generator.padding
        images = padding.pad(batch.images.to(self.device, non_blocking=True))
        given = given_in_training(batch, self.settings.conditioning, random, self.device)
        planes = self.generator.planes_of(Condition.of(batch.labels.to(self.device, non_blocking=True), given))
        if phase.name == "generator":
            return self._of_generator(images, planes, self._known(batch), random)
        with torch.no_grad():
            code, _ = self._code(images, random)
            made = self.generator(planes, code)
        known = self._known(batch)
        real, fake = self.discriminators(images * known, planes), self.discriminators(made * known, planes)
        losses = told_apart(real, fake)
        return losses.mean(), {"discriminator_loss": losses.detach()}

    def _of_generator(
        self, images: Tensor, planes: Tensor, known: Tensor, random: Draws
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        options = self.settings.spade
        self.discriminators.requires_grad_(False)
        try:
            code, divergence = self._code(images, random)
            made = self.generator(planes, code)
            with torch.no_grad():
                real = self.discriminators(images * known, planes)
            fake = self.discriminators(made * known, planes)
        finally:
            self.discriminators.requires_grad_(True)
        parts = {"adversarial": fooled(fake), "features": options.feature_weight * feature_loss(fake, real)}
        if self.perceptual is not None:
            parts["perceptual"] = options.perceptual_weight * self.perceptual(made * known, images * known)
        if divergence is not None:
            parts["code"] = options.code_weight * divergence
        losses = torch.stack(list(parts.values())).sum(0)
        return losses.mean(), {"loss": losses.detach(), **{name: part.detach() for name, part in parts.items()}}

    def _code(self, images: Tensor, random: Draws) -> tuple[Tensor | None, Tensor | None]:
        """Codes drawn for images, and the divergence of each from a standard normal; None without an encoder."""
        if self.generator.encoder is None:
            return None, None
        mean, log_variance = self.generator.encoder(images)
        code = mean + torch.exp(log_variance / 2) * random.normal(mean.shape[1])
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return code, divergence

    def _known(self, batch: Batch) -> Tensor:
        """1 where a voxel counts, 0 where it is to be ignored: there all images are blank."""
        if batch.ignored is None:
            return torch.ones((), device=self.device)
        ignored = self.generator.padding.pad(batch.ignored.to(self.device, non_blocking=True))
        return (~ignored)[:, None].float()

    def names(self, batch: Batch) -> Sequence[str]:
        """The case and slice of each item."""
        return [row.id for row in batch.rows]

    @torch.no_grad()
    def model(self) -> SpadeGenerator:
        """A separate generator with the averaged weights."""
        with torch.random.fork_rng(devices=[]):
            averaged = SpadeGenerator(self.config)
        averaged.load_state_dict(self.average.weights)
        return averaged.to(self.device).eval().requires_grad_(False)

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors and model.json: the averaged generator, or with `live.best` the best."""
        found = weights_to_export(folder, self.settings, state, self.average)
        with writing(folder / "model.safetensors") as path:
            write_tensors(path, found.weights)
        about = about_training(self.dataset, self.settings, state, found)
        SpadeDocument(spade=self.config, about=about).write(folder / "model.json")
        if state.finished:
            forget_best(folder)


def _task(dataset: PreparedDataset, settings: Any, device: torch.device, out: Path | None) -> SpadeTask:  # noqa: ARG001
    return SpadeTask(dataset, settings, device)


SPADE_SYSTEM = System(SPADE, SpadeSettings, _task)
