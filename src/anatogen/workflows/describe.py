"""Describe a folder: a prepared data set, a run, or a sample set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anatogen.errors import DataError
from anatogen.progress import Monitor, stage, watched_by


@dataclass(frozen=True)
class SplitSize:
    """The number of items and patients of a split."""

    name: str
    items: int
    patients: int


@dataclass(frozen=True)
class DatasetDescription:
    """A prepared data set.

    Attributes:
        pixel_shares: The share of all pixels of each class, by name, 0 to 1.
        remarks: What was grouped, kept together and left out during preparation, with the case names if they are kept.
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
    of other kinds of model.
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
    )


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
