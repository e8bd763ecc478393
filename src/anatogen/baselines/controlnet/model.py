"""A trained ControlNet as an `ImageModel`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.baselines.controlnet.parts import (
    UNET,
    VAE,
    ControlnetConfig,
    ControlnetNetwork,
    read_part,
)
from anatogen.baselines.document import (
    batches_of,
    digest_of_state,
    read_baseline,
    spec_of,
)
from anatogen.device import autocast, pick_device
from anatogen.diffusion.noise import SampleNoise
from anatogen.errors import ModelError, SettingsError
from anatogen.io.tensors import read_tensors
from anatogen.model import AboutModel, ModelSpec, Q, RunDocument, condition_of, digest_of_weights
from anatogen.sampling import SamplingSettings
from anatogen.seeds import derive_seed
from anatogen.training.task import stage_folder

CONTROLNET = "controlnet"
PROMPT = "prompt"
_CONTROL = "control."


class ControlnetDocument(RunDocument):
    """model.json of a ControlNet; the control branch lies beside it, VAE and U-Net in the run's stages."""

    kind: Literal["controlnet"] = "controlnet"
    controlnet: ControlnetConfig


class ControlnetModel:
    """Walks from noise to a code with DDIM, and decodes it (diffusers' `DDIMScheduler`, without guidance)."""

    def __init__(
        self,
        network: ControlnetNetwork,
        about: AboutModel,
        *,
        device: str = "auto",
        run: str = "",
        digest: str = "",
    ) -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.about, self.run, self.settings = about, run, about.sampling
        self.digest = digest or digest_of_state(network.control)

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> ControlnetModel:
        """The model in a run folder. Raises ModelError where a part of it is missing."""
        run = Path(run)
        document = read_baseline(ControlnetDocument, run)
        _, vae = read_part(stage_folder(run, VAE))
        of_unet, unet = read_part(stage_folder(run, UNET))
        try:
            weights = read_tensors(run / "model.safetensors")
            network = ControlnetNetwork(document.controlnet, vae, unet, weights.pop(PROMPT), of_unet.scheduler)
            network.control.load_state_dict({name.removeprefix(_CONTROL): value for name, value in weights.items()})
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ModelError(
                f"the model is damaged or of another version ({reason})", path=run, hint="Train it again"
            ) from error
        return cls(
            network.eval().requires_grad_(False),
            document.about,
            device=device,
            run=run.resolve().name,
            digest=digest_of_weights(run),
        )

    @classmethod
    def around(cls, network: ControlnetNetwork, settings: Any, device: str) -> ControlnetModel:
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
        """Its sampling settings with `changes`, of which None changes nothing. Raises SettingsError but for ddim."""
        found = self.settings.changed(**{key: value for key, value in changes.items() if value is not None})
        if found.solver != "ddim":
            raise SettingsError(f"a ControlNet samples with ddim, not {found.solver}", hint="Leave out --solver")
        if found.guidance != 1:
            raise SettingsError("guidance is not applicable to a ControlNet", hint="Leave it out")
        return found

    def sampling_with(self, settings: SamplingSettings) -> Self:
        """The same model with other sampling settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    @torch.no_grad()
    def reconstruct(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (B, C, H, W) through the VAE alone: what the model can never pass."""
        made = self.network.reconstruct(torch.from_numpy(images).to(self.device))
        return np.asarray(made.float().cpu().numpy())

    @torch.no_grad()
    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, H, W) in [-1, 1], in their order."""
        from diffusers import DDIMScheduler

        network, how = self.network, self.settings
        for batch in batches_of(asked, batch_size):
            bound = condition_of(batch, self.device).resized(network.frame.padding.pad)
            planes = network.planes(bound.labels, bound.states, bound.region)
            seeds = [derive_seed("sample", query.seed) for query in batch]
            noise = SampleNoise(seeds, network.frame.code_size, self.device)
            scheduler = DDIMScheduler.from_config({**network.scheduler, "clip_sample": False})
            scheduler.set_timesteps(how.steps, device=self.device)
            codes = noise() * scheduler.init_noise_sigma
            with autocast(self.device, how.precision):
                for step in scheduler.timesteps:
                    found = network.predicted_noise(codes, step.expand(len(batch)), planes).float()
                    more = {"eta": how.eta, "variance_noise": noise()} if how.eta else {}
                    codes = scheduler.step(found, step, codes, **more).prev_sample
                images = network.decode(codes)
            yield from zip(batch, images.float().cpu().numpy(), strict=True)
