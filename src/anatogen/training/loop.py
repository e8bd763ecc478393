"""The training loop (Konz et al. 2024, Eq. 1 and Algorithm 1), read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from anatogen.conditioning.ablate import draw_given
from anatogen.conditioning.encode import Condition
from anatogen.data.augment import Augment
from anatogen.data.loader import Loader
from anatogen.data.placement import typical_spacing
from anatogen.data.statistics import channel_statistics
from anatogen.data.store import PreparedDataset
from anatogen.device import autocast, pick_device
from anatogen.diffusion.loss import denoising_loss, draw_times
from anatogen.diffusion.target import ASSUMED_MEAN, ASSUMED_STD
from anatogen.errors import Interrupted, SettingsError
from anatogen.files import writing
from anatogen.model import Denoiser, DenoiserConfig, save_denoiser
from anatogen.seeds import derive_seed
from anatogen.training.config import RunSettings, TrainingSettings
from anatogen.training.monitor import MetricsLog
from anatogen.training.state import MovingAverage, TrainingState

ProgressCallback = Callable[[float, str], None]


def denoiser_config(dataset: PreparedDataset, settings: RunSettings) -> DenoiserConfig:
    """The denoiser that `settings` ask for on `dataset`."""
    mean: tuple[float, ...] = (ASSUMED_MEAN,)
    std: tuple[float, ...] = (ASSUMED_STD,)
    if settings.diffusion.data_statistics == "measured":
        mean, std = channel_statistics(dataset)
    return DenoiserConfig(
        image_channels=dataset.channels,
        size=dataset.size,
        classes=tuple((c.name, c.colour) for c in dataset.schema.classes),
        encoding=settings.conditioning.encoding,
        path=settings.diffusion.path,
        target=settings.diffusion.target,
        data_mean=mean,
        data_std=std,
        network=settings.network,
    )


def train(
    dataset: PreparedDataset | str | Path,
    out: str | Path,
    settings: RunSettings | None = None,
    *,
    device: str = "auto",
    version: str = "",
    progress: ProgressCallback | None = None,
) -> Path:
    """Train a denoiser on the split "train" of `dataset` and write the run to the new folder `out`.

    progress: called after each step as progress(share of the training done in [0, 1], text). Returns `out`. Raises
    SettingsError where the settings do not fit the data or `out` is taken, and Interrupted, after saving the model
    so far, on Ctrl-C.
    """
    settings = settings or RunSettings()
    dataset = dataset if isinstance(dataset, PreparedDataset) else PreparedDataset.open(dataset)
    out = Path(out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")

    place = pick_device(device)
    how = settings.training
    torch.manual_seed(derive_seed("weights", how.seed))  # the networks' initial weights; everything else has its own
    config = denoiser_config(dataset, settings)
    denoiser = Denoiser(config).placed(place)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay, fused=place.type in ("cpu", "cuda")
    )
    state = TrainingState(denoiser, optimizer, MovingAverage(denoiser, how.ema_decay))
    loader = Loader(dataset, dataset.split("train"), how.batch_size, how.seed, augment=Augment(settings.augment))
    budget = Budget(how, len(loader.rows))
    generator = torch.Generator(place).manual_seed(derive_seed("noise", how.seed))

    out.mkdir(parents=True, exist_ok=True)
    with writing(out / "config.yaml") as path:
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    spacing = typical_spacing(dataset)
    log = MetricsLog(out / "metrics.jsonl", how.batch_size)

    def save() -> None:
        about = {
            **state.summary(how.batch_size),
            "version": version,
            "dataset": dataset.info.source,
            "trained_on": dataset.digest_of("train"),
            "axis": dataset.info.axis,
            "spacing_mm": spacing,
            "channels": list(dataset.info.channels),
            "notice": dataset.info.notice,
            "mask_ablation": settings.conditioning.mask_ablation,
            "sampling": settings.sampling.model_dump(mode="json"),
        }
        save_denoiser(out, config, state.ema.weights, about)

    start = time.monotonic()
    stream = loader.stream()
    try:
        while (share := budget.share(state.step, state.seconds)) < 1:
            rate = learning_rate(how, state.step, share)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(stream)
            x0 = batch.images.to(place, memory_format=denoiser.memory_format, non_blocking=True)
            given = batch.annotated.to(place)
            if settings.conditioning.mask_ablation:
                given = draw_given(given, generator, ablated_share=settings.conditioning.ablated_share)
            condition = Condition.of(batch.labels.to(place), given)
            t = draw_times(
                settings.diffusion.times,
                len(x0),
                generator,
                denoiser.path,
                mean=settings.diffusion.time_mean,
                spread=settings.diffusion.time_spread,
                device=place,
            )
            eps = torch.randn(x0.shape, generator=generator, device=place).contiguous(
                memory_format=denoiser.memory_format
            )
            with autocast(place, how.precision):
                denoise = denoiser.under(condition)
                loss = denoising_loss(
                    denoise,
                    denoiser.path,
                    x0,
                    eps,
                    t,
                    weighting=settings.diffusion.weighting,
                    smallest_sigma=settings.diffusion.smallest_sigma,
                    ignored=None if batch.ignored is None else batch.ignored.to(place),
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), how.gradient_norm)
            optimizer.step()
            state.ema.update(denoiser)
            state.step += 1
            state.seconds = time.monotonic() - start
            text = log.add(state.step, loss.item(), rate)
            if progress is not None:
                progress(budget.share(state.step, state.seconds), text or "")
    except KeyboardInterrupt as stopped:
        if state.step == 0:
            raise Interrupted("training was stopped before its first step, nothing was saved", path=out) from stopped
        save()
        raise Interrupted(
            f"training was stopped after step {state.step}; the model so far is saved as model.safetensors", path=out
        ) from stopped
    finally:
        stream.close()
        log.close()
    save()
    return out


class Budget:
    """How long to train: the first of steps, epochs and seconds that is reached."""

    def __init__(self, settings: TrainingSettings, images_per_epoch: int) -> None:
        by_epochs = settings.epochs and math.ceil(settings.epochs * images_per_epoch / settings.batch_size)
        limits = [n for n in (settings.steps, by_epochs) if n]
        self.steps = min(limits) if limits else None
        self.seconds = settings.max_time_s
        if self.steps is None and self.seconds is None:
            raise SettingsError("nothing says how long to train", hint="Give --steps, --epochs or --max-time")

    def share(self, step: int, seconds: float) -> float:
        """The part that is done, 1 at the end."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))


def learning_rate(settings: TrainingSettings, step: int, share: float) -> float:
    """The learning rate of step `step` = 0, 1, ..., when `share` of the training is done."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * share))
    if settings.schedule == "decay":
        return rate * min(1.0, (1 - share) / settings.decay_share)
    return rate
