"""What the learned baselines have in common: their configuration, model.json, and their settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from anatogen import __version__
from anatogen.conditioning.ablate import draw_given
from anatogen.conditioning.encode import Planes
from anatogen.data.placement import typical_spacing
from anatogen.data.store import Batch, PreparedDataset
from anatogen.errors import DataError, ModelError
from anatogen.io.tensors import read_tensors
from anatogen.labels import LabelClass, LabelSchema
from anatogen.model import AboutModel, DatasetOrigin, ModelSpec, Q, RunDocument
from anatogen.seeds import Draws
from anatogen.training.config import ConditioningSettings, TrainingSettings

PlaneEncoding = Literal["onehot", "index"]


class PlaneConditioning(ConditioningSettings):
    """The conditioning of networks that take the label map as planes.

    Attributes:
        encoding: `onehot`, or `index` (the paper's); see `Planes`.
    """

    encoding: PlaneEncoding = "onehot"  # type: ignore[assignment]


class BaselineTraining(TrainingSettings):
    """Length and optimisation of a baseline, which has no power averages."""

    @field_validator("power_averages")
    @classmethod
    def _of_the_denoiser(cls, value: bool) -> bool:
        if value:
            raise ValueError("power averages are of the denoiser only")
        return value


def given_in_training(
    batch: Batch, conditioning: ConditioningSettings, random: Draws, device: torch.device
) -> torch.Tensor:
    """The classes (B, C-1) that each item gives: those annotated, and with mask ablation without some of them."""
    given = batch.annotated.to(device, non_blocking=True)
    if not conditioning.mask_ablation:
        return given
    return draw_given(given, random.uniform(given.shape[1] + 1), ablated_share=conditioning.ablated_share)


class BaselineConfig(BaseModel):
    """What the networks of every learned baseline are built for.

    Attributes:
        classes: (name, colour) of the classes 1..C-1.
        size: (H, W) or (D, H, W).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_channels: int = Field(ge=1)
    size: tuple[int, ...] = Field(min_length=2, max_length=3)
    classes: tuple[tuple[str, str], ...]
    encoding: PlaneEncoding = "onehot"

    @property
    def schema_of_labels(self) -> LabelSchema:
        """The classes of the label maps."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))

    @property
    def planes(self) -> Planes:
        """Makes the planes of a condition."""
        return Planes(self.encoding, len(self.classes) + 1)


def basis_of(dataset: PreparedDataset, encoding: PlaneEncoding) -> dict[str, object]:
    """The fields of `BaselineConfig` for `dataset`."""
    classes = tuple((c.name, c.colour) for c in dataset.schema.classes)
    return {"image_channels": dataset.channels, "size": dataset.size, "classes": classes, "encoding": encoding}


def about_unlearned(dataset: PreparedDataset) -> AboutModel:
    """What is known of a model that is made of the training images without learning."""
    info = dataset.info
    return AboutModel(
        steps=0,
        images=len(dataset.split("train")),
        seconds=0.0,
        version=__version__,
        dataset=DatasetOrigin.model_validate(info.source),
        trained_on=dataset.digest_of("train"),
        axis=info.axis,
        spacing_mm=typical_spacing(dataset),
        channels=tuple(info.channels),
        notice=info.notice,
        mask_ablation=True,
    )


def spec_of(config: BaselineConfig, about: AboutModel, *, seeds_vary: bool = True) -> ModelSpec:
    """What a learned baseline takes and gives."""
    dataset = about.dataset
    return ModelSpec(
        config.schema_of_labels,
        config.size,
        about.axis,
        about.spacing_mm,
        dataset.label_values if dataset is not None else None,
        channels=config.image_channels,
        takes_free=about.mask_ablation,
        seeds_vary=seeds_vary,
    )


D = TypeVar("D", bound=RunDocument)
N = TypeVar("N", bound=torch.nn.Module)


def read_baseline(document: type[D], run: Path) -> D:
    """model.json of a baseline's run. Raises ModelError where it is missing or damaged."""
    try:
        return document.read(run / "model.json")
    except DataError as error:
        raise ModelError(error.problem, path=error.path, hint=error.hint) from error


def with_weights(network: N, run: Path) -> N:
    """`network` with the weights in a run, in evaluation mode. Raises ModelError where they do not fit."""
    try:
        network.load_state_dict(read_tensors(run / "model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"the model is damaged or of another version ({reason})", path=run, hint="Train it again"
        ) from error
    return network.eval().requires_grad_(False)


def digest_of_state(network: torch.nn.Module) -> str:
    """Tells a network's weights apart from others, where they are in no file."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def batches_of(asked: Iterable[Q], size: int) -> Iterator[list[Q]]:
    """The queries in their order, `size` at a time."""
    remaining = iter(asked)
    while batch := list(islice(remaining, size)):
        yield batch
