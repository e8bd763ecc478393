"""The three trainings of a ControlNet: VAE, U-Net, control branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from anatogen.baselines.controlnet.model import CONTROLNET, PROMPT, ControlnetDocument
from anatogen.baselines.controlnet.parts import (
    UNET,
    VAE,
    ControlnetConfig,
    ControlnetNetwork,
    Frame,
    PartDocument,
    checked_steps,
    load_stable_diffusion,
    noise_levels,
    plain_config,
    read_part,
    require_trainable,
)
from anatogen.baselines.document import BaselineTraining, PlaneConditioning, basis_of, given_in_training
from anatogen.conditioning.encode import Condition
from anatogen.data.augment import AugmentSettings
from anatogen.data.store import Batch, PreparedDataset
from anatogen.files import writing
from anatogen.io.tensors import write_tensors
from anatogen.model import AboutModel, digest_of_weights, read_about
from anatogen.sampling import SamplingSettings
from anatogen.seeds import Draws, derive_seed
from anatogen.settings import Settings
from anatogen.training.best import forget_best
from anatogen.training.config import LiveSettings, TrainingSettings, shortened
from anatogen.training.exporting import about_training, recipe_of, weights_to_export
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase, Stage, System, stage_folder

_CONTROL_CHANNELS = (16, 32, 96, 256)  # of the layers that see the label map, as in the original


class ControlnetOptions(Settings):
    """Where the weights are, and how the length is shared.

    Attributes:
        weights: Folder of Stable Diffusion 1.5, in the layout of a diffusers pipeline.
        vae_share, unet_share: Of the whole length (steps, epochs or time); the control branch gets the rest. The
            defaults are the paper's 200, 400 and 200 epochs.
        code_weight: Of the Kullback-Leibler divergence of the codes while the VAE is finetuned.
    """

    weights: str | None = None
    vae_share: float = Field(0.25, gt=0, lt=1)
    unet_share: float = Field(0.5, gt=0, lt=1)
    code_weight: float = Field(1e-6, ge=0)

    @model_validator(mode="after")
    def _leave_some(self) -> ControlnetOptions:
        if self.vae_share + self.unet_share >= 1:
            raise ValueError("vae_share and unet_share leave nothing for the control branch")
        return self


class ControlnetTraining(BaselineTraining):
    """Length and optimisation, as in the paper: 800 epochs in all, batches of 128, cosine annealing."""

    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(800, gt=0)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["decay", "cosine", "constant"] = "cosine"
    warmup_steps: int = Field(500, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)


class ControlnetSampling(SamplingSettings):
    """DDIM in 50 steps, without a bound of x0, since codes have none."""

    solver: Literal["ddim"] = "ddim"
    steps: int = Field(50, ge=1, le=1000)
    eta: float = Field(0.0, ge=0, le=1)
    clip: float | None = Field(None, gt=0)

    @field_validator("guidance")
    @classmethod
    def _of_other_kinds(cls, value: float) -> float:
        if value != 1:
            raise ValueError("guidance is not applicable to a ControlNet")
        return value


class ControlnetSettings(Settings):
    """All settings of a run of ControlNet."""

    model: Literal["controlnet"] = "controlnet"
    controlnet: ControlnetOptions = ControlnetOptions()
    conditioning: PlaneConditioning = PlaneConditioning()
    training: ControlnetTraining = ControlnetTraining()
    augment: AugmentSettings = AugmentSettings()
    sampling: ControlnetSampling = ControlnetSampling()
    live: LiveSettings = LiveSettings()

    @property
    def own_training(self) -> TrainingSettings:
        """Of the control branch."""
        return shortened(self.training, 1 - self.controlnet.vae_share - self.controlnet.unet_share)


class PartSettings(Settings):
    """All settings of the finetuning of a part. part: which."""

    model: Literal["controlnet-part"] = "controlnet-part"
    part: Literal["vae", "unet"]
    controlnet: ControlnetOptions = ControlnetOptions()
    conditioning: PlaneConditioning = PlaneConditioning(mask_ablation=False)
    training: ControlnetTraining = ControlnetTraining()
    augment: AugmentSettings = AugmentSettings()
    live: LiveSettings = LiveSettings(previews=False)


def _of_vae(settings: ControlnetSettings) -> PartSettings:
    training = shortened(settings.training, settings.controlnet.vae_share)
    return _part("vae", settings, training)


def _of_unet(settings: ControlnetSettings) -> PartSettings:
    training = shortened(settings.training, settings.controlnet.unet_share)
    return _part("unet", settings, training)


def _part(part: Literal["vae", "unet"], settings: ControlnetSettings, training: TrainingSettings) -> PartSettings:
    own = ControlnetTraining.model_validate(training.model_dump())
    return PartSettings(part=part, controlnet=settings.controlnet, training=own, augment=settings.augment)


class _Finetuning:
    """What the three trainings share: one module, its optimizer and its average."""

    def __init__(
        self, dataset: PreparedDataset, settings: Any, how: TrainingSettings, device: torch.device, trained: nn.Module
    ) -> None:
        self.dataset, self.settings, self.device = dataset, settings, device
        trained.to(device).train()
        fused = device.type in ("cpu", "cuda")
        rate = how.learning_rate
        optimizer = torch.optim.AdamW(trained.parameters(), lr=rate, weight_decay=how.weight_decay, fused=fused)
        self.average = MovingAverage(trained, how.ema_decay)
        self.phases: Sequence[Phase] = (Phase("finetuned", trained, optimizer, rate, self.average),)

    def names(self, batch: Batch) -> Sequence[str]:
        """The case and slice of each item."""
        return [row.id for row in batch.rows]

    def _noised(self, codes: Tensor, levels: Tensor, random: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Codes with noise, the noise, and the steps (B,) that it is of, uniform over the schedule."""
        times = (random.uniform() * len(levels)).long().clamp(max=len(levels) - 1)
        eps = random.normal(*codes.shape[1:])
        alpha = levels.to(self.device)[times].reshape(-1, *(1,) * (codes.ndim - 1))
        return alpha.sqrt() * codes + (1 - alpha).sqrt() * eps, eps, times

    def _codes(self, vae: Any, frame: Frame, batch: Batch, random: Draws) -> Tensor:
        """The scaled codes of a batch's images, drawn."""
        with torch.no_grad():
            found = vae.encode(frame.images(batch.images.to(self.device, non_blocking=True))).latent_dist
            return (found.mean + found.std * random.normal(*found.mean.shape[1:])) * frame.scale


def _by_item(error: Tensor) -> Tensor:
    return error.flatten(1).mean(1)


class PartTask(_Finetuning):
    """Finetunes the VAE, or the U-Net on the finetuned VAE's codes, on the split "train"; a `Task` of one phase.

    Args:
        dataset: The prepared data set.
        settings: The settings of this part.
        device: Where to train.
        out: The folder of the part's run; the VAE's lies beside the U-Net's.

    Raises:
        SettingsError: The weights of Stable Diffusion are missing, or the images are not for it.
    """

    def __init__(
        self, dataset: PreparedDataset, settings: PartSettings, device: torch.device, out: Path | None = None
    ) -> None:
        require_trainable(dataset.channels, dataset.size)
        parts = load_stable_diffusion(settings.controlnet.weights)
        self.part, self.scheduler, self.prompt = settings.part, parts.scheduler, parts.prompt.to(device)
        self._before = None if out is None or self.part == "vae" else out.parent / VAE
        vae = parts.vae if self._before is None else read_part(self._before)[1]
        self.vae, self.unet = vae.to(device), parts.unet.to(device)
        self.frame = Frame(dataset.size, vae, parts.unet)
        if self.part == "unet":
            checked_steps(parts.scheduler, Path(settings.controlnet.weights or ""))
            self.levels = noise_levels(parts.scheduler)
            self.vae.eval().requires_grad_(False)
        super().__init__(dataset, settings, settings.training, device, self._trained)

    @property
    def _trained(self) -> Any:
        return self.vae if self.part == "vae" else self.unet

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings, the data and the VAE that a checkpoint belongs to."""
        found = dict(recipe_of(self.settings, self.dataset))
        return found if self._before is None else {**found, "VAE": digest_of_weights(self._before)}

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The squared error of the reconstruction with the divergence of the codes, or of the predicted noise."""
        if self.part == "vae":
            images = self.frame.images(batch.images.to(self.device, non_blocking=True))
            found = self.vae.encode(images).latent_dist
            made = self.vae.decode(found.mean + found.std * random.normal(*found.mean.shape[1:]), return_dict=False)[0]
            losses = _by_item((made - images).square()) + self.settings.controlnet.code_weight * found.kl()
        else:
            codes, eps, times = self._noised(self._codes(self.vae, self.frame, batch, random), self.levels, random)
            prompt = self.prompt.expand(len(codes), -1, -1)
            losses = _by_item((self.unet(codes, times, prompt, return_dict=False)[0] - eps).square())
        return losses.mean(), {"loss": losses.detach()}

    @torch.no_grad()
    def model(self) -> nn.Module:
        """A separate module with the averaged weights."""
        averaged: nn.Module = type(self._trained).from_config(self._trained.config)
        averaged.load_state_dict(self.average.weights)
        return averaged.to(self.device).eval().requires_grad_(False)

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors and model.json of the part."""
        found = weights_to_export(folder, self.settings, state, self.average)
        with writing(folder / "model.safetensors") as path:
            write_tensors(path, found.weights)
        about = about_training(self.dataset, self.settings, state, found)
        kind: Any = f"controlnet-{self.part}"
        PartDocument(kind=kind, config=plain_config(self._trained), scheduler=self.scheduler, about=about).write(
            folder / "model.json"
        )


class ControlnetTask(_Finetuning):
    """Trains the control branch, with VAE and U-Net frozen; a `Task` of one phase.

    Args:
        dataset: The prepared data set.
        settings: The settings of the run.
        device: Where to train.
        out: The folder of the run, which holds the finetuned parts; None plans with those that the user has.

    Raises:
        SettingsError: The weights of Stable Diffusion are missing, or the images are not for it.
    """

    def __init__(
        self, dataset: PreparedDataset, settings: ControlnetSettings, device: torch.device, out: Path | None = None
    ) -> None:
        from diffusers import ControlNetModel

        require_trainable(dataset.channels, dataset.size)
        parts = load_stable_diffusion(settings.controlnet.weights)
        self._stages = [] if out is None else [stage_folder(out, name) for name in (VAE, UNET)]
        vae, unet = (read_part(stage)[1] for stage in self._stages) if self._stages else (parts.vae, parts.unet)
        basis = basis_of(dataset, settings.conditioning.encoding)
        planes = ControlnetConfig.model_validate({**basis, "control": {}}).planes.count
        with torch.random.fork_rng(devices=[]):  # for the initial weights only
            torch.manual_seed(derive_seed("weights", settings.training.seed))
            # One layer a halving of the VAE: the label map enters at full resolution, and meets the codes.
            widths = _CONTROL_CHANNELS[: len(vae.config.block_out_channels)]
            control = ControlNetModel.from_unet(
                unet, conditioning_channels=planes, conditioning_embedding_out_channels=widths
            )
        self.config = ControlnetConfig.model_validate({**basis, "control": plain_config(control)})
        self.network = ControlnetNetwork(self.config, vae, unet, parts.prompt, parts.scheduler).to(device)
        self.network.control.load_state_dict(control.state_dict())
        self.levels = noise_levels(parts.scheduler)
        self.network.eval().requires_grad_(False)
        self.network.control.requires_grad_(True)
        super().__init__(dataset, settings, settings.own_training, device, self.network.control)

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings, the data and the parts that a checkpoint belongs to."""
        found = dict(recipe_of(self.settings, self.dataset))
        return {**found, **{stage.name: digest_of_weights(stage) for stage in self._stages}}

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The squared error of the predicted noise, with the ablated classes drawn for each item."""
        given = given_in_training(batch, self.settings.conditioning, random, self.device)
        network = self.network
        labels = batch.labels.to(self.device, non_blocking=True)
        bound = Condition.of(labels, given).resized(network.frame.padding.pad)
        planes = network.planes(bound.labels, bound.states, bound.region)
        codes, eps, times = self._noised(self._codes(network.vae, network.frame, batch, random), self.levels, random)
        losses = _by_item((network.predicted_noise(codes, times, planes) - eps).square())
        return losses.mean(), {"loss": losses.detach()}

    @torch.no_grad()
    def model(self) -> ControlnetNetwork:
        """A separate network with the averaged control branch; VAE and U-Net are shared."""
        own = self.network
        made = ControlnetNetwork(self.config, own.vae, own.unet, own.prompt, own.scheduler)
        made.control.load_state_dict(self.average.weights)
        return made.to(self.device).eval()

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors, of the control branch, and model.json; with `live.best` of the best weights."""
        found = weights_to_export(folder, self.settings, state, self.average)
        kept = found.weights
        if found.chosen is not None:  # of the whole network
            of_control = (name for name in kept if name.startswith("control."))
            kept = {name.removeprefix("control."): kept[name] for name in of_control}
        weights = {f"control.{name}": value for name, value in kept.items()}
        with writing(folder / "model.safetensors") as path:
            write_tensors(path, {**weights, PROMPT: self.network.prompt})
        about = about_training(self.dataset, self.settings, state, found, sampling=self.settings.sampling)
        ControlnetDocument(controlnet=self.config, about=self._with_stages(about)).write(folder / "model.json")
        if state.finished:
            forget_best(folder)

    def _with_stages(self, about: AboutModel) -> AboutModel:
        """With the time and the images of the earlier trainings."""
        before = [read_about(stage) for stage in self._stages]
        seconds = round((about.seconds or 0) + sum(each.seconds or 0 for each in before), 1)
        images = (about.images or 0) + sum(each.images or 0 for each in before)
        return about.model_copy(update={"seconds": seconds, "images": images})


PART_SYSTEM = System("controlnet-part", PartSettings, PartTask)
CONTROLNET_SYSTEM = System(
    CONTROLNET,
    ControlnetSettings,
    ControlnetTask,
    (Stage(VAE, PART_SYSTEM, _of_vae), Stage(UNET, PART_SYSTEM, _of_unet)),
)
