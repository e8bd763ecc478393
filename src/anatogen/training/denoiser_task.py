"""The denoiser's training task (Konz et al. 2024, Eq. 1 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from anatogen.conditioning.ablate import draw_given, draw_regions
from anatogen.conditioning.attributes import AttributeSchema, draw_known
from anatogen.conditioning.encode import Condition
from anatogen.data.attributes import VOLUME, AttributeTable, learn_attributes
from anatogen.data.statistics import channel_statistics
from anatogen.data.store import Batch, PreparedDataset
from anatogen.diffusion.loss import denoising_loss, numbers_for_times, training_times
from anatogen.diffusion.target import ASSUMED_MEAN, ASSUMED_STD
from anatogen.errors import SettingsError
from anatogen.model import (
    Denoiser,
    DenoiserConfig,
    StartingPoint,
    digest_of_weights,
    load_denoiser,
    save_denoiser,
)
from anatogen.networks.embedding import LabelEmbedding
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.seeds import Draws, derive_seed
from anatogen.training.best import forget_best
from anatogen.training.config import RunSettings, TrainingSettings
from anatogen.training.exporting import about_training, recipe_of, weights_to_export
from anatogen.training.muon import Muon
from anatogen.training.power_average import PowerAverages
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase
from anatogen.training.warm_start import start_from


def denoiser_config(dataset: PreparedDataset, settings: RunSettings) -> DenoiserConfig:
    """The configuration of the denoiser that `settings` describe, for `dataset`."""
    mean: tuple[float, ...] = (ASSUMED_MEAN,)
    std: tuple[float, ...] = (ASSUMED_STD,)
    if settings.diffusion.data_statistics == "measured":
        mean, std = channel_statistics(dataset)
    return DenoiserConfig(
        image_channels=dataset.channels,
        size=dataset.size,
        window=_window(dataset, settings),
        classes=tuple((c.name, c.colour) for c in dataset.schema.classes),
        encoding=settings.conditioning.encoding,
        path=settings.diffusion.path,
        target=settings.diffusion.target,
        data_mean=mean,
        data_std=std,
        network=settings.network,
        attributes=_attributes(dataset, settings),
    )


def _attributes(dataset: PreparedDataset, settings: RunSettings) -> AttributeSchema | None:
    """The attributes that the network is told, as they are in training. Raises SettingsError or DataError."""
    names = settings.conditioning.attributes
    if not names:
        return None
    moving = [name for name in ("scale", "shift", "rotation_degrees") if getattr(settings.augment, name)]
    if moving and any(name.startswith(VOLUME) for name in names):
        raise SettingsError(
            f"augment.{moving[0]} would change the volumes that the network is told", hint="Leave one of the two out"
        )
    return learn_attributes(dataset, names)


def _window(dataset: PreparedDataset, settings: RunSettings) -> tuple[int, ...] | None:
    """The size of the crops that are trained on. Raises SettingsError where they do not fit."""
    crop = settings.training.crop
    if crop is None:
        return None
    if len(crop) != len(dataset.size) or any(part > side for part, side in zip(crop, dataset.size, strict=False)):
        shown, size = (" x ".join(map(str, each)) for each in (crop, dataset.size))
        raise SettingsError(
            f"crops of {shown} do not fit into images of {size}", hint="Choose a smaller training.crop, or none"
        )
    moving = settings.augment.model_dump(exclude={"gain", "offset", "noise"})
    if any(moving.values()):
        name = next(name for name, value in moving.items() if value)
        raise SettingsError(
            f"augment.{name} would move a crop away from where the network is told that it lies",
            hint="Leave it out, or train on whole images",
        )
    return crop


def _with_decay(denoiser: Denoiser, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters, with the decay of each: none for tables, of which a step may use a few rows only."""
    tables = [p for module in denoiser.modules() if isinstance(module, LabelEmbedding) for p in [module.table]]
    others = [p for p in denoiser.parameters() if not any(p is table for table in tables)]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": weight_decay}]
    return [*groups, {"params": tables, "weight_decay": 0.0}] if tables else groups


def require_denoiser(dataset: PreparedDataset, settings: RunSettings) -> DenoiserConfig:
    """The configuration of the denoiser that `settings` describe. Raises SettingsError where they do not fit."""
    how = settings.training
    wanted = {"activation_checkpointing": how.activation_checkpointing, "compile": how.compile}
    wanted["optimizer=muon"] = how.optimizer == "muon"
    for name, value in wanted.items():
        if value and not isinstance(settings.network, HourglassConfig):
            raise SettingsError(f"training.{name} is for the hourglass only", hint="Leave it out")
    settings.sampling.check_guidance(
        dataset.schema,
        takes_free=settings.conditioning.mask_ablation,
        takes_attributes=bool(settings.conditioning.attributes),
    )
    return denoiser_config(dataset, settings)


def _optimizer(denoiser: Denoiser, how: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of `how`."""
    groups = _with_decay(denoiser, how.weight_decay)
    if how.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=how.learning_rate, fused=device.type in ("cpu", "cuda"))
    assert isinstance(denoiser.network, Hourglass)
    hidden = {id(parameter) for parameter in denoiser.network.hidden_matrices()}
    split = [{**groups[0], "params": [p for p in groups[0]["params"] if id(p) in hidden], "matrices": True}]
    split.append({**groups[0], "params": [p for p in groups[0]["params"] if id(p) not in hidden]})
    return Muon([*split, *groups[1:]], how.learning_rate)


class DenoiserTask:
    """Trains a denoiser on the split "train" of a data set; a `Task` of one phase.

    Args:
        dataset: The prepared data set.
        settings: The settings of the run.
        device: Where to train.

    Raises:
        SettingsError: The network does not fit the images, or the run's samples could not be guided as they say.
    """

    def __init__(self, dataset: PreparedDataset, settings: RunSettings, device: torch.device) -> None:
        how = settings.training
        self.dataset, self.settings, self.device = dataset, settings, device
        self.config = require_denoiser(dataset, settings)
        with torch.random.fork_rng(
            devices=[]
        ):  # for the initial weights only; all other draws have their own generators
            torch.manual_seed(derive_seed("weights", how.seed))
            self.denoiser = Denoiser(self.config)
        self.denoiser.placed(device)
        network = self.denoiser.network
        if isinstance(network, Hourglass) and how.activation_checkpointing:
            network.recompute(True)
        if how.compile:  # in place: names and weights stay, and previews are made by a copy that is not compiled
            network.compile(mode="reduce-overhead" if device.type == "cuda" else None, dynamic=False)
        optimizer = _optimizer(self.denoiser, how, device)
        self.average = MovingAverage(self.denoiser, how.ema_decay)
        self.power_averages = PowerAverages(self.denoiser) if how.power_averages else None
        self.phases: Sequence[Phase] = (
            Phase("denoiser", self.denoiser, optimizer, how.learning_rate, self.average, self.power_averages),
        )
        self.started_from: StartingPoint | None = None
        self._attributes: AttributeTable | None = None
        if self.config.attributes is not None:
            self._attributes = AttributeTable(dataset, self.config.attributes, dataset.split("train"))

    def start_from(self, run: Path) -> tuple[str, ...]:
        """Start from the weights of the denoiser in `run`; returns the classes that it does not have.

        Raises ModelError if there is none, SettingsError if it differs in more than classes and image size.
        """
        other, about = load_denoiser(run)
        new = start_from(self.denoiser, other.placed(self.device), run)
        self.average.load_state_dict({"updates": 0, "weights": self.denoiser.state_dict()})
        self.started_from = StartingPoint(
            run=run.resolve().name,
            digest=digest_of_weights(run),
            dataset=about.dataset,
            trained_on=about.trained_on,
            started_from=about.started_from,
        )
        return new

    @property
    def recipe(self) -> Mapping[str, str]:
        """The settings and the data that a checkpoint belongs to."""
        attributes = self.config.attributes
        told = {} if attributes is None else {"attributes": attributes.model_dump_json()}
        return {**recipe_of(self.settings, self.dataset), **told}

    def loss(self, phase: Phase, batch: Batch, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """E[w(t) |D(x_t, t, condition) - x0|^2], with times, noise and ablated classes drawn for each item."""
        how, denoiser, path = self.settings.diffusion, self.denoiser, self.denoiser.path
        x0 = batch.images.to(self.device, memory_format=denoiser.memory_format, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        ignored = None if batch.ignored is None else batch.ignored.to(self.device, non_blocking=True)
        annotated = batch.annotated.to(self.device, non_blocking=True)
        given, region = self._states(annotated, random, labels, ignored)
        vector = self._vector(batch, random)
        drawn = numbers_for_times(how.times, random, stratified=how.stratified)
        t = training_times(how.times, drawn, path, **how.of_times)
        eps = random.normal(*x0.shape[1:]).contiguous(memory_format=denoiser.memory_format)
        origins = None if batch.origins is None else batch.origins.to(self.device, non_blocking=True)
        denoise = denoiser.under(Condition.of(labels, given, region, vector, origin=origins))
        losses = denoising_loss(
            denoise,
            path,
            x0,
            eps,
            t,
            weighting=how.weighting,
            smallest_sigma=how.smallest_sigma,
            ignored=None if self._sees_unknown else ignored,
        )
        return losses.mean(), {"loss": losses.detach()}

    @property
    def _sees_unknown(self) -> bool:
        """Whether voxels of unknown class are another condition than background, so that images are learned there."""
        return self.settings.conditioning.encoding != "index"

    def _states(
        self, annotated: Tensor, random: Draws, labels: Tensor, ignored: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The rows of class states (B, R, C-1), and the region (B, *size) of each pixel; None where R = 1.

        Rows: outside a region of ablation, if there may be one; inside, or everywhere; where the class is unknown, if
        it is anywhere.
        """
        how, given = self.settings.conditioning, annotated
        rows, region = [], None
        if how.mask_ablation:
            given = draw_given(annotated, random.uniform(annotated.shape[1] + 1), ablated_share=how.ablated_share)
            if how.regional_share > 0:
                freed = functional.pad(~given, (1, 0)).gather(1, labels.flatten(1)).reshape(labels.shape)
                chance = random.uniform(2 * labels[0].ndim + 4)
                region = draw_regions(chance, freed, regional_share=how.regional_share).to(torch.uint8)
                rows.append(annotated)
        rows.append(given)
        if ignored is not None:
            region = torch.zeros_like(ignored, dtype=torch.uint8) if region is None else region
            region = torch.where(ignored, len(rows), region).to(torch.uint8)
            rows.append(torch.zeros_like(given))
        return torch.stack(rows, dim=1), region

    def _vector(self, batch: Batch, random: Draws) -> Tensor | None:
        """The vector of the items' attributes (B, V), some of them left out; None if the network takes none."""
        if self.config.attributes is None or self._attributes is None:
            return None
        codes = self._attributes.codes(batch.rows).to(self.device)
        chance = random.uniform(codes.shape[1] + 1)
        dropout = self.settings.conditioning.attribute_dropout
        return self.config.attributes.vectors(draw_known(codes, chance, dropout=dropout))

    def names(self, batch: Batch) -> Sequence[str]:
        """The case and slice of each item."""
        return [row.id for row in batch.rows]

    @torch.no_grad()
    def model(self) -> Denoiser:
        """A separate denoiser with the averaged weights, for generation."""
        with torch.random.fork_rng(devices=[]):
            averaged = Denoiser(self.config)
        averaged.load_state_dict(self.average.weights)
        return averaged.placed(self.device).eval().requires_grad_(False)

    def export(self, folder: Path, state: TrainingState) -> None:
        """Write model.safetensors and model.json: the averaged weights, or with `live.best` the best of a finished
        training.
        """
        found = weights_to_export(folder, self.settings, state, self.average)
        about = about_training(
            self.dataset,
            self.settings,
            state,
            found,
            started_from=self.started_from,
            sampling=self.settings.sampling,
        )
        save_denoiser(folder, self.config, found.weights, about)
        if state.finished:
            forget_best(folder)
