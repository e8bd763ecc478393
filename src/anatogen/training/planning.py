"""Defaults that fit the data: the width of the network and the length of a training, where the user chose neither.

What is planned is written to config.yaml, so that a resume does not plan again. The number of passes was measured
("Few patients" in benchmarks/RESULTS.md); the numbers of images are rules of thumb.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anatogen.data.augment import Augment
from anatogen.data.loader import Loader
from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.distributed import current_group
from anatogen.metrics.texture import local_noise
from anatogen.model import NetworkConfig
from anatogen.networks.hourglass import HourglassConfig
from anatogen.networks.levels import plan_levels, planned_channels
from anatogen.progress import format_duration, stage
from anatogen.training.config import LearnedSettings, RunSettings, TrainingSettings, training_of
from anatogen.training.fit import fit
from anatogen.training.probe import micro_batch_of
from anatogen.training.task import Task

MOST_EPOCHS = 40
"""Passes over the training images with AdamW: a model of 20 patients began to copy between 27 and 54."""
LEAST_IMAGES = 8_000
"""Images seen at least, in however many passes, with AdamW; a rule of thumb."""
ENOUGH_IMAGES = 24_000
"""Images for which the widest of `WIDTHS` is taken; a narrower one sees more in the same time. A rule of thumb."""
PACE = {"adamw": 1.0, "muon": 3.0}
"""How much faster an optimizer learns, and learns by heart: the numbers above are divided by it.

Measured on 20 patients of one set ("Few patients ..., Muon" in benchmarks/RESULTS.md)."""
WIDTHS = (64, 48, 32)
OF_THE_HOURGLASS = {"optimizer": "muon", "learning_rate": 1e-3}
"""Learns as much from a third of the images ("Optimizers" in benchmarks/RESULTS.md)."""
OF_VOLUMES: dict[str, dict[str, Any]] = {
    "training": {"batch_size": 2, "learning_rate": 1e-3, "decay_share": 0.4},
    "diffusion": {"stratified": True},
}
"""For volumes, of which a training sees few: many steps of small batches."""
LITTLE_NOISE = 0.05
"""Where images have less noise than that, a share of the training times is for texture: the others seldom have less."""
LOW_NOISE_SHARE = 0.15
"""Of the training times, for texture. Hippocampus slices, whose noise is 0.07, follow their map a little more closely
without; head-and-neck CT, with 0.02, gains ("Training times" in benchmarks/RESULTS.md)."""
SMALLEST_NOISE = 0.005
"""Images with less are trained as if they had that much: a gray level of 8 bits is 0.008."""
_MEASURED_FOR_NOISE = 64, 2**26  # images, pixels at most
_COST = 1.7  # the time of an image grows with that power of the width (measured between 32 and 64)
_WORTH_MEASURING = 60.0  # seconds of training
_WARM_UP, _MEASURED = 2, 5  # steps


@dataclass(frozen=True)
class Planned:
    """Settings in which nothing is left to plan, and what was chosen, each with the reason."""

    settings: RunSettings
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """What a plan depends on.

    Attributes:
        images: Of the training split.
        size: (H, W) or (D, H, W), of the crops where it is trained on crops.
        spacing_mm: Along the same axes, None where unknown.
        channels: Of an image.
        parts: How many crops have as many voxels as an image.
        noise: The median `local_noise` of the images, None where unknown.
    """

    images: int
    size: tuple[int, ...] = (64, 64)
    spacing_mm: tuple[float, ...] | None = None
    channels: int = 1
    parts: float = 1.0
    noise: float | None = None

    @property
    def slices(self) -> int:
        """Of an image: 1, or the number of planes across the shortest side of a volume."""
        return min(self.size) if len(self.size) == 3 else 1


def plan(settings: RunSettings, data: Data, seconds_per_image: Callable[[], float] | None = None) -> Planned:
    """Choose what `settings` leave open.

    Args:
        settings: Of the preset `fast`; others are taken as they are. A value that was given, in whatever way, stays.
        data: What is trained on.
        seconds_per_image: Measures a training of the widest network; called for a time limit only. None: not measured.
    """
    if settings.preset != "fast" or settings.training.start_from is not None:
        return Planned(settings)
    choices = list[str]()
    settings = _with_optimizer(settings)
    if len(data.size) == 3:
        settings = _for_volumes(settings)
    if data.noise is not None:
        settings, told = _with_times(settings, data.noise)
        choices += told
    how, network = settings.training, settings.network
    pace = PACE[how.optimizer]
    epochs = max(float(MOST_EPOCHS), LEAST_IMAGES / data.slices / data.images) * data.parts / pace
    if _is_open(how):
        settings = settings.model_copy(update={"training": how.model_copy(update={"epochs": round(epochs, 1)})})
        if how.steps is None or epochs * data.images < how.steps * how.batch_size:
            choices.append(
                f"at most {epochs:.0f} epochs: of {data.images:,} images, those seen more often may be learned by "
                "heart (training.epochs)"
            )
    if isinstance(network, HourglassConfig):
        if "width" not in network.model_fields_set:
            width, reason = _width(epochs * data.images, data.slices * pace, how.max_time_s, seconds_per_image)
            network = network.model_copy(update={"width": width})
            if reason:
                choices.append(f"width {width}: {reason} (network.width)")
        if len(data.size) == 3:
            network = shaped(network, data)
        settings = settings.model_copy(update={"network": network})
    return Planned(settings, tuple(choices))


def _with_optimizer(settings: RunSettings) -> RunSettings:
    """`settings` with the optimizer of the hourglass, where none was given, and its rate, where that was not."""
    how = settings.training
    if not isinstance(settings.network, HourglassConfig) or "optimizer" in how.model_fields_set:
        return settings
    changes = {key: value for key, value in OF_THE_HOURGLASS.items() if key not in how.model_fields_set}
    return settings.model_copy(update={"training": how.model_copy(update=changes)})


def _for_volumes(settings: RunSettings) -> RunSettings:
    """`settings` with what `OF_VOLUMES` has for the values that were not given."""
    updates = {}
    for name, values in OF_VOLUMES.items():
        section = getattr(settings, name)
        changes = {key: value for key, value in values.items() if key not in section.model_fields_set}
        updates[name] = section.model_copy(update=changes)
    return settings.model_copy(update=updates)


def _with_times(settings: RunSettings, noise: float) -> tuple[RunSettings, list[str]]:
    """`settings` with training times that reach down to the images' own noise, where the times were not given; and
    what was chosen.

    A model that met so little noise too rarely does not remove it, and its images keep it: flat tissue is grainy, most
    of all where the real noise is far below the contrasts, as in CT.
    """
    how, least = settings.diffusion, max(noise, SMALLEST_NOISE)
    if how.times != "logit_normal" or noise >= LITTLE_NOISE:
        return settings, []
    found = {"low_noise_share": LOW_NOISE_SHARE, "least_noise": least, "smallest_sigma": round(min(0.05, least / 2), 4)}
    changes = {key: value for key, value in found.items() if key not in how.model_fields_set}
    told = f"{100 * LOW_NOISE_SHARE:.0f} % of the training times with little noise: the images' own noise is {noise:g} "
    choices = [f"{told}(diffusion.low_noise_share)"] if "low_noise_share" in changes else []
    return settings.model_copy(update={"diffusion": how.model_copy(update=changes)}), choices


def typical_noise(dataset: PreparedDataset) -> float | None:
    """The median `local_noise` of training images, to two digits; None where too few pixels can be measured."""
    rows = dataset.split("train")
    images, pixels = _MEASURED_FOR_NOISE
    count = min(len(rows), images, max(1, pixels // math.prod(dataset.size)))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
    found = np.concatenate([local_noise(batch.images.numpy()) for batch in dataset.batches(chosen, 8)])
    found = found[np.isfinite(found)]
    return float(f"{np.median(found):.2g}") if len(found) else None


def shaped(network: HourglassConfig, data: Data) -> HourglassConfig:
    """`network` with patches, halvings and channels for volumes of that size and spacing, where it leaves them open."""
    given = network.model_fields_set
    if network.halvings is None and "patch" not in given:
        levels = plan_levels(data.size, data.spacing_mm, smallest=network.smallest)
        network = network.model_copy(update={"patch": levels.patch, "halvings": levels.halvings})
    levels = network.levels(data.size)
    if network.channels is None:
        network = network.model_copy(update={"channels": planned_channels(levels, network.width, data.channels)})
    return network


def _is_open(how: TrainingSettings) -> bool:
    """Whether no number of steps or epochs was given; None is none."""
    return how.epochs is None and (how.steps is None or "steps" not in how.model_fields_set)


def _width(
    images: float, pace: float, limit: float | None, seconds_per_image: Callable[[], float] | None
) -> tuple[int, str]:
    """The width for `images` to be seen, at most, within a time limit; and why it is not the widest.

    pace: how many slices to AdamW an image is.
    """
    enough = ENOUGH_IMAGES / pace
    if images < enough:
        return WIDTHS[-1], f"the training sees {images:,.0f} images, too few for a wider network"
    if limit is None or seconds_per_image is None:
        return WIDTHS[0], ""
    if limit < _WORTH_MEASURING:
        return WIDTHS[-1], f"{format_duration(limit)} are too short for a wider network"
    widest = seconds_per_image()
    for width in WIDTHS:
        seen = limit / (widest * (width / WIDTHS[0]) ** _COST)
        if seen >= enough:
            break
    if width == WIDTHS[0]:
        return width, ""
    return width, f"a wider network would see fewer than {enough:,.0f} images in {format_duration(limit)}"


def planned(dataset: PreparedDataset, settings: RunSettings, measure: Callable[[RunSettings], float]) -> Planned:
    """The plan for a training of `dataset`. measure: seconds of a step with these settings."""

    def seconds_per_image() -> float:
        how = _for_volumes(_with_optimizer(settings)) if len(data.size) == 3 else _with_optimizer(settings)
        widest: NetworkConfig = settings.network.model_copy(update={"width": WIDTHS[0]})
        if len(data.size) == 3 and isinstance(widest, HourglassConfig):
            widest = shaped(widest, data)
        return measure(how.model_copy(update={"network": widest})) / how.training.batch_size

    size = settings.training.crop or dataset.size
    parts = math.prod(dataset.size) / math.prod(size)
    images, noise = len(dataset.split("train")), typical_noise(dataset)
    data = Data(images, size, typical_spacing(dataset), dataset.channels, parts, noise)
    return plan(settings, data, seconds_per_image)


def adopting(asked: RunSettings, own: RunSettings) -> RunSettings:
    """`asked`, with what it leaves to be planned taken from the settings of the run that is resumed."""
    planned_in: dict[str, tuple[str, ...]] = {name: tuple(values) for name, values in OF_VOLUMES.items()}
    planned_in["diffusion"] = (*planned_in["diffusion"], "low_noise_share", "least_noise", "smallest_sigma")
    planned_in["training"] = tuple({*planned_in["training"], *OF_THE_HOURGLASS})
    if isinstance(asked.network, HourglassConfig) and isinstance(own.network, HourglassConfig):
        planned_in["network"] = ("width", "patch", "halvings", "channels")
    updates: dict[str, object] = {}
    for name, keys in planned_in.items():
        section, theirs = getattr(asked, name), getattr(own, name)
        changes = {key: getattr(theirs, key) for key in keys if key not in section.model_fields_set}
        if name == "training" and _is_open(asked.training):
            changes["epochs"] = own.training.epochs
        updates[name] = section.model_copy(update=changes)
    return asked.model_copy(update=updates)


def seconds_of_step(dataset: PreparedDataset, settings: LearnedSettings, task: Task[Any]) -> tuple[float, int]:
    """Seconds of a training step, the loading of data included, and the micro-batch.

    Measured in the training loop itself, in a folder that is removed. In a group all processes measure together, and
    the seconds are those of the first.
    """
    how, times = training_of(settings), list[float]()
    augment, train = Augment(settings.augment), dataset.split("train")
    loader = Loader(dataset, train, how.batch_size, how.seed, augment=augment, crop=how.crop)
    micro = micro_batch_of(task, loader, how)
    lengths = {"steps": _WARM_UP + _MEASURED, "epochs": None, "max_time_s": None, "micro_batch_size": micro}
    with tempfile.TemporaryDirectory() as folder, stage("measuring", _WARM_UP + _MEASURED, "steps") as bar:

        def note(share: float, text: str) -> None:  # noqa: ARG001
            _wait(task)
            times.append(time.perf_counter())
            bar.update(len(times) - 1)

        fit(task, loader, how.model_copy(update=lengths), Path(folder), progress=note)
    if not current_group().is_first:
        return current_group().first(lambda: 0.0), micro
    spent = [later - earlier for earlier, later in zip(times[_WARM_UP:], times[_WARM_UP + 1 :], strict=False)]
    return current_group().first(lambda: sorted(spent)[len(spent) // 2]), micro


def _wait(task: Task[Any]) -> None:
    if task.device.type == "cuda":
        import torch

        torch.cuda.synchronize()
