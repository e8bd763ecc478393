"""A trained latent diffusion model as an `ImageModel`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.baselines.document import (
    batches_of,
    digest_of_state,
    read_baseline,
    spec_of,
    with_weights,
)
from anatogen.baselines.latent.network import LatentConfig, LatentNetwork
from anatogen.device import autocast, pick_device
from anatogen.diffusion.noise import SampleNoise
from anatogen.model import AboutModel, ModelSpec, Q, RunDocument, condition_of, digest_of_weights
from anatogen.sampling import SamplingSettings, denoiser_under, sample
from anatogen.seeds import derive_seed

LATENT = "latent"


class LatentDocument(RunDocument):
    """model.json of a latent diffusion model; the weights of autoencoder and denoiser lie beside it."""

    kind: Literal["latent"] = "latent"
    latent: LatentConfig


class LatentModel:
    """Walks from noise to a code with our solvers, and decodes it."""

    def __init__(
        self, network: LatentNetwork, about: AboutModel, *, device: str = "auto", run: str = "", digest: str = ""
    ) -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.about, self.run, self.settings = about, run, about.sampling
        self.digest = digest or digest_of_state(network)

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> LatentModel:
        """The model in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        document = read_baseline(LatentDocument, run)
        network = with_weights(LatentNetwork(document.latent), run)
        return cls(network, document.about, device=device, run=run.resolve().name, digest=digest_of_weights(run))

    @classmethod
    def around(cls, network: LatentNetwork, settings: Any, device: str) -> LatentModel:
        """The model of a network that is being trained."""
        about = AboutModel(mask_ablation=settings.conditioning.mask_ablation, sampling=settings.sampling)
        return cls(network, about, device=device)

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return spec_of(self.network.config, self.about)

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """Its sampling settings with `changes`, of which None changes nothing."""
        found = self.settings.changed(**{key: value for key, value in changes.items() if value is not None})
        found.check_guidance(self.spec.schema, takes_free=self.spec.takes_free)
        return found

    def sampling_with(self, settings: SamplingSettings) -> Self:
        """The same model with other sampling settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    @torch.no_grad()
    def reconstruct(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (B, C, *spatial) through the autoencoder alone: what the model can never pass."""
        made = self.network.reconstruct(torch.from_numpy(images).to(self.device))
        return np.asarray(made.float().cpu().numpy())

    @torch.no_grad()
    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, *spatial) in [-1, 1], in their order."""
        denoiser, shape, spec = self.network.denoiser, self.network.autoencoder.code_size, self.spec
        self.settings.check_guidance(spec.schema, takes_free=spec.takes_free)
        for batch in batches_of(asked, batch_size):
            seeds = [derive_seed("sample", query.seed) for query in batch]
            with autocast(self.device, self.settings.precision):
                condition = condition_of(batch, self.device)
                denoise = denoiser_under(denoiser.under, condition, denoiser.path, self.settings, spec.schema)
                codes = sample(denoise, denoiser.path, self.settings, SampleNoise(seeds, shape, self.device))
                images = self.network.decode(codes)
            yield from zip(batch, images.float().cpu().numpy(), strict=True)
