"""What every generator of images is, and the denoiser behind ours: D(x_t, t, condition) -> x0.

A generator is an `ImageModel`: it makes an image for each `Query`. What else it can do is a small protocol of its own
(`HasSteps`, `HasDenoiser`, `HasSimilarity`); who needs it asks with `isinstance` and says "not applicable" where it
lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator
from torch import Tensor, nn

from anatogen.conditioning.attributes import AttributeSchema, Value
from anatogen.conditioning.encode import Condition, Encoding, Planes
from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.interpolate import Mixing
from anatogen.diffusion.path import PATHS, PathName
from anatogen.diffusion.solvers import Denoise
from anatogen.diffusion.target import ASSUMED_MEAN, ASSUMED_STD, TargetName, to_x0
from anatogen.diffusion.tiles import Origin, in_tiles, window_of
from anatogen.errors import DataError, ModelError, SettingsError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.labels import ClassStates, LabelClass, LabelSchema
from anatogen.networks.contract import Network, PlaneNetwork
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.padding import Padding
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig
from anatogen.sampling import SamplingSettings
from anatogen.settings import Document

DENOISER = "denoiser"
"""The kind of our own model, and of runs from before there were kinds."""


@dataclass(frozen=True)
class Similarity:
    """How similar to a real image a generated one is to be (Konz et al. 2024, section 3.2.2).

    Attributes:
        image: (C, *spatial) in [-1, 1].
        similarity: 1 - lambda of the paper, in [0, 1); larger is more similar.
        step: Of the 1000 timesteps of the `ddpm` path, where sampling is paused (240 in the paper); other paths pause
            at the same noise.
        mixing: How the noised real image and the latent are mixed.

    Raises:
        SettingsError: A similarity outside [0, 1), or a step outside 1 to 999.
    """

    image: NDArray[np.float32]
    similarity: float
    step: int = 240
    mixing: Mixing = "variance_preserving"

    def __post_init__(self) -> None:
        check_similarity(self.similarity, self.step)


def check_similarity(similarity: float, step: int) -> None:
    """Raises SettingsError where a similarity is outside [0, 1) or a step outside 1 to 999."""
    if not 0 <= similarity < 1:
        raise SettingsError(f"similarity {similarity:g} is outside [0, 1)", hint="Choose for instance 0.5")
    check_step(step)


def check_step(step: int) -> None:
    """Raises SettingsError where a step is outside 1 to 999."""
    if not 1 <= step <= 999:
        raise SettingsError(f"step {step} is outside 1 to 999", hint="The paper's is 240")


@dataclass(frozen=True)
class Noised:
    """Sampling starts from a real image noised to a timestep, so that its coarse structure stays (Meng et al. 2022,
    SDEdit).

    Attributes:
        image: (C, *spatial) in [-1, 1].
        step: Of the 1000 timesteps of the `ddpm` path; other paths start at the same noise.

    Raises:
        SettingsError: A step outside 1 to 999.
    """

    image: NDArray[np.float32]
    step: int

    def __post_init__(self) -> None:
        check_step(self.step)


@dataclass(frozen=True)
class Known:
    """A real image of which a part is kept, pixel by pixel; the rest is made to fit it and the label map.

    Attributes:
        image: (C, *spatial) in [-1, 1].
        kept: float32 (*spatial), 1 where the image is kept, 0 where it is made anew; between, both are blended.
    """

    image: NDArray[np.float32]
    kept: NDArray[np.float32]


Start = Similarity | Noised | Known


@dataclass(frozen=True)
class Query:
    """What a generator is asked for: one image.

    Attributes:
        labels: int64 (*spatial) of class indices.
        states: Which classes are given, and which are left free; with a region, where it is 0.
        seed: The same query gives the same image.
        start: The part that a real image has in it; None starts from noise.
        attributes: Values of attributes by name; a generator is told those that it takes, the others are unknown.
        region: uint8 (*spatial), the region of each pixel, 0, 1, ...; None where the states hold everywhere.
        elsewhere: The states in regions 1, 2, ...
    """

    labels: NDArray[np.int64]
    states: ClassStates
    seed: int
    start: Start | None = field(default=None, kw_only=True)
    attributes: Mapping[str, Value] = field(default_factory=dict, kw_only=True)
    region: NDArray[np.uint8] | None = field(default=None, kw_only=True)
    elsewhere: tuple[ClassStates, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if (self.region is None) != (not self.elsewhere):
            raise ValueError("a region needs the states in it, and the other way round")

    @property
    def rows(self) -> tuple[ClassStates, ...]:
        """The states of every region."""
        return (self.states, *self.elsewhere)


Q = TypeVar("Q", bound=Query)


def condition_of(
    queries: Sequence[Query], device: torch.device | str = "cpu", *, takes: AttributeSchema | None = None
) -> Condition:
    """The condition of queries, on `device`. Where they differ in the number of regions, no pixel uses the last."""
    labels = torch.from_numpy(np.stack([query.labels for query in queries]))
    most = max(len(query.rows) for query in queries)
    given = [[row.given for row in (*query.rows, *(query.states,) * (most - len(query.rows)))] for query in queries]
    region = None
    if most > 1:
        empty = np.zeros_like(queries[0].labels, dtype=np.uint8)
        region = torch.from_numpy(np.stack([empty if query.region is None else query.region for query in queries]))
    vector = None if takes is None else takes.vectors(takes.codes([query.attributes for query in queries]))
    return Condition.of(labels, torch.tensor(given), region, vector).to(device)


@dataclass(frozen=True)
class ModelSpec:
    """What a generator takes and gives.

    Attributes:
        schema: The classes of its label maps.
        size: (H, W) or (D, H, W) of its images.
        channels: Of its images.
        axis: The slices' axis, "volume", or None where it is not known.
        spacing_mm: Pixel size along (H, W) or (D, H, W), None where it is not known.
        values: What stood for the classes 0..C-1 in the files that it was trained on, where those were other numbers.
        sees_labels: Whether label maps make a difference to it.
        takes_free: Whether it was made for classes that are left free.
        seeds_vary: Whether another seed gives another image.
        real_patients: Whether its images are those of real patients, so that they may not leave the house.
        attributes: That it takes, None if it takes none.
    """

    schema: LabelSchema
    size: tuple[int, ...]
    axis: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    values: tuple[int, ...] | None = None
    channels: int = 1
    sees_labels: bool = True
    takes_free: bool = True
    seeds_vary: bool = True
    real_patients: bool = False
    attributes: AttributeSchema | None = None

    def is_that_of(self, dataset: PreparedDataset) -> bool:
        """Whether the maps of `dataset` can be taken as they are: the same classes, size, axis and, to 15 %, pixels."""
        own = (self.schema.names, self.size, self.axis or dataset.info.axis)
        if own != (dataset.schema.names, dataset.size, dataset.info.axis):
            return False
        theirs = typical_spacing(dataset)
        if self.spacing_mm is None or theirs is None:
            return True
        return all(abs(a / b - 1) <= 0.15 for a, b in zip(self.spacing_mm, theirs, strict=True))


class ImageModel(Protocol):
    """A generator of images, of whatever kind."""

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        ...

    @property
    def digest(self) -> str:
        """Tells two models apart."""
        ...

    @property
    def run(self) -> str:
        """The name of its run's folder, "" where there is none."""
        ...

    def describe(self) -> AboutModel:
        """What is known of it."""
        ...

    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its image (C, *spatial) in [-1, 1], in their order, made `batch_size` at a time.

        An image depends on its query alone.
        """
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A generator that walks from noise to image with a solver."""

    @property
    def settings(self) -> SamplingSettings:
        """How it samples."""
        ...

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """Its settings with `changes`, of which None changes nothing. Raises SettingsError for a value out of range."""
        ...

    def sampling_with(self, settings: SamplingSettings) -> Self:
        """The same generator with other settings."""
        ...


@runtime_checkable
class HasDenoiser(Protocol):
    """A generator whose denoiser can be asked for its error, as membership attacks do."""

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...


@runtime_checkable
class HasNetwork(Protocol):
    """A generator that makes images with one network in one pass."""

    @property
    def network(self) -> nn.Module:
        """The network."""
        ...


@runtime_checkable
class HasReconstruction(Protocol):
    """A generator that works on the codes of an autoencoder."""

    def reconstruct(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (B, C, *spatial) in [-1, 1] through the autoencoder alone."""
        ...


@runtime_checkable
class HasSimilarity(Protocol):
    """A generator that takes the similarity to a real image as the start of a query."""

    @property
    def takes_similarity(self) -> Literal[True]:
        """Says so."""
        ...


@runtime_checkable
class HasRealStarts(Protocol):
    """A generator that takes every start of a query: a noised image, and an image of which a part is kept, too."""

    @property
    def takes_real_starts(self) -> Literal[True]:
        """Says so."""
        ...


NetworkConfig = Annotated[HourglassConfig | PaperUNetConfig, Field(discriminator="name")]


class DenoiserConfig(BaseModel):
    """All that is needed to build a denoiser.

    Attributes:
        classes: (name, colour) of the classes 1..C-1.
        size: (H, W) or (D, H, W).
        window: Of the crops that it was trained on, and sees an image in; None where it sees whole images.
        data_mean, data_std: of the training images in [-1, 1], one number for each channel, or one for all; see
            `to_x0`.
        attributes: That it takes, None if it takes none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_channels: int = Field(ge=1)
    size: tuple[int, ...] = Field(min_length=2, max_length=3)
    window: tuple[int, ...] | None = None
    classes: tuple[tuple[str, str], ...]
    encoding: Encoding = "onehot"
    path: PathName = "flow"
    target: TargetName = "edm"
    data_mean: tuple[float, ...] = (ASSUMED_MEAN,)
    data_std: tuple[Annotated[float, Field(gt=0)], ...] = (ASSUMED_STD,)
    network: NetworkConfig = HourglassConfig()
    attributes: AttributeSchema | None = None

    @model_validator(mode="after")
    def _a_number_for_each_channel(self) -> DenoiserConfig:
        if not {len(self.data_mean), len(self.data_std)} <= {1, self.image_channels}:
            raise ValueError(f"data_mean and data_std want one number for each of the {self.image_channels} channels")
        return self

    @property
    def schema_of_labels(self) -> LabelSchema:
        """The classes of the label maps that it takes."""
        return LabelSchema(tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.classes, 1)))


class Denoiser(nn.Module):
    """D(x_t, t, condition) -> x0. Raises SettingsError where network and image size do not fit together."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.schema = config.schema_of_labels
        self.path = PATHS[config.path]()
        # Known from the configuration, and thus no part of the weights.
        self.data_mean: Tensor
        self.data_std: Tensor
        self.register_buffer("data_mean", torch.tensor(config.data_mean), persistent=False)  # (C or 1,)
        self.register_buffer("data_std", torch.tensor(config.data_std), persistent=False)
        planes = Planes(config.encoding, self.schema.count)
        if isinstance(config.network, HourglassConfig):
            maker = None if config.encoding == "embedding" else planes
            self.network: Network = Hourglass(
                config.network,
                config.image_channels,
                maker,
                config.window or config.size,
                classes=self.schema.count,
                coordinates=len(config.size) if config.window is not None else 0,
                attributes=config.attributes.size if config.attributes is not None else 0,
            )
        elif config.encoding == "embedding":
            raise SettingsError(
                "paper_unet takes the label map as planes, not as an embedding",
                hint="Use --set conditioning.encoding=onehot or index",
            )
        else:
            if config.window is not None:
                raise SettingsError("paper_unet cannot be trained on crops", hint="Leave out training.crop")
            if config.attributes is not None:
                raise SettingsError("paper_unet takes no attributes", hint="Leave out conditioning.attributes")
            self.network = PaperUNet(config.network, config.image_channels, planes, config.size)

    def placed(self, device: torch.device) -> Denoiser:
        """This denoiser on `device`, its weights in the memory format that convolutions are quickest in."""
        self.memory_format = torch.channels_last if len(self.config.size) == 2 else torch.channels_last_3d
        self.to(device)
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return self

    def padding(self, size: tuple[int, ...]) -> Padding:
        """How images of `size` are padded for the network."""
        return Padding(size, self.network.multiples)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The image x0 (B, C, *spatial), expected from x_t (B, C, *spatial) at times t (B,) under `condition`."""
        return self.under(condition)(x_t, t)

    def under(self, condition: Condition, *, tile: tuple[int, ...] | None = None) -> Denoise:
        """This denoiser with its condition bound and encoded once, as solvers want it: (x_t, t) -> x0.

        The network sees images of any size padded to what it takes; they are given back at their own.

        Args:
            condition: Of whole images, or of crops with their origin.
            tile: See an image in tiles of that size at most, with less memory; by default as in training.
        """
        size = tuple(condition.labels.shape[1:])
        tile = tuple(min(pair) for pair in zip(tile or self.config.window or size, size, strict=True))
        if tile == size:
            return self._under(condition)

        def of_tile(origin: Origin) -> Denoise:
            part = condition.resized(lambda labels: window_of(labels, origin, tile).contiguous())
            place = torch.tensor(origin, device=condition.labels.device).expand(len(condition.labels), -1)
            return self._under(replace(part, origin=place))

        return in_tiles(of_tile, size, tile)

    def _under(self, condition: Condition) -> Denoise:
        padding = self.padding(tuple(condition.labels.shape[1:]))
        coordinates = self._coordinates(condition)
        bound = condition.resized(padding.pad)
        of_data = [v.reshape(-1, *(1,) * len(self.config.size)) for v in (self.data_mean, self.data_std)]
        parts = (bound.labels, bound.states, bound.region, bound.vector)
        ready = {"planes": self.network.planes(*parts[:3])} if isinstance(self.network, PlaneNetwork) else {}

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            seen = x_t if coordinates is None else torch.cat([x_t, coordinates.to(x_t.dtype)], dim=1)
            prediction = self.network(padding.pad(seen), t, *parts, **ready)
            prediction = padding.crop(prediction).float()
            return to_x0(self.config.target, self.path, x_t, prediction, t, mean=of_data[0], std=of_data[1])

        return denoise

    def _coordinates(self, condition: Condition) -> Tensor | None:
        """Where each voxel lies in the whole image, -1 to 1 along each axis: (B, d, *spatial); None where not seen."""
        if self.config.window is None:
            return None
        labels, whole = condition.labels, self.config.size
        origin = condition.origin
        if origin is None:
            origin = torch.zeros(len(labels), len(whole), dtype=torch.int64, device=labels.device)
        found = []
        for axis, side in enumerate(labels.shape[1:]):
            shape = [-1, *(side if other == axis else 1 for other in range(len(whole)))]
            places = torch.arange(side, device=labels.device) + origin[:, axis, None]  # (B, side)
            along = (2 * places + 1) / whole[axis] - 1
            found.append(along.reshape(shape).expand(len(labels), *labels.shape[1:]))
        return torch.stack(found, dim=1)


class DatasetOrigin(BaseModel):
    """The source of a prepared data set, by name; the terms of its use are kept with it.

    Attributes:
        name: Of the source's folder, without its path.
        fingerprint: Tells two sources apart.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    layout: str | None = None
    name: str | None = None
    fingerprint: str | None = None

    @property
    def label_values(self) -> tuple[int, ...] | None:
        """The values of the classes in the source's files, where they are not 0, 1, 2, ..."""
        recorded = (self.model_extra or {}).get("labels") or {}
        values = recorded.get("values")
        return tuple(values) if values else None


class StartingPoint(Document):
    """The model whose weights a training started from; what it learned is in the new model, too.

    Attributes:
        run: The name of its folder.
        digest: Of its weights.
        dataset, trained_on: See `AboutModel`.
        started_from: Where that one started, in turn.
    """

    run: str
    digest: str
    dataset: DatasetOrigin | None = None
    trained_on: str | None = None
    started_from: StartingPoint | None = None


class AboutModel(BaseModel):
    """What is known of a model besides its weights.

    Attributes:
        steps, images, seconds: How long it was trained; None where that is not known (an imported model).
        finished: False for a model that a stopped training left.
        skipped_steps: Steps that were not taken because a gradient was not finite.
        dataset: The source of what it was trained on; None where that is not known.
        trained_on: A digest of the items of the split "train".
        axis: The direction that slices were cut in, or "volume".
        spacing_mm: Pixel size along (H, W) or (D, H, W).
        mask_ablation: Whether it was trained with classes left free.
        regions: Whether it was trained with classes left free in a region only.
        started_from: The run whose weights the training started from, and what that was trained on.
        average_length: Where the weights are a power-function average of this length (`anatogen average`).
        selected_step, selected_dice: Where the weights were chosen during the training by their validation Dice.
        imported_from: The file name of the checkpoint that it was imported from.
        sampling: How it samples unless told otherwise.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: int | None = None
    images: int | None = None
    seconds: float | None = None
    finished: bool = True
    skipped_steps: int = 0
    seed: int | None = None
    version: str | None = None
    dataset: DatasetOrigin | None = None
    trained_on: str | None = None
    axis: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    channels: tuple[str, ...] | None = None
    notice: str | None = None
    mask_ablation: bool = False
    regions: bool = False
    started_from: StartingPoint | None = None
    average_length: float | None = None
    selected_step: int | None = None
    selected_dice: float | None = None
    imported_from: str | None = None
    sampling: SamplingSettings = SamplingSettings()

    @field_serializer("sampling")
    def _whole(self, sampling: SamplingSettings) -> dict[str, Any]:
        return sampling.model_dump(mode="json")  # None is a value there: no clipping

    def record(self) -> dict[str, Any]:
        """It as other documents hold it, without what is not known."""
        return self.model_dump(mode="json", exclude_none=True)


class RunDocument(Document):
    """model.json of any kind of model: the kind, and what is known of the model."""

    HINT: ClassVar[str] = "Train it again"

    kind: str = DENOISER
    about: AboutModel = AboutModel()


class ModelDocument(RunDocument):
    """model.json of a denoiser, whose weights lie beside it."""

    denoiser: DenoiserConfig


def save_denoiser(
    folder: FilePath, config: DenoiserConfig, weights: Mapping[str, Tensor], about: AboutModel | None = None
) -> None:
    """Write model.safetensors and model.json to `folder`. about: what else is known of the model."""
    with writing(folder / "model.safetensors") as path:
        write_tensors(path, weights)
    ModelDocument(denoiser=config, about=about or AboutModel()).write(folder / "model.json")


def load_denoiser(folder: FilePath) -> tuple[Denoiser, AboutModel]:
    """The denoiser in the run `folder`, in evaluation mode, and what is known of it.

    Raises ModelError where there is none, or where it is damaged or of a newer version.
    """
    if (kind := read_run(folder).kind) != DENOISER:
        raise ModelError(f"holds a model of the kind {kind}, not a denoiser", path=folder, hint="Name another run")
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            "holds no model (model.json and model.safetensors)", path=folder, hint=_how_to_get_a_model(folder)
        )
    document = _read(ModelDocument, folder)
    try:
        denoiser = Denoiser(document.denoiser)
        denoiser.load_state_dict(read_tensors(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"the model is damaged or of another version ({reason})", path=folder, hint="Train it again"
        ) from error
    return denoiser.eval().requires_grad_(False), document.about


def digest_of_weights(folder: FilePath) -> str:
    """Tells the denoiser in the run `folder` apart from others."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def read_run(folder: FilePath) -> RunDocument:
    """The kind of the model in the run `folder` and what is known of it. Raises ModelError where there is none."""
    if not folder.is_dir():
        raise ModelError("there is no such run", path=folder, hint="Make one with: anatogen train DATASET --out RUN")
    if not (folder / "model.json").is_file():
        raise ModelError(
            "holds no model (model.json and model.safetensors)", path=folder, hint=_how_to_get_a_model(folder)
        )
    return _read(RunDocument, folder)


def read_about(folder: FilePath) -> AboutModel:
    """What is known of the model in the run `folder`. Raises ModelError as `read_run` does."""
    return read_run(folder).about


D = TypeVar("D", bound=RunDocument)


def _read(document: type[D], folder: FilePath) -> D:
    try:
        return document.read(folder / "model.json")
    except DataError as error:
        raise ModelError(error.problem, path=error.path, hint=error.hint) from error


def _how_to_get_a_model(folder: FilePath) -> str:
    if any((folder / "checkpoints").glob("[0-9]*.json")):
        return "Its training is not finished: go on with anatogen train DATASET --out RUN --resume"
    return "Name the folder that anatogen train wrote, or train again"
