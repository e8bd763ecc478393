"""The second stage: the denoiser of codes and its control branch, trained together from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from anatogen.baselines.document import BaselineTraining, PlaneConditioning, basis_of, given_in_training
from anatogen.baselines.latent.autoencoder import (
    AUTOENCODER_SYSTEM,
    Autoencoder,
    AutoencoderConfig,
    AutoencoderOptions,
    AutoencoderSettings,
    AutoencoderTraining,
    load_autoencoder,
)
from anatogen.baselines.latent.model import LATENT, LatentDocument
from anatogen.baselines.latent.network import LatentConfig, LatentNetwork, LatentNetworkSettings
from anatogen.conditioning.encode import Condition
from anatogen.data.augment import AugmentSettings
from anatogen.data.store import Batch, PreparedDataset
from anatogen.diffusion.loss import denoising_loss, numbers_for_times, training_times
from anatogen.files import writing
from anatogen.io.tensors import write_tensors
from anatogen.model import digest_of_weights, read_about
from anatogen.sampling import SamplingSettings
from anatogen.seeds import Draws, derive_seed
from anatogen.settings import Settings
from anatogen.training.best import forget_best
from anatogen.training.config import DiffusionSettings, LiveSettings, TrainingSettings, shortened
from anatogen.training.exporting import about_training, recipe_of, weights_to_export
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase, Stage, System, stage_folder

_MEASURED = 512  # training images whose codes' mean and deviation are taken
STAGE = "autoencoder"


class LatentTraining(BaselineTraining):
    """Length and optimisation; of the length, autoencoder and denoiser get their shares."""


class LatentSampling(SamplingSettings):
    """How codes are sampled: without a bound of x0, since codes have none."""

    clip: float | None = Field(None, gt=0)


class LatentSettings(Settings):
    """All settings of a run of latent diffusion.

    Attributes:
        autoencoder_share: Of the whole length (steps, epochs or time), for the autoencoder.
    """

    model: Literal["latent"] = "latent"
    autoencoder: AutoencoderOptions = AutoencoderOptions()
    autoencoder_share: float = Field(0.3, gt=0, lt=1)
    latent: LatentNetworkSettings = LatentNetworkSettings()
    conditioning: PlaneConditioning = PlaneConditioning()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: LatentTraining = LatentTraining()
    augment: AugmentSettings = AugmentSettings()
    sampling: LatentSampling = LatentSampling()
    live: LiveSettings = LiveSettings()

    @property
    def own_training(self) -> TrainingSettings:
        """Of the denoiser alone."""
        return shortened(self.training, 1 - self.autoencoder_share)


def _of_autoencoder(settings: LatentSettings) -> AutoencoderSettings:
    """The settings of the first stage."""
    whole = shortened(settings.training, settings.autoencoder_share)
    kept = (
        "steps",
        "epochs",
        "max_time_s",
        "seed",
        "precision",
        "checkpoint_every",
        "checkpoints_kept",
        "micro_batch_size",
    )
    training = AutoencoderTraining(**{name: getattr(whole, name) for name in (*kept, "batch_size")})
    return AutoencoderSettings(autoencoder=settings.autoencoder, training=training, augment=settings.augment)


class LatentTask:
    """Trains the denoiser of a trained autoencoder's codes; a `Task` of one phase.

    Args:
        dataset: The prepared data set.
        settings: The settings of the run.
        device: Where to train.
        out: The folder of the run, which holds the trained autoencoder; None plans with an untrained one.

    Raises:
        ModelError: The autoencoder is missing or damaged.
    """

    def __init__(
        self, dataset: PreparedDataset, settings: LatentSettings, device: torch.device, out: Path | None = None
    ) -> None:
        how = settings.own_training
        settings.sampling.check_guidance(dataset.schema, takes_free=settings.conditioning.mask_ablation)
        self.dataset, self.settings, self.device = dataset, settings, device
        self._stage = None if out is None else stage_folder(out, STAGE)
        autoencoder = self._autoencoder().to(device)
        mean, std = code_statistics(autoencoder, dataset, device)
        self.config = LatentConfig.model_validate(
            {
                **basis_of(dataset, settings.conditioning.encoding),
                "autoencoder": settings.autoencoder.of_network,
                "network": settings.latent,
                "path": settings.diffusion.path,
                "target": settings.diffusion.target,
                "code_mean": mean,
                "code_std": std,
            }
        )
        with torch.random.fork_rng(devices=[]):  # for the initial weights only
            torch.manual_seed(derive_seed("weights", how.seed))
            self.network = LatentNetwork(self.config).to(device)
        self.network.autoencoder.load_state_dict(autoencoder.state_dict())
        self.network.autoencoder.eval().requires_grad_(False)
        denoiser = self.network.denoiser
        optimizer = torch.optim.AdamW(
            denoiser.parameters(),
            lr=how.learning_rate,
            weight_decay=how.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.average = MovingAverage(denoiser, how.ema_decay)
        self.phases: Sequence[Phase] = (Phase("denoiser", denoiser, optimizer, how.learning_rate, self.average),)

    def _autoencoder(self) -> Autoencoder:
        if self._stage is not None:
            return load_autoencoder(self._stage)
        config = AutoencoderConfig(
            image_channels=self.dataset.channels,
            size=self.dataset.size,
            network=self.settings.autoencoder.of_network,
        )
        return Autoencoder(config).eval()

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings, the data and the autoencoder that a checkpoint belongs to."""
        found = dict(recipe_of(self.settings, self.dataset))
        return found if self._stage is None else {**found, "autoencoder": digest_of_weights(self._stage)}

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """E[w(t) |D(z_t, t, condition) - z0|^2] of codes, with times, noise and ablated classes drawn for each item."""
        how, denoiser = self.settings.diffusion, self.network.denoiser
        given = given_in_training(batch, self.settings.conditioning, random, self.device)
        with torch.no_grad():
            # The mean of a code, so that noise of the autoencoder is not learned.
            codes, _ = self.network.autoencoder.encode(batch.images.to(self.device, non_blocking=True))
            z0 = (codes - self.network.mean) / self.network.std
        drawn = numbers_for_times(how.times, random, stratified=how.stratified)
        t = training_times(how.times, drawn, denoiser.path, **how.of_times)
        denoise = denoiser.under(Condition.of(batch.labels.to(self.device, non_blocking=True), given))
        losses = denoising_loss(
            denoise,
            denoiser.path,
            z0,
            random.normal(*z0.shape[1:]),
            t,
            weighting=how.weighting,
            smallest_sigma=how.smallest_sigma,
            ignored=self._ignored(batch),
        )
        return losses.mean(), {"loss": losses.detach()}

    def _ignored(self, batch: Batch) -> Tensor | None:
        """The cells of the codes, bool (B, *smaller), in which any voxel is to be ignored."""
        if batch.ignored is None:
            return None
        padded = self.network.autoencoder.padding.pad(batch.ignored.to(self.device)).float()[:, None]
        pool = {2: functional.max_pool2d, 3: functional.max_pool3d}[len(self.dataset.size)]
        return pool(padded, self.config.autoencoder.factor)[:, 0] > 0

    def names(self, batch: Batch) -> Sequence[str]:
        """The case and slice of each item."""
        return [row.id for row in batch.rows]

    @torch.no_grad()
    def model(self) -> LatentNetwork:
        """A separate network with the averaged denoiser."""
        with torch.random.fork_rng(devices=[]):
            averaged = LatentNetwork(self.config)
        averaged.load_state_dict(self._state(self.average.weights))
        return averaged.to(self.device).eval().requires_grad_(False)

    def _state(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole network's, with a denoiser of `weights`."""
        own = {f"denoiser.{name}": value for name, value in weights.items()}
        return {**self.network.state_dict(), **own}

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors, with the autoencoder, and model.json; with `live.best` of the best weights."""
        found = weights_to_export(folder, self.settings, state, self.average)
        weights = self._state(found.weights) if found.chosen is None else found.weights
        with writing(folder / "model.safetensors") as path:
            write_tensors(path, weights)
        about = about_training(self.dataset, self.settings, state, found, sampling=self.settings.sampling)
        if self._stage is not None:
            first = read_about(self._stage)
            about = about.model_copy(
                update={
                    "seconds": round((about.seconds or 0) + (first.seconds or 0), 1),
                    "images": (about.images or 0) + (first.images or 0),
                }
            )
        LatentDocument(latent=self.config, about=about).write(folder / "model.json")
        if state.finished:
            forget_best(folder)


@torch.no_grad()
def code_statistics(
    autoencoder: Autoencoder, dataset: PreparedDataset, device: torch.device
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel of the training images' codes; of at most 512, spread over all."""
    rows = dataset.split("train")
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(_MEASURED, len(rows))).round().astype(int)]
    axes = (0, *range(2, 2 + len(dataset.size)))
    total, squares, count = 0.0, 0.0, 0
    sums: list[Tensor] = []
    for batch in dataset.batches(chosen, 16):
        codes = autoencoder.encode(batch.images.to(device))[0].double()
        sums.append(torch.stack([codes.sum(axes), codes.square().sum(axes)]))
        count += codes.numel() // codes.shape[1]
    total, squares = (part / count for part in torch.stack(sums).sum(0).cpu())
    deviation = (squares - total.square()).clamp(min=1e-6).sqrt()
    return tuple(total.tolist()), tuple(deviation.tolist())


def _task(dataset: PreparedDataset, settings: Any, device: torch.device, out: Path | None) -> LatentTask:
    return LatentTask(dataset, settings, device, out)


LATENT_SYSTEM = System(LATENT, LatentSettings, _task, (Stage(STAGE, AUTOENCODER_SYSTEM, _of_autoencoder),))
