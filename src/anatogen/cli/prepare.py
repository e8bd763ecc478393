"""anatogen prepare"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import as_tuple, command_line, guarded, split_names


@guarded
def prepare(
    source: str = typer.Argument(
        help="A folder of scans with label maps, hippocampus (80 bundled patients), phantom:ct-organ, or "
        "brain-template."
    ),
    out: Path = typer.Argument(help="New folder for the prepared data set."),
    layout: str = typer.Option("auto", help="Layout of the data; auto detects it."),
    size: str = typer.Option("256", help="Image size in pixels: 256, 256x192 (height x width), 64x96x96."),
    dim: int = typer.Option(2, min=2, max=3, help="2 for slices, 3 for whole volumes."),
    axis: str = typer.Option("axial", help="Orientation of the slices: axial, coronal or sagittal."),
    fit: str = typer.Option(
        "pad", help="pad (keep the aspect ratio, shrink if needed), crop, or stretch (as in the paper)."
    ),
    spacing: str | None = typer.Option(
        None, metavar="MM", help="Resample to this spacing first: 1.5, or 1,1,3 along x, y and z."
    ),
    crop_to_labels: float | None = typer.Option(
        None,
        "--crop-to-labels",
        metavar="MARGIN",
        help="Crop all cases to one field of view, centred on the labels: the largest labelled box plus this margin in "
        "mm.",
    ),
    window: tuple[float, float] | None = typer.Option(
        None, metavar="LOW HIGH", help="Intensities mapped to black and white, in the scanner's units (HU)."
    ),
    percentile: tuple[float, float] = typer.Option(
        (0.5, 99.5), metavar="LOW HIGH", help="Percentiles of each case mapped to black and white."
    ),
    split: str = typer.Option("train=70,heldout=15,val=7.5,test=7.5", help="Shares of the patients."),
    seed: int = typer.Option(0, help="Seed of the split, and of a phantom."),
    ignore_split: bool = typer.Option(False, "--ignore-split", help="Make a new split even if the layout has its own."),
    classes: str | None = typer.Option(
        None,
        metavar="A,B",
        help="Names of the classes 1, 2, ... if the layout has none; for colours: liver=#FF0000,spleen=#00FF00.",
    ),
    merge: list[str] = typer.Option([], metavar="NEW=A+B", help="Merge classes, or rename one."),
    drop: str | None = typer.Option(None, metavar="A,B", help="Classes that become background."),
    undrawn_slices: str | None = typer.Option(
        None,
        metavar="AXIS",
        help="Volumes of which only some axial (coronal, sagittal) slices were drawn: a slice without any label is "
        "unknown, not background.",
    ),
    patient_pattern: str | None = typer.Option(
        None, metavar="REGEX", help="Pattern that matches the patient in a case name."
    ),
    patients: str | None = typer.Option(
        None,
        metavar="FILE.csv|N",
        help="Table with the columns case and patient; for a phantom, the number of patients.",
    ),
    attributes: Path | None = typer.Option(
        None,
        metavar="FILE.csv",
        help="Table with the column case or patient and one for each attribute, such as sequence or age.",
    ),
    keep_empty: bool = typer.Option(False, "--keep-empty", help="Also keep slices without any label."),
    skip_faulty: bool = typer.Option(
        False, "--skip-faulty", help="Leave out cases that cannot be read; the prepared set lists them."
    ),
    keep_names: bool = typer.Option(
        False, "--keep-names", help="Keep the names of cases and patients instead of numbering them."
    ),
    workers: int | None = typer.Option(None, min=1, help="Processes that read cases. [default: one per core]"),
) -> None:
    """Turn a data set into slices or volumes, split by patient, ready for training. Run again to resume.

    Example: anatogen prepare Dataset004_Hippocampus data/hippocampus --size 64 --axis sagittal
    """
    from typing import cast

    from anatogen.data.intensity import IntensityRule
    from anatogen.data.prepare import PrepareSettings
    from anatogen.data.split import parse_shares
    from anatogen.errors import SettingsError, nearest
    from anatogen.settings import parse_sides
    from anatogen.volume import Fit
    from anatogen.workflows.prepare import PrepareRequest
    from anatogen.workflows.prepare import prepare as run_workflow

    if fit not in ("pad", "crop", "stretch"):
        raise SettingsError(f"unknown fit '{fit}'", hint=nearest(fit, ("pad", "crop", "stretch")))
    settings = PrepareSettings(
        size=parse_sides(size, dim, "--size"),
        axis=axis,
        fit=cast(Fit, fit),
        intensity=IntensityRule(window=window, percentile=percentile),
        spacing_mm=parse_spacing(spacing),
        crop_margin_mm=crop_to_labels,
        keep_empty=keep_empty,
        shares=parse_shares(split),
        seed=seed,
        ignore_split=ignore_split,
        workers=workers,
        skip_faulty=skip_faulty,
        keep_names=keep_names,
    )
    result = run_workflow(
        PrepareRequest(
            source=source,
            out=out,
            settings=settings,
            layout=layout,
            classes=as_tuple(split_names(classes)),
            merge=tuple(merge),
            drop=tuple(split_names(drop) or ()),
            patient_pattern=patient_pattern,
            patients=patients,
            attributes=attributes,
            undrawn=undrawn_slices,
            command=command_line(),
        )
    )
    for line in (result.notice, *result.remarks):
        if line:
            print(line)
    dataset = result.dataset
    what = "slices" if dim == 2 else "volumes"
    shape = " x ".join(map(str, dataset.size))
    print(f"{out}: {len(dataset.rows)} {what} of {shape}, classes {', '.join(dataset.schema.names)}")
    for name in dataset.split_names:
        rows = dataset.split(name)
        print(f"  {name:8} {len(rows):6} {what}, {len({row.patient for row in rows})} patients")
    print(f"Next: anatogen train {out} --out RUN --max-time 10m")


def parse_spacing(text: str | None) -> tuple[float, float, float] | None:
    """(x, y, z) in millimetres from "1.5" or "1,1,3".

    Raises:
        SettingsError: The text is not a spacing.
    """
    from anatogen.errors import SettingsError

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
        x, y, z = values * 3 if len(values) == 1 else values
    except ValueError as error:
        raise SettingsError(
            f"--spacing must be one or three numbers, got {text}", hint="Use for instance 1.5, or 1,1,3"
        ) from error
    return x, y, z


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(prepare)
