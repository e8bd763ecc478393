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
from torch import Tensor

from anatogen.conditioning.encode import Condition
from anatogen.device import autocast, pick_device
from anatogen.diffusion.interpolate import Mixing, mix
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.path import DDPMPath
from anatogen.diffusion.solvers import SOLVERS, Callback
from anatogen.errors import SettingsError
from anatogen.generation.request import Likeness, ModelGeometry, Request
from anatogen.model import AboutModel, Denoiser, load_denoiser
from anatogen.sampling import SamplingSettings
from anatogen.seeds import derive_seed


class Generator:
    """A trained denoiser that makes images from label maps.

    >>> from anatogen import Generator, PreparedDataset
    >>> data, generator = PreparedDataset.open("data/liver"), Generator.load("runs/liver")
    >>> item = data.load(data.split("test")[:1])
    >>> labels, real = item.labels[0].numpy(), item.images[0].numpy()
    >>> generator.sample(labels).shape == (1, *real.shape)
    True
    """

    def __init__(
        self,
        denoiser: Denoiser,
        settings: SamplingSettings,
        *,
        device: str = "auto",
        model_hash: str = "",
        about: AboutModel | None = None,
        run: str = "",
    ) -> None:
        self.run = run  # the name of its folder
        self.device = pick_device(device)
        self.denoiser = denoiser.placed(self.device).eval()
        self.settings, self.model_hash, self.about = settings, model_hash, about or AboutModel()
        self.schema, self.size = denoiser.schema, denoiser.config.size

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> Generator:
        """The generator in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        denoiser, about = load_denoiser(run)
        digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()[:16]
        return cls(denoiser, about.sampling, device=device, model_hash=digest, about=about, run=run.resolve().name)

    @property
    def geometry(self) -> ModelGeometry:
        """What label maps it takes."""
        dataset = self.about.dataset
        values = dataset.label_values if dataset is not None else None
        return ModelGeometry(self.schema, self.size, self.about.axis, self.about.spacing_mm, values)

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
        Raises SettingsError for an unknown class, one that is both given and free, an unknown solver, or a label map of
        another shape.

        >>> images = generator.sample(labels, free=generator.schema.names[-1:], seeds=range(4), steps=8)
        >>> len(images), float(images.min()) >= -1, float(images.max()) <= 1
        (4, True, True)
        """
        self._require_map(labels)
        states = self.schema.states(given=given, free=free)
        settings = self.with_settings(steps=steps, solver=solver)
        requests = [Request(f"{i}", labels.astype(np.int64), states, seed) for i, seed in enumerate(seeds)]
        return np.stack([image for _, image in self.generate(requests, settings, batch_size=batch_size)])

    def interpolate(
        self,
        labels: NDArray[np.integer],
        real: NDArray[np.float32],
        similarities: Sequence[float] = (0.25, 0.5, 0.75),
        *,
        given: Sequence[str] | None = None,
        free: Sequence[str] | None = None,
        seed: int = 0,
        step: int = 240,
        mixing: Mixing = "variance_preserving",
        steps: int | None = None,
        solver: str | None = None,
        batch_size: int = 16,
    ) -> NDArray[np.float32]:
        """Images (len(similarities), C, *spatial) in [-1, 1] for one label map, more and more alike to `real` (C, *spatial).

        Konz et al. 2024, section 3.2.2; similarity is 1 - lambda, in [0, 1). See `Likeness`. Raises SettingsError as
        `sample` does, and for a similarity out of range or an image of another shape.

        >>> alike = generator.interpolate(labels, real, [0.25, 0.5, 0.75], given=generator.schema.names[:1])
        >>> alike.shape == (3, *real.shape)
        True
        """
        self._require_map(labels)
        if real.shape != (self.denoiser.config.image_channels, *self.size):
            raise SettingsError(
                f"the real image has shape {real.shape}, the model makes {(self.denoiser.config.image_channels, *self.size)}"
            )
        states = self.schema.states(given=given, free=free)
        requests = [
            Request(str(i), labels.astype(np.int64), states, seed, likeness=Likeness(real, s, step, mixing))
            for i, s in enumerate(similarities)
        ]
        settings = self.with_settings(steps=steps, solver=solver)
        return np.stack([image for _, image in self.generate(requests, settings, batch_size=batch_size)])

    def _require_map(self, labels: NDArray[np.integer]) -> None:
        if labels.shape != self.size:
            raise SettingsError(f"the label map has shape {labels.shape}, the model makes {self.size}")
        if labels.min() < 0 or labels.max() >= self.schema.count:
            raise SettingsError(f"the label map holds values outside 0 to {self.schema.count - 1}")

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """The run's own sampling settings with `changes`, of which None changes nothing.

        Raises SettingsError for an unknown solver or a value out of range.
        """
        return self.settings.changed(**{key: value for key, value in changes.items() if value is not None})

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
        remaining = iter(requests)
        while batch := list(islice(remaining, batch_size)):
            with autocast(self.device, settings.precision):
                images = self._solve(batch, settings, callback)
            yield from zip(batch, images.float().clamp(-1, 1).cpu().numpy(), strict=True)

    def _solve(self, batch: list[Request], settings: SamplingSettings, callback: Callback | None) -> Tensor:
        path = self.denoiser.path
        times = path.times(settings.steps, settings.grid)
        condition = Condition.of(
            torch.from_numpy(np.stack([r.labels for r in batch])), torch.tensor([r.states.given for r in batch])
        )
        denoise = self.denoiser.under(condition.to(self.device))
        shape = (self.denoiser.config.image_channels, *self.size)
        noise = SampleNoise([derive_seed("sample", r.seed) for r in batch], shape, self.device)

        def walk(x: Tensor, along: Tensor) -> Tensor:
            return SOLVERS[settings.solver](
                denoise, x, along, path, eta=settings.eta, noise=noise, clip=settings.clip, callback=callback
            )

        start = noise() * float(path.sigma(times[0]))
        alike = [r.likeness for r in batch if r.likeness is not None]
        if not alike:
            return walk(start, times)
        if len(alike) < len(batch) or len({(a.step, a.mixing) for a in alike}) > 1:
            raise ValueError("requests of one batch must all be alike to an image, at one step and by one mixing")
        # Halt where the paper does, whatever the path: at the noise-to-image ratio of its step.
        paper, at = DDPMPath(), torch.tensor(alike[0].step / 1000, dtype=torch.float64)
        halt = path.time_of(paper.sigma(at) / paper.alpha(at))
        before, after = times[times > halt], times[times < halt]
        generated = walk(start, torch.cat([before, halt[None]]))
        mixed = mix(
            torch.from_numpy(np.stack([a.image for a in alike])).to(self.device),
            generated,
            float(halt),
            path,
            torch.tensor([a.similarity for a in alike]).to(self.device),
            SampleNoise([derive_seed("mix", r.seed) for r in batch], shape, self.device),
            alike[0].mixing,
        )
        return walk(mixed, torch.cat([halt[None], after]))
