"""Painting: each class of the label map is filled with its own mean intensity and texture. Nothing is learned.

A learned model must look more real.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.baselines.document import (
    BaselineConfig,
    about_unlearned,
    basis_of,
    batches_of,
    read_baseline,
    spec_of,
)
from anatogen.data.store import Batch, PreparedDataset
from anatogen.device import pick_device
from anatogen.diffusion.noise import SampleNoise
from anatogen.errors import ModelError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.model import AboutModel, ModelSpec, Q, RunDocument, condition_of, digest_of_weights
from anatogen.progress import stage
from anatogen.seeds import derive_seed

PAINTING = "painting"
_MOST = 2000
"""Training images that the statistics are taken of, spread over all."""
_FEWEST = 8
"""Pixels of a class in an image, below which it says nothing of the texture there."""


class PaintingDocument(RunDocument):
    """model.json of painting; the statistics lie beside it in model.safetensors."""

    HINT: ClassVar[str] = "Make it again: anatogen train DATASET --out RUN --model painting"

    kind: Literal["painting"] = "painting"
    painting: BaselineConfig


class Statistics:
    """Intensity and texture of every class, the background included, over images that come in batches.

    Of each class: the mean over images of its mean intensity, the standard deviation of that between images, and the
    power spectrum of what is left within an image. The spectrum is that of the autocorrelation over pairs of pixels
    that both belong to the class, so that a class of any shape counts.
    """

    def __init__(self, classes: int, channels: int, size: Sequence[int]) -> None:
        self._axes = tuple(range(-len(size), 0))
        self._size = tuple(size)
        self._images = torch.zeros(classes, dtype=torch.float64)
        self._sum = torch.zeros(classes, channels, dtype=torch.float64)
        self._squares = torch.zeros(classes, channels, dtype=torch.float64)
        self._products = torch.zeros(classes, channels, *size, dtype=torch.float64)
        self._pairs = torch.zeros(classes, *size, dtype=torch.float64)

    def add(self, batch: Batch) -> None:
        """Take images (B, C, *spatial) and their label maps into account; a class only where it is annotated."""
        counted = torch.ones_like(batch.labels, dtype=torch.bool) if batch.ignored is None else ~batch.ignored
        known = torch.nn.functional.pad(batch.annotated, (1, 0), value=True)  # (B, classes)
        for index in range(len(self._images)):
            # The background of a map that lacks a class may be that class.
            there = known.all(1) if index == 0 else known[:, index]
            mask = (batch.labels == index) & counted & there.reshape(-1, *(1,) * len(self._size))
            enough = mask.flatten(1).sum(1) >= _FEWEST
            if not enough.any():
                continue
            self._add_class(index, batch.images[enough].double(), mask[enough][:, None].double())

    def _add_class(self, index: int, images: Tensor, mask: Tensor) -> None:
        means = (images * mask).flatten(2).sum(2) / mask.flatten(2).sum(2)  # (B, C)
        left = (images - means.reshape(*means.shape, *(1,) * len(self._size))) * mask
        self._images[index] += len(images)
        self._sum[index] += means.sum(0)
        self._squares[index] += means.square().sum(0)
        self._products[index] += torch.fft.fftn(left, dim=self._axes).abs().square().sum(0)
        self._pairs[index] += torch.fft.fftn(mask, dim=self._axes).abs().square().sum((0, 1))

    def result(self) -> dict[str, Tensor]:
        """`mean` and `between` (classes, channels), `amplitude` (classes, channels, *spatial): of the spectrum, such
        that white noise filtered by it has the class's texture. A class that no image shows has zeros.
        """
        count = self._images.clamp(min=1)[:, None]
        mean = self._sum / count
        between = (self._squares / count - mean.square()).clamp(min=0).sqrt()
        products = torch.fft.ifftn(self._products, dim=self._axes).real
        pairs = torch.fft.ifftn(self._pairs, dim=self._axes).real[:, None]
        least = _FEWEST * self._images.reshape(-1, *(1,) * (pairs.ndim - 1)).clamp(min=1)
        # Distances that few pairs have are left out, so that their errors do not become texture.
        correlation = torch.where(pairs >= least, products / pairs.clamp(min=1), 0.0)
        power = torch.fft.fftn(correlation, dim=self._axes).real.clamp(min=0)
        wanted = correlation.flatten(2)[..., 0].clamp(min=0)  # the variance within the class
        found = power.flatten(2).mean(2)
        power = power * (wanted / found.clamp(min=1e-12)).reshape(*found.shape, *(1,) * len(self._size))
        tensors = {"mean": mean, "between": between, "amplitude": power.sqrt()}
        return {name: tensor.float() for name, tensor in tensors.items()}


class Painting:
    """Paints each pixel by its class; free classes are painted as background.

    Intensity and texture of an image are drawn by its seed.
    """

    def __init__(
        self,
        config: BaselineConfig,
        statistics: dict[str, Tensor],
        about: AboutModel,
        *,
        device: str = "auto",
        run: str = "",
        digest: str = "",
    ) -> None:
        self.config, self.about, self.run, self.device = config, about, run, pick_device(device)
        self.digest = digest or hashlib.sha256(f"{PAINTING} {about.trained_on}".encode()).hexdigest()[:16]
        self._statistics = {name: tensor.to(self.device) for name, tensor in statistics.items()}

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> Painting:
        """The painting in a run folder. Raises ModelError where it is missing or damaged."""
        run = Path(run)
        document = read_baseline(PaintingDocument, run)
        try:
            statistics = read_tensors(run / "model.safetensors")
            whole = {"mean", "between", "amplitude"} <= statistics.keys()
        except (OSError, ValueError) as error:
            raise ModelError(f"the model is damaged ({error})", path=run, hint=document.HINT) from error
        if not whole:
            raise ModelError("the model is damaged", path=run, hint=document.HINT)
        digest = digest_of_weights(run)
        return cls(document.painting, statistics, document.about, device=device, run=run.resolve().name, digest=digest)

    @classmethod
    def of(cls, dataset: PreparedDataset, *, device: str = "auto") -> Painting:
        """The painting of a data set's training images."""
        config = BaselineConfig.model_validate(basis_of(dataset, "onehot"))
        return cls(config, statistics_of(dataset), about_unlearned(dataset), device=device)

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return spec_of(self.config, self.about)

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    @torch.no_grad()
    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, *spatial) in [-1, 1], in their order."""
        channels, size = self.config.image_channels, self.config.size
        axes, classes = tuple(range(-len(size), 0)), len(self.config.classes) + 1
        mean, between, amplitude = (self._statistics[name] for name in ("mean", "between", "amplitude"))
        for batch in batches_of(asked, batch_size):
            labels = condition_of(batch, self.device).labels[:, None]
            seeds = [derive_seed("sample", query.seed) for query in batch]
            white = SampleNoise(seeds, (channels, *size), self.device)
            level = SampleNoise([derive_seed("level", query.seed) for query in batch], (classes, channels), self.device)
            levels = mean + between * level()  # (B, classes, channels)
            spectrum = torch.fft.fftn(white(), dim=axes)
            images = torch.zeros(len(batch), channels, *size, device=self.device)
            for index in range(classes):
                inside = labels == index
                if not inside.any():
                    continue
                texture = torch.fft.ifftn(spectrum * amplitude[index], dim=axes).real
                flat = levels[:, index].reshape(len(batch), channels, *(1,) * len(size))
                images = torch.where(inside, flat + texture, images)
            yield from zip(batch, images.clamp(-1, 1).cpu().numpy(), strict=True)


def statistics_of(dataset: PreparedDataset) -> dict[str, Tensor]:
    """The statistics of the split "train" of a data set; of at most 2,000 images, spread over all."""
    rows = dataset.split("train")
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(_MOST, len(rows))).round().astype(int)]
    found = Statistics(dataset.schema.count, dataset.channels, dataset.size)
    with stage("measuring the classes", len(rows), "images") as bar:
        for batch in dataset.batches(rows, 64):
            found.add(batch)
            bar.advance(len(batch))
    return found.result()


def make_painting(dataset: PreparedDataset, out: Path) -> AboutModel:
    """Write the painting of a data set's training images to the folder `out`; returns what is known of it.

    Raises OutputError where it cannot be written.
    """
    about = about_unlearned(dataset)
    with writing(out / "model.safetensors") as path:
        write_tensors(path, statistics_of(dataset))
    config = BaselineConfig.model_validate(basis_of(dataset, "onehot"))
    PaintingDocument(painting=config, about=about).write(out / "model.json")
    return about
