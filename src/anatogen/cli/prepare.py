"""anatogen prepare"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen import __version__
from anatogen.cli.common import guarded


@guarded
def prepare(
    source: str = typer.Argument(help="An nnU-Net raw data set (folder), or brain-template."),
    out: Path = typer.Argument(help="New folder for the prepared data set."),
    layout: str = typer.Option("auto", help="auto, nnunet or brain-template."),
    size: int = typer.Option(256, help="Height and width of the images, in pixels."),
    axis: str = typer.Option("axial", help="Direction of the slices: axial, coronal or sagittal."),
    fit: str = typer.Option(
        "pad", help="pad (keep the aspect ratio, shrink if needed), crop, or stretch (the paper's)."
    ),
    window: tuple[float, float] | None = typer.Option(
        None, metavar="LOW HIGH", help="Intensities that become black and white, in the scanner's units (HU)."
    ),
    percentile: tuple[float, float] = typer.Option(
        (0.5, 99.5), metavar="LOW HIGH", help="Percentiles of each case that become black and white."
    ),
    split: str = typer.Option("train=70,heldout=15,val=7.5,test=7.5", help="Shares of the patients."),
    seed: int = typer.Option(0, help="Seed of the split."),
    keep_empty: bool = typer.Option(False, "--keep-empty", help="Keep slices without any label too."),
) -> None:
    """Turn a data set into slices, split by patient, ready to train on.

    Example: anatogen prepare Dataset004_Hippocampus data/hippocampus --size 64 --axis sagittal
    """
    from typing import cast

    from anatogen.data.intensity import IntensityRule
    from anatogen.data.prepare import PrepareSettings
    from anatogen.data.prepare import prepare as run
    from anatogen.data.sources import open_source
    from anatogen.data.split import parse_shares
    from anatogen.errors import SettingsError, nearest
    from anatogen.runtime import Progress
    from anatogen.volume import Fit

    if fit not in ("pad", "crop", "stretch"):
        raise SettingsError(f"there is no fit '{fit}'", remedy=nearest(fit, ("pad", "crop", "stretch")))
    settings = PrepareSettings(
        size=(size, size),
        axis=axis,
        fit=cast(Fit, fit),
        intensity=IntensityRule(window=window, percentile=percentile),
        shares=parse_shares(split),
        seed=seed,
        keep_empty=keep_empty,
    )
    opened = open_source(source, layout)
    with Progress("preparing", len(opened.cases), "cases") as bar:
        dataset = run(opened, out, settings, version=__version__, progress=lambda done, total: bar.update(done))
    print(f"{out}: {len(dataset.rows)} slices of {size} x {size}, classes {', '.join(dataset.schema.names)}")
    for name in dict.fromkeys(row.split for row in dataset.rows):
        rows = dataset.split(name)
        print(f"  {name:8} {len(rows):6} slices, {len({row.patient for row in rows})} patients")
    print(f"Next: anatogen train {out} --out RUN --max-time 10m")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(prepare)
