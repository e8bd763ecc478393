"""anatogen info"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def info(path: Path = typer.Argument(help="A prepared data set, run or sample set.")) -> None:
    """Say what a data set, run or sample set is.

    Example: anatogen info runs/hippocampus
    """
    from anatogen.errors import DataError

    if (path / "dataset.json").is_file() and (path / "index.csv").is_file():
        _dataset(path)
    elif (path / "model.json").is_file():
        _run(path)
    elif (path / "samples.json").is_file():
        _samples(path)
    else:
        what = "is no prepared data set, run or sample set" if path.exists() else "there is no such folder"
        raise DataError(what, path=path, hint="Name a folder that anatogen prepare, train or sample wrote")


def _dataset(path: Path) -> None:
    import numpy as np

    from anatogen.data.store import PreparedDataset

    dataset = PreparedDataset.open(path)
    about = dataset.info
    what = "volumes" if about.axis == "volume" else "slices"
    kind = what if what == "volumes" else f"{about.axis} slices"
    print(f"{path}: prepared data set from {about.source['name']} ({about.source['layout']})")
    print(f"  {len(dataset.rows)} {kind} of {' x '.join(map(str, dataset.size))}, {', '.join(about.channels)}")
    for name in dict.fromkeys(row.split for row in dataset.rows):
        rows = dataset.split(name)
        print(f"  {name:8} {len(rows):6} {what}, {len({row.patient for row in rows})} patients")
    counts = np.zeros(dataset.schema.count, dtype=np.int64)
    for batch in dataset.batches(dataset.rows):
        counts += np.bincount(batch.labels.numpy().ravel(), minlength=dataset.schema.count)
    for c in dataset.schema.classes:
        print(f"  class {c.index:3} {c.name:24} {100 * counts[c.index] / counts.sum():7.3f} % of the pixels")
    if about.notice:
        print(f"  {about.notice}")


def _run(path: Path) -> None:
    from anatogen.model import load_denoiser

    denoiser, about = load_denoiser(path)
    config = denoiser.config
    millions = sum(p.numel() for p in denoiser.parameters()) / 1e6
    print(
        f"{path}: run, {config.network.name} of {millions:.1f} M parameters, {config.path} path, predicts {config.target}"
    )
    print(f"  images of {' x '.join(map(str, config.size))}, {config.image_channels} channel(s)")
    print(f"  condition {config.encoding}, mask ablation {'on' if about.get('mask_ablation') else 'off'}")
    print(f"  classes: {', '.join(denoiser.schema.names)}")
    print(f"  trained {about.get('steps')} steps on {about.get('images')} images in {about.get('seconds')} s")


def _samples(path: Path) -> None:
    from anatogen.generation.sample_set import SampleSet

    samples = SampleSet.open(path)
    sampling = samples.header["sampling"]
    print(
        f"{path}: {len(samples.entries)} samples ({samples.header['format']}), {sampling['solver']}, {sampling['steps']} steps"
    )
    print(f"  classes: {', '.join(samples.schema.names)}")
    free = {tuple(entry["free"]) for entry in samples.entries}
    print(f"  free: {'; '.join(', '.join(names) or 'none' for names in sorted(free))}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(info)
