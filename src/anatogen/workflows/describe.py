"""Describe a folder: a prepared data set, a run, or a sample set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.errors import DataError, SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset


@dataclass(frozen=True)
class SplitSize:
    """The number of items and patients of a split."""

    name: str
    items: int
    patients: int


@dataclass(frozen=True)
class AttributeDescription:
    """An attribute and its values in words; cases: in how many of a data set's it is known, None of a run."""

    name: str
    values: str
    cases: int | None = None


@dataclass(frozen=True)
class DatasetDescription:
    """A prepared data set.

    Attributes:
        pixel_shares: The share of all pixels of each class, by name, 0 to 1.
        remarks: What was grouped, kept together and left out during preparation, with the case names if they are kept.
        attributes: Of its cases, by name: the values of all that are known, in words, and the number of those cases.
    """

    path: Path
    source: str
    layout: str
    axis: str
    size: tuple[int, ...]
    channels: tuple[str, ...]
    splits: tuple[SplitSize, ...]
    pixel_shares: dict[str, float]
    notice: str
    remarks: tuple[str, ...] = ()
    attributes: tuple[AttributeDescription, ...] = ()

    @property
    def items(self) -> int:
        """The number of slices or volumes."""
        return sum(split.items for split in self.splits)

    @property
    def kind(self) -> str:
        """The name of an item: "slices" or "volumes"."""
        return "volumes" if self.axis == "volume" else "slices"


@dataclass(frozen=True)
class RunDescription:
    """A run. network, diffusion_path, target, encoding, and window where it was trained on crops: of a denoiser; None
    of other kinds of model. attributes: that it takes.
    """

    path: Path
    kind: str
    network: str | None
    parameters: int | None
    diffusion_path: str | None
    target: str | None
    size: tuple[int, ...]
    channels: int
    encoding: str | None
    mask_ablation: bool
    classes: tuple[str, ...]
    steps: int | None
    images: int | None
    seconds: float | None
    finished: bool
    imported_from: str | None
    window: tuple[int, ...] | None = None
    attributes: tuple[AttributeDescription, ...] = ()


@dataclass(frozen=True)
class SamplesDescription:
    """A sample set.

    Attributes:
        free: The classes left free, for each combination that occurs.
    """

    path: Path
    images: int
    format: str
    solver: str | None
    steps: int | None
    classes: tuple[str, ...]
    free: tuple[tuple[str, ...], ...]


Description = DatasetDescription | RunDescription | SamplesDescription


def describe(path: Path, *, monitor: Monitor | None = None) -> Description:
    """Describe the folder `path`.

    Raises:
        DataError: The folder is not one of anatogen's.
    """
    if (path / "dataset.json").is_file() and (path / "index.csv").is_file():
        with watched_by(monitor):
            return _dataset(path)
    if (path / "model.json").is_file() or (path / "config.yaml").is_file():
        return _run(path)
    if (path / "samples.json").is_file():
        return _samples(path)
    what = "is not a prepared data set, run or sample set" if path.exists() else "does not exist"
    raise DataError(what, path=path, hint="Choose a folder written by anatogen prepare, train or sample")


def _dataset(path: Path) -> DatasetDescription:
    import numpy as np

    from anatogen.check.patients import leak_in
    from anatogen.data.store import PreparedDataset
    from anatogen.data.summary import preparation_remarks

    dataset = PreparedDataset.open(path)
    about = dataset.info
    splits = []
    for name in dataset.split_names:
        rows = dataset.split(name)
        splits.append(SplitSize(name, len(rows), len({row.patient for row in rows})))
    counts = np.zeros(dataset.schema.count, dtype=np.int64)
    with stage("counting pixels", len(dataset.rows), "items") as bar:
        for batch in dataset.batches(dataset.rows):
            counts += np.bincount(batch.labels.numpy().ravel(), minlength=dataset.schema.count)
            bar.advance(len(batch.labels))
    return DatasetDescription(
        path=path,
        source=about.source["name"],
        layout=about.source["layout"],
        axis=about.axis,
        size=tuple(dataset.size),
        channels=tuple(about.channels),
        splits=tuple(splits),
        pixel_shares={c.name: float(counts[c.index] / counts.sum()) for c in dataset.schema.classes},
        notice=about.notice,
        remarks=(*preparation_remarks(dataset), *((leak,) if (leak := leak_in(dataset)) else ())),
        attributes=tuple(_attributes(dataset)),
    )


def _attributes(dataset: PreparedDataset) -> Iterator[AttributeDescription]:
    """The attributes of the data set's cases, with their levels or range, or their number where they are many."""
    from anatogen.conditioning.attributes import learned

    cases = dataset.info.cases.values()
    for name in sorted({name for case in cases for name in case.attributes}):
        values = [case.attributes[name] for case in cases if name in case.attributes]
        try:
            shown = learned(name, values).range
        except (DataError, SettingsError):  # one value, texts among numbers, too many texts
            different = list(dict.fromkeys(values))
            shown = ", ".join(different[:8]) + (f", ... ({len(different)} values)" if len(different) > 8 else "")
        yield AttributeDescription(name, shown, len(values))


def _run(path: Path) -> RunDescription:
    from anatogen.evaluation.comparing import parameters_of
    from anatogen.generation.kinds import load_model
    from anatogen.model import HasDenoiser, read_run

    model = load_model(path, device="cpu")
    spec, about = model.spec, model.describe()
    denoiser = model.denoiser if isinstance(model, HasDenoiser) else None
    config = denoiser.config if denoiser is not None else None
    return RunDescription(
        path=path,
        kind=read_run(path).kind,
        network=config.network.name if config is not None else None,
        parameters=parameters_of(model) or None,
        diffusion_path=config.path if config is not None else None,
        target=config.target if config is not None else None,
        size=spec.size,
        channels=spec.channels,
        encoding=config.encoding if config is not None else None,
        mask_ablation=about.mask_ablation,
        classes=tuple(spec.schema.names),
        steps=about.steps,
        images=about.images,
        seconds=about.seconds,
        finished=about.finished,
        imported_from=about.imported_from,
        window=config.window if config is not None else None,
        attributes=tuple(
            AttributeDescription(each.name, each.range)
            for each in (spec.attributes.attributes if spec.attributes is not None else ())
        ),
    )


def _samples(path: Path) -> SamplesDescription:
    from anatogen.generation.sample_set import SampleSet

    samples = SampleSet.open(path)
    sampling = samples.header.sampling
    return SamplesDescription(
        path=path,
        images=len(samples.entries),
        format=samples.header.image_format,
        solver=sampling.solver if sampling is not None else None,
        steps=sampling.steps if sampling is not None else None,
        classes=tuple(samples.schema.names),
        free=tuple(sorted({entry.free for entry in samples.entries})),
    )
