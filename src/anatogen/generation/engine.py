"""The sampling engine: from requests to images with a trained denoiser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.conditioning.encode import Condition
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.solvers import SOLVERS, Callback
from anatogen.errors import SettingsError
from anatogen.generation.request import Request
from anatogen.model import Denoiser, load_denoiser
from anatogen.runtime import autocast, derive_seed, pick_device
from anatogen.training.config import SamplingSettings


class Generator:
    """A trained denoiser that makes images from label maps.

    >>> generator = Generator.load("runs/liver")                                    # doctest: +SKIP
    >>> images = generator.sample(labels, given=["liver"], seeds=range(8))          # doctest: +SKIP
    """

    def __init__(
        self,
        denoiser: Denoiser,
        settings: SamplingSettings,
        *,
        device: str = "auto",
        model_hash: str = "",
        about: dict[str, Any] | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.denoiser = denoiser.placed(self.device).eval()
        self.settings, self.model_hash, self.about = settings, model_hash, about or {}
        self.schema, self.size = denoiser.schema, denoiser.config.size

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> Generator:
        """The generator in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        denoiser, about = load_denoiser(run)
        digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()[:16]
        settings = SamplingSettings.model_validate(about.get("sampling", {}))
        return cls(denoiser, settings, device=device, model_hash=digest, about=about)

    def sample(
        self,
        labels: NDArray[np.integer],
        *,
        given: Sequence[str] | None = None,
        free: Sequence[str] | None = None,
        seeds: Iterable[int] = (0,),
        steps: int | None = None,
        solver: str | None = None,
        batch_size: int = 16,
    ) -> NDArray[np.float32]:
        """Images (len(seeds), C, *spatial) in [-1, 1] for one label map (*spatial) of class indices.

        given, free: class names; by default all are given. The same seed gives the same image.
        Raises SettingsError for an unknown class, or a label map of another shape.
        """
        if labels.shape != self.size:
            raise SettingsError(f"the label map has shape {labels.shape}, the model makes {self.size}")
        if labels.min() < 0 or labels.max() >= self.schema.count:
            raise SettingsError(f"the label map holds values outside 0 to {self.schema.count - 1}")
        states = self.schema.states(given=given, free=free)
        settings = self.with_settings(steps=steps, solver=solver)
        requests = [Request(f"{i}", labels.astype(np.int64), states, seed) for i, seed in enumerate(seeds)]
        return np.stack([image for _, image in self.generate(requests, settings, batch_size=batch_size)])

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """The run's own sampling settings with `changes`, of which None changes nothing."""
        return SamplingSettings.model_validate(
            {**self.settings.model_dump(), **{key: value for key, value in changes.items() if value is not None}}
        )

    @torch.no_grad()
    def generate(
        self,
        requests: Iterable[Request],
        settings: SamplingSettings | None = None,
        *,
        batch_size: int = 16,
        callback: Callback | None = None,
    ) -> Iterator[tuple[Request, NDArray[np.float32]]]:
        """Each request with its image (C, *spatial) in [-1, 1], in their order, made `batch_size` at a time.

        An image depends on its request alone: its noise comes from its own seed, on the CPU.
        """
        settings = settings or self.settings
        path = self.denoiser.path
        times = path.times(settings.steps)
        shape = (self.denoiser.config.image_channels, *self.size)
        remaining = iter(requests)
        while batch := list(islice(remaining, batch_size)):
            condition = Condition(
                torch.from_numpy(np.stack([r.labels for r in batch])), torch.tensor([r.states.given for r in batch])
            ).to(self.device)
            noise = SampleNoise([derive_seed("sample", r.seed) for r in batch], shape, self.device)
            with autocast(self.device, settings.precision):
                images = SOLVERS[settings.solver](
                    self.denoiser.under(condition),
                    noise() * float(path.sigma(times[0])),
                    times,
                    path,
                    eta=settings.eta,
                    noise=noise,
                    clip=settings.clip,
                    callback=callback,
                )
            yield from zip(batch, images.float().clamp(-1, 1).cpu().numpy(), strict=True)
