"""What a training would be and take, found by a few measured steps, before anything is written."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatogen.errors import SettingsError
from anatogen.progress import Monitor, watched_by

if TYPE_CHECKING:
    import torch

    from anatogen.generation.kinds import Kind
    from anatogen.training.config import LearnedSettings, TrainingSettings
    from anatogen.training.task import Task


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would be and take.

    Attributes:
        images, patients: Of the training split.
        size: Of an image.
        classes: Their number, the background excluded.
        network: Its name and width.
        parameters: Their number.
        gflops: 10^9 floating-point operations of a forward pass for one image; of a model without steps, of an image.
        device: Where it was measured.
        precision: float32 or bfloat16.
        batch: Images in a step.
        micro_batch: Images in device memory at a time.
        steps: In all; estimated where a time limit is the length.
        seconds_per_step: Measured, the loop and the loading of data included.
        peak_mb: Most memory in use at a time: of the device, on a CPU of the process. None where it is not known.
        memory_mb: What the device has in all; None where it is not known.
        checkpoint_mb: Of one checkpoint.
        trains_segmenter: Whether the previews' auxiliary segmenter would be trained first.
        choices: What the plan chose because the settings leave it open, each with the reason.
        before: The parts that are trained before, which were not measured, each with its length in words.
    """

    images: int
    patients: int
    size: tuple[int, ...]
    classes: int
    network: str
    parameters: int
    gflops: float
    device: str
    precision: str
    batch: int
    micro_batch: int
    steps: int
    seconds_per_step: float
    peak_mb: float | None
    memory_mb: float | None
    checkpoint_mb: float
    trains_segmenter: bool
    before: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of the training, without previews."""
        return self.steps * self.seconds_per_step

    @property
    def images_seen(self) -> int:
        """In all steps."""
        return self.steps * self.batch

    @property
    def epochs(self) -> float:
        """How often each image is seen."""
        return self.images_seen / self.images


def plan_training(
    dataset: Path,
    settings: LearnedSettings | None = None,
    *,
    model: str = "denoiser",
    device: str = "auto",
    monitor: Monitor | None = None,
) -> TrainingPlan:
    """Measure a few steps of a training of `dataset`; nothing of them is kept. model: its kind.

    Raises SettingsError or DataError as `train` does.
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.device import has_bfloat16, pick_device
    from anatogen.generation.kinds import kind_of
    from anatogen.training.config import RunSettings, training_of
    from anatogen.training.planning import seconds_of_step
    from anatogen.training.schedule import Length
    from anatogen.training.space import checkpoint_bytes
    from anatogen.training.train import default_settings, plan_for
    from anatogen.workflows.live import would_train_segmenter

    kind = kind_of(model)
    if kind.system is None:
        raise SettingsError(f"{model} is not trained, so there is nothing to plan", hint="Leave out --plan")
    settings = settings or default_settings(kind.system)
    data = PreparedDataset.open(dataset)
    place, rows = pick_device(device), data.split("train")
    choices: tuple[str, ...] = ()
    if isinstance(settings, RunSettings):
        with watched_by(monitor):
            found = plan_for(data, settings, place)
        settings, choices = found.settings, found.choices
    task = kind.system.task(data, settings, place, None)
    how = training_of(settings)
    batch = min(how.batch_size, len(rows))
    length = Length(how, len(rows), batch)
    with watched_by(monitor):
        seconds, micro = seconds_of_step(data, settings, task)
    limits = [length.end, None if length.seconds is None else int(length.seconds / seconds)]
    bfloat16 = how.precision == "bfloat16" or (how.precision == "auto" and has_bfloat16(place))
    return TrainingPlan(
        images=len(rows),
        patients=len({row.patient for row in rows}),
        size=data.size,
        classes=len(data.schema.names),
        network=_name(model, settings),
        parameters=sum(p.numel() for p in task.phases[0].module.parameters()),
        gflops=_gflops(kind, task, settings),
        device=str(place),
        precision="bfloat16" if bfloat16 else "float32",
        batch=batch,
        micro_batch=micro,
        steps=max(1, min(limit for limit in limits if limit is not None)),
        seconds_per_step=seconds,
        peak_mb=_peak_mb(place),
        memory_mb=_memory_mb(place),
        checkpoint_mb=checkpoint_bytes(task.phases) / 2**20,
        trains_segmenter=would_train_segmenter(data, settings),
        choices=choices,
        before=tuple((part.name, _in_words(part.settings(settings).training)) for part in kind.system.before),
    )


def _in_words(how: TrainingSettings) -> str:
    """The length of a training: "300 steps"."""
    from anatogen.progress import format_duration

    limits = [None if how.steps is None else f"{how.steps:,} steps"]
    limits += [None if how.epochs is None else f"{how.epochs:g} epochs"]
    limits += [None if how.max_time_s is None else format_duration(how.max_time_s)]
    return " or ".join(limit for limit in limits if limit)


def _name(model: str, settings: LearnedSettings) -> str:
    network = getattr(settings, "network", None)
    if network is None:
        return model
    return f"{network.name}, width {network.width}" if network.name == "hourglass" else str(network.name)


def _gflops(kind: Kind, task: Task[Any], settings: LearnedSettings) -> float:
    """Counted by PyTorch: of one forward pass of a denoiser for one image, of other models of making one image."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from anatogen.labels import ClassStates
    from anatogen.model import HasDenoiser, HasSteps, Query

    assert kind.generator is not None
    model = kind.generator(task.model(), settings, str(task.device))
    if isinstance(model, HasDenoiser) and isinstance(model, HasSteps):
        model = model.sampling_with(model.with_settings(solver="ddim", steps=1))
    query = Query(np.zeros(model.spec.size, dtype=np.int64), ClassStates.all_given(model.spec.schema), seed=0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        next(iter(model.generate([query])))
    return counter.get_total_flops() / 1e9


def _peak_mb(device: torch.device) -> float | None:
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    if device.type == "mps":
        return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes elsewhere


def _memory_mb(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.get_device_properties(device).total_memory / 2**20
