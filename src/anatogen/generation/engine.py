"""The sampling engine: from requests to images with a trained denoiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.conditioning.attributes import Value, require_attributes
from anatogen.device import autocast, pick_device
from anatogen.diffusion.interpolate import Mixing, NoisedStart, RealStart
from anatogen.diffusion.known import keeping
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.solvers import Callback
from anatogen.errors import SettingsError
from anatogen.model import (
    AboutModel,
    Denoiser,
    Known,
    ModelSpec,
    Noised,
    Q,
    Query,
    Similarity,
    condition_of,
    digest_of_weights,
    load_denoiser,
)
from anatogen.sampling import SamplingSettings, denoiser_under, sample
from anatogen.seeds import derive_seed

_MOST_VOXELS = 16 * 64**3


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
        digest: str = "",
        about: AboutModel | None = None,
        run: str = "",
    ) -> None:
        self.run = run  # the name of its folder
        self.device = pick_device(device)
        self.denoiser = denoiser.placed(self.device).eval()
        self.settings, self.digest, self.about = settings, digest, about or AboutModel()
        self.schema, self.size = denoiser.schema, denoiser.config.size

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> Generator:
        """The generator in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        denoiser, about = load_denoiser(run)
        return cls(
            denoiser, about.sampling, device=device, digest=digest_of_weights(run), about=about, run=run.resolve().name
        )

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        dataset = self.about.dataset
        return ModelSpec(
            self.schema,
            self.size,
            self.about.axis,
            self.about.spacing_mm,
            dataset.label_values if dataset is not None else None,
            channels=self.denoiser.config.image_channels,
            sees_labels=self.denoiser.config.encoding != "none",
            takes_free=self.about.mask_ablation,
            attributes=self.denoiser.config.attributes,
        )

    @property
    def takes_similarity(self) -> Literal[True]:
        """It does."""
        return True

    @property
    def takes_real_starts(self) -> Literal[True]:
        """It does."""
        return True

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    def sample(
        self,
        labels: NDArray[np.integer],
        *,
        given: Sequence[str] | None = None,
        free: Sequence[str] | None = None,
        attributes: Mapping[str, Value] | None = None,
        seeds: Iterable[int] = (0,),
        batch_size: int = 16,
        **sampling: Any,
    ) -> NDArray[np.float32]:
        """Images (len(seeds), C, *spatial) in [-1, 1] for one label map (*spatial) of class indices.

        given, free: class names; by default all are given. attributes: values by name, of those that the model takes;
        the others are unknown. The same seed gives the same image. sampling: solver, steps, guidance and any other of
        `SamplingSettings`, in place of the run's own.
        Raises SettingsError for an unknown class, one that is both given and free, an unknown attribute or value, an
        unknown setting, a label map of another shape, or guidance of a model that was trained without mask ablation.

        >>> images = generator.sample(labels, free=generator.schema.names[-1:], seeds=range(4), steps=8)
        >>> len(images), float(images.min()) >= -1, float(images.max()) <= 1
        (4, True, True)
        """
        self._require_map(labels)
        states = self.schema.states(given=given, free=free)
        settings = self.with_settings(**sampling)
        told = require_attributes(self.denoiser.config.attributes, attributes or {})
        known = {name: value for name, value in told.items() if value is not None}
        asked = [Query(labels.astype(np.int64), states, seed, attributes=known) for seed in seeds]
        return np.stack([image for _, image in self.generate(asked, settings, batch_size=batch_size)])

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
    ) -> NDArray[np.float32]:
        """Images (len(similarities), C, *spatial) in [-1, 1] for one label map, increasingly similar to `real` (C,
        *spatial).

        Konz et al. 2024, section 3.2.2; similarity is 1 - lambda, in [0, 1). See `Similarity`. For another solver or
        number of steps see `sampling_with`. Raises SettingsError as `sample` does, and for a similarity out of range or
        an image of another shape.

        >>> similar = generator.interpolate(labels, real, [0.25, 0.5, 0.75], given=generator.schema.names[:1])
        >>> similar.shape == (3, *real.shape)
        True
        """
        self._require_map(labels)
        if real.shape != (self.denoiser.config.image_channels, *self.size):
            raise SettingsError(
                f"the real image has shape {real.shape}, the model makes "
                f"{(self.denoiser.config.image_channels, *self.size)}"
            )
        states = self.schema.states(given=given, free=free)
        asked = [
            Query(labels.astype(np.int64), states, seed, start=Similarity(real, similarity, step, mixing))
            for similarity in similarities
        ]
        return np.stack([image for _, image in self.generate(asked)])

    def _require_map(self, labels: NDArray[np.integer]) -> None:
        if labels.shape != self.size:
            raise SettingsError(f"the label map has shape {labels.shape}, the model makes {self.size}")
        if labels.min() < 0 or labels.max() >= self.schema.count:
            raise SettingsError(f"the label map holds values outside 0 to {self.schema.count - 1}")

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """The run's own sampling settings with `changes`, of which None changes nothing.

        Raises SettingsError for an unknown solver, a value out of range, or guidance that the model cannot follow.
        """
        found = self.settings.changed(**{key: value for key, value in changes.items() if value is not None})
        found.check_guidance(
            self.schema, takes_free=self.spec.takes_free, takes_attributes=self.spec.attributes is not None
        )
        return found

    def sampling_with(self, settings: SamplingSettings) -> Self:
        """The same generator with other sampling settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    @torch.no_grad()
    def generate(
        self,
        asked: Iterable[Q],
        settings: SamplingSettings | None = None,
        *,
        batch_size: int = 16,
        callback: Callback | None = None,
    ) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, *spatial) in [-1, 1], in their order, made `batch_size` at a time, or fewer
        large volumes.

        An image depends on its query alone: its noise comes from its own seed, on the CPU. A batch may mix queries that
        start from noise with others that start from real images.
        """
        settings = settings or self.settings
        settings.check_guidance(
            self.schema, takes_free=self.spec.takes_free, takes_attributes=self.spec.attributes is not None
        )
        remaining, batch_size = iter(asked), at_most(batch_size, self.size)
        while batch := list(islice(remaining, batch_size)):
            images: dict[int, NDArray[np.float32]] = {}
            for places in _groups(batch):
                with autocast(self.device, settings.precision):
                    made = self._solve([batch[i] for i in places], settings, callback)
                images |= zip(places, made.float().clamp(-1, 1).cpu().numpy(), strict=True)
            yield from ((query, images[i]) for i, query in enumerate(batch))

    def _solve(self, batch: Sequence[Query], settings: SamplingSettings, callback: Callback | None) -> Tensor:
        """Images of queries that all start in the same way."""
        shape = (self.denoiser.config.image_channels, *self.size)
        condition = condition_of(batch, self.device, takes=self.denoiser.config.attributes)
        under = partial(self.denoiser.under, tile=settings.tile)
        denoise = denoiser_under(under, condition, self.denoiser.path, settings, self.schema)
        kept = [query.start for query in batch if isinstance(query.start, Known)]
        if kept:
            denoise = keeping(denoise, self._stacked(each.image for each in kept), self._stacked(k.kept for k in kept))
        return sample(
            denoise,
            self.denoiser.path,
            settings,
            SampleNoise([derive_seed("sample", query.seed) for query in batch], shape, self.device),
            start=self._start(batch, shape),
            callback=callback,
        )

    def _start(self, batch: Sequence[Query], shape: Sequence[int]) -> RealStart | NoisedStart | None:
        noise = SampleNoise([derive_seed("mix", query.seed) for query in batch], shape, self.device)
        similar = [query.start for query in batch if isinstance(query.start, Similarity)]
        if similar:
            return RealStart(
                self._stacked(each.image for each in similar),
                torch.tensor([each.similarity for each in similar]).to(self.device),
                similar[0].step,
                similar[0].mixing,
                noise,
            )
        noised = [query.start for query in batch if isinstance(query.start, Noised)]
        return NoisedStart(self._stacked(each.image for each in noised), noised[0].step) if noised else None

    def _stacked(self, arrays: Iterable[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(list(arrays))).to(self.device)


def at_most(batch_size: int, size: Sequence[int]) -> int:
    """How many images of `size` are made at a time: `batch_size`, of volumes fewer where they are large."""
    return batch_size if len(size) == 2 else max(1, min(batch_size, _MOST_VOXELS // math.prod(size)))


def _groups(batch: Sequence[Query]) -> list[list[int]]:
    """The places of the queries that can be sampled together: those that start in one way."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, query in enumerate(batch):
        key: tuple[object, ...] = (type(query.start),)
        if isinstance(query.start, Similarity):
            key += (query.start.step, query.start.mixing)
        elif isinstance(query.start, Noised):
            key += (query.start.step,)
        groups.setdefault(key, []).append(place)
    return list(groups.values())
