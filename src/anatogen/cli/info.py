"""anatogen info"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import guarded

if TYPE_CHECKING:
    from anatogen.workflows.describe import DatasetDescription, RunDescription, SamplesDescription


@guarded
def info(path: Path = typer.Argument(help="A prepared data set, run or sample set.")) -> None:
    """Describe a prepared data set, run or sample set.

    Example: anatogen info runs/hippocampus
    """
    from anatogen.workflows.describe import DatasetDescription, RunDescription, describe

    found = describe(path)
    if isinstance(found, DatasetDescription):
        _print_dataset(found)
    elif isinstance(found, RunDescription):
        _print_run(found)
    else:
        _print_samples(found)


def _print_dataset(found: DatasetDescription) -> None:
    kind = found.kind if found.kind == "volumes" else f"{found.axis} slices"
    print(f"{found.path}: prepared data set from {found.source} ({found.layout})")
    print(f"  {found.items} {kind} of {' x '.join(map(str, found.size))}, {', '.join(found.channels)}")
    for split in found.splits:
        print(f"  {split.name:8} {split.items:6} {found.kind}, {split.patients} patients")
    for number, (name, share) in enumerate(found.pixel_shares.items(), start=1):
        print(f"  class {number:3} {name:24} {100 * share:7.3f} % of the pixels")
    for attribute in found.attributes:
        print(f"  attribute {attribute.name}: {attribute.values} ({attribute.cases} cases)")
    for line in (found.notice, *found.remarks):
        if line:
            print(f"  {line}")


def _print_run(found: RunDescription) -> None:
    more = found.network or found.kind
    if found.parameters is not None:
        more += f" of {found.parameters / 1e6:.1f} M parameters"
    if found.diffusion_path is not None:
        more += f", {found.diffusion_path} path, predicts {found.target}"
    print(f"{found.path}: run, {more}")
    tiles = f", seen in tiles of {' x '.join(map(str, found.window))}" if found.window is not None else ""
    print(f"  images of {' x '.join(map(str, found.size))}, {found.channels} channel(s){tiles}")
    if found.encoding is not None:
        print(f"  condition {found.encoding}, mask ablation {'on' if found.mask_ablation else 'off'}")
    print(f"  classes: {', '.join(found.classes)}")
    for attribute in found.attributes:
        print(f"  attribute {attribute.name}: {attribute.values}")
    print(f"  {_training(found)}")


def _training(found: RunDescription) -> str:
    from anatogen.progress import format_duration

    if found.steps == 0:
        what = "it returns one of" if found.kind == "retrieval" else "made from"
        return f"not trained: {what} {found.images} training images"
    if found.steps is None:
        return f"imported from {found.imported_from or 'a checkpoint'}"
    took = f" in {format_duration(found.seconds)}" if found.seconds is not None else ""
    text = f"trained {found.steps} steps, {found.images} images seen{took}"
    return text if found.finished else f"{text}; not finished (anatogen train --resume)"


def _print_samples(found: SamplesDescription) -> None:
    how = f"{found.solver}, {found.steps} steps" if found.solver is not None else "without a solver"
    print(f"{found.path}: {found.images} samples ({found.format}), {how}")
    print(f"  classes: {', '.join(found.classes)}")
    print(f"  free: {'; '.join(', '.join(names) or 'none' for names in found.free)}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(info)
