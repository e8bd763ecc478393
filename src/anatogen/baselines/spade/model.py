"""A trained SPADE generator as an `ImageModel`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

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
from anatogen.baselines.spade.network import SpadeConfig, SpadeGenerator, settle
from anatogen.device import pick_device
from anatogen.diffusion.noise import SampleNoise
from anatogen.model import AboutModel, ModelSpec, Q, RunDocument, condition_of, digest_of_weights
from anatogen.seeds import derive_seed

SPADE = "spade"


class SpadeDocument(RunDocument):
    """model.json of SPADE; the generator's weights lie beside it."""

    kind: Literal["spade"] = "spade"
    spade: SpadeConfig


class SpadeModel:
    """Makes an image in one pass of the generator; without an encoder, the same for every seed."""

    def __init__(
        self, network: SpadeGenerator, about: AboutModel, *, device: str = "auto", run: str = "", digest: str = ""
    ) -> None:
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        settle(self.network)
        self.about, self.run = about, run
        self.digest = digest or digest_of_state(network)

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> SpadeModel:
        """The generator in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        document = read_baseline(SpadeDocument, run)
        network = with_weights(SpadeGenerator(document.spade), run)
        return cls(network, document.about, device=device, run=run.resolve().name, digest=digest_of_weights(run))

    @classmethod
    def around(cls, network: SpadeGenerator, settings: Any, device: str) -> SpadeModel:
        """The model of a generator that is being trained."""
        return cls(network, AboutModel(mask_ablation=settings.conditioning.mask_ablation), device=device)

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return spec_of(self.network.config, self.about, seeds_vary=self.network.encoder is not None)

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    @torch.no_grad()
    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, *spatial) in [-1, 1], in their order."""
        network = self.network
        for batch in batches_of(asked, batch_size):
            planes = network.planes_of(condition_of(batch, self.device))
            code = None
            if network.encoder is not None:
                seeds = [derive_seed("sample", query.seed) for query in batch]
                code = SampleNoise(seeds, (network.config.network.code,), self.device)()
            images = network.padding.crop(network(planes, code)).float().cpu().numpy()
            yield from zip(batch, images, strict=True)
