"""The settings of a run: a typed tree with two presets, overridden by YAML files and single values."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from anatogen.conditioning.encode import Encoding
from anatogen.data.augment import AugmentSettings
from anatogen.device import Precision
from anatogen.diffusion.loss import TimeDistribution
from anatogen.diffusion.path import PathName
from anatogen.diffusion.target import TargetName, Weighting
from anatogen.errors import SettingsError, nearest
from anatogen.model import NetworkConfig
from anatogen.networks.hourglass import HourglassConfig
from anatogen.progress import parse_duration
from anatogen.sampling import SamplingSettings
from anatogen.settings import Settings, explain, parse_value, read_yaml, setting_names

PresetName = Literal["fast", "paper"]


class ConditioningSettings(Settings):
    """How the label map conditions the network.

    Attributes:
        encoding: How label map and class states enter the network: as a learned `embedding`, whose cost does not grow
            with the number of classes (hourglass only), or as planes: `onehot` (default of paper_unet), `index` (the
            paper's) or `none`.
        mask_ablation: Train with classes left free (MAT).
        ablated_share: Share of training images with ablated classes; see `draw_given`.
        regional_share: Share of these in which the classes are ablated within a random region only; see
            `draw_regions`.
        attributes: Names of the attributes that the network is told, such as [sequence, age]: of the data set's cases,
            `position` (of a slice, 0 to 1) or `volume:CLASS` (hourglass only).
        attribute_dropout: Each is left out with this probability, and all of an image at once with it again.
    """

    encoding: Encoding = "embedding"
    mask_ablation: bool = True
    ablated_share: float = Field(0.3, ge=0, le=1)
    regional_share: float = Field(0.0, ge=0, le=1)
    attributes: tuple[str, ...] = ()
    attribute_dropout: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _fit_together(self) -> ConditioningSettings:
        if self.encoding == "none" and self.mask_ablation:
            raise ValueError("encoding 'none' has no mask to ablate: set mask_ablation to false")
        return self


class DiffusionSettings(Settings):
    """The path, the prediction target, the loss weighting and the distribution of training times.

    Attributes:
        path: Path from image to noise.
        target: What the network predicts.
        data_statistics: Mean and standard deviation of the images for the target `edm`: `measured` on the training
            split for each channel, or `fixed` to 0 and 0.5.
        weighting: The quantity whose squared error is the loss.
        smallest_sigma: Lower bound of sigma in the loss weight.
        times: Distribution of training times.
        time_mean: Mean of log(sigma / alpha) for `logit_normal`.
        time_spread: Its standard deviation.
        low_noise_share: Share of the training times with little noise, down to `least_noise`, with `logit_normal`:
            without them a model leaves the images' flat parts grainy. Planned where images have little noise of their
            own.
        least_noise: The smallest noise-to-image ratio of that share; planned as the images' own noise.
        stratified: Spread the training times evenly over their distribution instead of drawing them independently;
            planned for volumes, of which a batch has few.
    """

    path: PathName = "flow"
    target: TargetName = "edm"
    data_statistics: Literal["measured", "fixed"] = "measured"
    weighting: Weighting = "v"
    smallest_sigma: float = Field(0.05, ge=0, lt=1)
    times: TimeDistribution = "logit_normal"
    time_mean: float = 0.0
    time_spread: float = Field(1.0, gt=0)
    low_noise_share: float = Field(0.0, ge=0, lt=1)
    least_noise: float = Field(0.05, gt=0, lt=0.36)
    stratified: bool = False

    @property
    def of_times(self) -> dict[str, float]:
        """What `training_times` takes."""
        return {
            "mean": self.time_mean,
            "spread": self.time_spread,
            "low_noise_share": self.low_noise_share,
            "least_noise": self.least_noise,
        }


class TrainingSettings(Settings):
    """Length and optimisation. Training ends at the first of `steps`, `epochs` and `max_time_s` that is reached.

    Attributes:
        steps: Training steps.
        epochs: Passes over the training images.
        max_time_s: Training time in seconds.
        batch_size: Images in a step.
        micro_batch_size: Images in device memory at a time; the gradient is accumulated over the batch, with the same
            result. By default what fits: on a GPU it is found before the first step.
        activation_checkpointing: Compute the activations again in the backward pass instead of keeping them: less
            memory, the time of one more forward pass, the same result (hourglass only).
        compile: Compile the network by torch.compile: on a GPU 1.7 to 4 times as fast, after a minute. Needs a C
            compiler (hourglass only).
        crop: Train on parts of that size, such as [64, 64, 64], at places drawn anew every time, where whole images do
            not fit into memory. The network sees where it looks; images are sampled in overlapping tiles of that size.
        optimizer: `adamw`, or `muon`: orthogonal steps of hidden weights, AdamW for the others (hourglass only).
        learning_rate: Peak learning rate of the optimizer.
        schedule: `decay` keeps the rate constant and then decays it linearly to 0 over the last `decay_share` of the
            training; `cosine` anneals it from the start (Loshchilov and Hutter 2016).
        decay_share: Share of the training in (0, 1].
        warmup_steps: Steps over which the rate rises linearly.
        weight_decay: Of AdamW.
        gradient_norm: Gradients are clipped to this norm.
        ema_decay: Decay of the moving average of the weights.
        power_averages: Keep snapshots of two further averages, from which `anatogen average` makes one of any length.
        precision: Of the network's computations.
        seed: Of weights, batches, noise and times.
        start_from: A run whose weights the training starts from (`train --from`); its classes are matched by name.
        checkpoint_every: Steps (500) or time ("10m") between checkpoints.
        checkpoints_kept: Number of latest checkpoints to keep.
        disk_gb: The most that checkpoints, averages and the model may take on disk, in GB (10^9 bytes); with little,
            fewer checkpoints are kept. None: no limit but what is free.
        most_skipped: After so many consecutive steps with a non-finite gradient, training returns to the last
            checkpoint.
    """

    steps: int | None = Field(20_000, ge=1)
    epochs: float | None = Field(None, gt=0)
    max_time_s: float | None = Field(None, gt=0)
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    activation_checkpointing: bool = False
    compile: bool = False
    crop: tuple[Annotated[int, Field(ge=4)], ...] | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(5e-4, gt=0)
    schedule: Literal["decay", "cosine", "constant"] = "decay"
    decay_share: float = Field(0.3, gt=0, le=1)
    warmup_steps: int = Field(50, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    gradient_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    power_averages: bool = False
    precision: Precision = "auto"
    seed: int = 0
    start_from: str | None = None
    checkpoint_every: int | str = "5m"
    checkpoints_kept: int = Field(2, ge=1)
    disk_gb: float | None = Field(None, gt=0)
    most_skipped: int = Field(20, ge=1)

    @field_validator("checkpoint_every")
    @classmethod
    def _steps_or_duration(cls, value: int | str) -> int | str:
        if isinstance(value, int):
            if value < 1:
                raise ValueError("must be at least 1 step, or a duration such as 10m")
        else:
            try:
                parse_duration(value)
            except SettingsError as error:
                raise ValueError(f"must be a number of steps, or a duration such as 10m ({error.problem})") from error
        return value


class LiveSettings(Settings):
    """Previews during training: samples of fixed validation maps, with fixed noise and the averaged weights.

    Attributes:
        previews: Write `previews/` and `training.html`.
        dice: Measure the Dice of the previews. The data set's auxiliary segmenter is trained first if it is missing.
            `auto`: if it exists, or if the training is longer than 2,000 steps or ten minutes.
        best: Keep the averaged weights of the preview with the highest mean Dice, and make them the model.
        patience: After so many previews in a row without a better Dice (by more than 0.002), finish the training: the
            learning rate decays now. It implies `best`.
        maps: Number of label maps.
        share: The largest share of training time for previews.
        seed: Of the noise.
    """

    previews: bool = True
    dice: Literal["auto", "always", "never"] = "auto"
    best: bool = False
    patience: int | None = Field(None, ge=1)
    maps: int = Field(8, ge=1)
    share: float = Field(0.05, gt=0, le=1)
    seed: int = 0

    @property
    def chooses(self) -> bool:
        """Whether the Dice of the previews decides on the model."""
        return self.best or self.patience is not None

    @model_validator(mode="after")
    def _fit_together(self) -> LiveSettings:
        if self.chooses and (self.dice == "never" or not self.previews):
            raise ValueError("best and patience need previews and their Dice")
        return self


class LearnedSettings(Protocol):
    """The settings that every learned system has; each has sections of its own besides."""

    @property
    def conditioning(self) -> ConditioningSettings:
        """How the label map enters."""
        ...

    @property
    def training(self) -> TrainingSettings:
        """Length and optimisation."""
        ...

    @property
    def augment(self) -> AugmentSettings:
        """Of the training batches."""
        ...

    @property
    def live(self) -> LiveSettings:
        """Previews."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All settings as plain values."""
        ...

    def model_dump_json(self, *, exclude: Any, exclude_defaults: bool) -> str:
        """All settings as JSON."""
        ...


def training_of(settings: LearnedSettings) -> TrainingSettings:
    """Length and optimisation of a system's own training, without what earlier stages get of the whole length."""
    own: TrainingSettings | None = getattr(settings, "own_training", None)
    return own or settings.training


def shortened(how: TrainingSettings, share: float) -> TrainingSettings:
    """`how` with that share of its length."""
    steps = None if how.steps is None else max(1, round(share * how.steps))
    epochs, seconds = (None if each is None else share * each for each in (how.epochs, how.max_time_s))
    return how.model_copy(update={"steps": steps, "epochs": epochs, "max_time_s": seconds})


class RunSettings(Settings):
    """All settings that determine what `train` makes of a data set, for the denoiser."""

    preset: PresetName = "fast"
    network: NetworkConfig = HourglassConfig()
    conditioning: ConditioningSettings = ConditioningSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    augment: AugmentSettings = AugmentSettings()
    sampling: SamplingSettings = SamplingSettings()
    live: LiveSettings = LiveSettings()

    @model_validator(mode="before")
    @classmethod
    def _planes_for_the_paper_unet(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Without an encoding of its own, paper_unet gets planes: it has no embedding."""
        network, conditioning = (tree.get(name, {}) for name in ("network", "conditioning"))
        if isinstance(network, dict) and network.get("name") == "paper_unet" and isinstance(conditioning, dict):
            return {**tree, "conditioning": {"encoding": "onehot", **conditioning}}
        return tree


# Konz et al. 2024, section 3 and Appendix A. The reference implementation has no moving average of the weights.
_PAPER: dict[str, Any] = {
    "network": {"name": "paper_unet"},
    "conditioning": {"encoding": "index", "mask_ablation": False, "ablated_share": 1.0},
    "diffusion": {"path": "ddpm", "target": "eps", "weighting": "eps", "smallest_sigma": 0.0, "times": "uniform"},
    "training": {
        "steps": None,
        "epochs": 400,
        "batch_size": 64,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup_steps": 500,
        "ema_decay": 0.0,
    },
    "sampling": {"solver": "ddim", "steps": 50, "grid": "leading", "eta": 0.0, "clip": 1.0},
}
PRESETS: dict[PresetName, dict[str, Any]] = {"fast": {}, "paper": _PAPER}

S = TypeVar("S", bound=BaseModel)

_LENGTHS = ("steps", "epochs", "max_time_s")


def build_settings(
    preset: PresetName | None = None,
    *,
    config: Path | None = None,
    values: Iterable[str] = (),
    base: Path | None = None,
    **sections: dict[str, Any],
) -> RunSettings:
    """Build the settings of a denoiser's run from a preset and overrides.

    A preset is overridden by a YAML file, then by "key=value" texts ("network.width=96"), then by whole sections. The
    preset comes first wherever it is named: as an argument, in the file or as "preset=paper". A length (steps, epochs,
    max_time_s) given anywhere replaces the preset's length; of several given ones the first that is reached counts.

    Args:
        preset: By default the one that the file or a value names, otherwise `fast`.
        config: A YAML file.
        values: "key=value" texts.
        base: The config.yaml of a run; its settings are used in place of the preset's.
        **sections: Whole sections by name, for instance `training={"steps": 100}`.

    Raises:
        SettingsError: Two different presets, an unknown key (with the nearest valid one), or a value out of range.
    """
    layers = _layers(config, values, sections)
    start = read_yaml(base) if base is not None else {}
    named = [preset, start.get("preset"), *(layer.pop("preset", None) for layer in layers)]
    presets = list(dict.fromkeys(str(name) for name in named if name is not None))
    if len(presets) > 1:
        raise SettingsError(
            f"two presets are named, '{presets[0]}' and '{presets[1]}'",
            hint="Name one, and change single settings with --set",
        )
    chosen = presets[0] if presets else "fast"
    if chosen not in PRESETS:
        raise SettingsError(f"there is no preset '{chosen}'", hint=nearest(chosen, PRESETS))
    tree: dict[str, Any] = start or copy.deepcopy(PRESETS[chosen])
    tree["preset"] = chosen
    return _built(RunSettings, tree, layers)


def build_settings_of(
    kind: type[S],
    *,
    config: Path | None = None,
    values: Iterable[str] = (),
    base: Path | None = None,
    **sections: dict[str, Any],
) -> S:
    """Build the settings of a run of any other learned system, which has no presets; see `build_settings`."""
    return _built(kind, read_yaml(base) if base is not None else {}, _layers(config, values, sections))


def _layers(config: Path | None, values: Iterable[str], sections: dict[str, Any]) -> list[dict[str, Any]]:
    layers = [read_yaml(config)] if config is not None else []
    return [*layers, *(parse_value(text) for text in values), dict(sections)]


def _built(kind: type[S], tree: dict[str, Any], layers: list[dict[str, Any]]) -> S:
    if any(key in _LENGTHS for layer in layers for key in _training_of(layer)):
        tree["training"] = {**_training_of(tree), **dict.fromkeys(_LENGTHS)}
    for layer in layers:
        _lay_over(tree, layer)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise explain(error, setting_names(kind)) from error


def first_difference(a: LearnedSettings, b: LearnedSettings, *, but: Collection[str] = ()) -> str | None:
    """The full name of the first setting that differs between `a` and `b`, except those in `but`; None if none does."""
    for section, ours in a.model_dump(mode="json").items():
        theirs = b.model_dump(mode="json")[section]
        if not isinstance(ours, dict):
            if ours != theirs:
                return section
            continue
        for name in sorted(ours.keys() | theirs.keys()):
            if (full := f"{section}.{name}") not in but and ours.get(name) != theirs.get(name):
                return full
    return None


def _training_of(layer: dict[str, Any]) -> dict[str, Any]:
    section = layer.get("training")
    return section if isinstance(section, dict) else {}


def _lay_over(tree: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            if key == "network" and value.get("name", tree[key].get("name")) != tree[key].get("name"):
                tree[key] = {}  # settings of another network do not apply
            _lay_over(tree[key], value)
        elif key == "network" and isinstance(value, dict):
            tree[key] = {"name": "hourglass", **value}
        else:
            tree[key] = value
