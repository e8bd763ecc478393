"""What the tasks of all learned systems record of a training: its recipe, and what becomes of it as a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anatogen import __version__
from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.model import AboutModel, DatasetOrigin
from anatogen.training.best import Best
from anatogen.training.config import LearnedSettings
from anatogen.training.state import MovingAverage, TrainingState

# What a resume may change: the length, and settings that affect neither the data nor the resulting weights.
LENGTHS = ("training.steps", "training.epochs", "training.max_time_s")
FREE_ON_RESUME = (
    *LENGTHS,
    "training.micro_batch_size",
    "training.activation_checkpointing",
    "training.compile",
    "training.checkpoint_every",
    "training.checkpoints_kept",
    "training.disk_gb",
    "live.previews",
    "live.dice",
    "live.maps",
    "live.share",
    "live.seed",
)


def recipe_of(settings: LearnedSettings, dataset: PreparedDataset) -> Mapping[str, str]:
    """The settings and the data that a checkpoint belongs to.

    Settings at their defaults are left out, so that one which a later version adds does not end a training.
    """
    free = {name.removeprefix("training.") for name in FREE_ON_RESUME if name.startswith("training.")}
    kept = settings.model_dump_json(exclude={"training": free, "live": True}, exclude_defaults=True)
    return {"settings": hashlib.sha256(kept.encode()).hexdigest()[:16], "training data": dataset.digest_of("train")}


@dataclass(frozen=True)
class Exported:
    """The weights that become the model, and the preview that chose them, where one did (`live.best`)."""

    weights: Mapping[str, Tensor]
    chosen: Best | None = None


def weights_to_export(
    folder: Path, settings: LearnedSettings, state: TrainingState, average: MovingAverage
) -> Exported:
    """The averaged weights, or with `live.best` the best of a finished training in the run `folder`."""
    best = Best.of(folder) if settings.live.chooses and state.finished else None
    return Exported(average.weights) if best is None else Exported(best.weights(folder), best)


def about_training(
    dataset: PreparedDataset, settings: LearnedSettings, state: TrainingState, found: Exported, **more: Any
) -> AboutModel:
    """What is known of the model of a training; `more` are further fields."""
    info = dataset.info
    return AboutModel(
        steps=state.step,
        images=state.images,
        seconds=round(state.seconds, 1),
        finished=state.finished,
        skipped_steps=state.skipped,
        seed=settings.training.seed,
        version=__version__,
        dataset=DatasetOrigin.model_validate(info.source),
        trained_on=dataset.digest_of("train"),
        axis=info.axis,
        spacing_mm=typical_spacing(dataset),
        channels=tuple(info.channels),
        notice=info.notice,
        mask_ablation=settings.conditioning.mask_ablation,
        regions=settings.conditioning.mask_ablation and settings.conditioning.regional_share > 0,
        selected_step=found.chosen.step if found.chosen is not None else None,
        selected_dice=found.chosen.dice if found.chosen is not None else None,
        **more,
    )
