"""anatogen export"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def export(
    source: Path = typer.Argument(metavar="SAMPLES|RUN", help="A sample set (to nnunet) or a run (to diffusers)."),
    out: Path = typer.Argument(help="New folder."),
    to: str = typer.Option(..., help="nnunet: a raw data set. diffusers: a UNet2DModel."),
    dataset: Path | None = typer.Option(
        None,
        help="The model's training data: searched for copies unless evaluate has done so, and the source of geometry "
        "and units that the sample set lacks.",
    ),
    stack: bool = typer.Option(
        False, "--stack", help="Join the slices of each map volume to one case, for 3D configurations of nnU-Net."
    ),
    labels: str = typer.Option(
        "asked", help="Label maps: asked (for), or completed, with free classes labelled by anatogen complete."
    ),
    accept_copies: bool = typer.Option(
        False, "--accept-copies", help="Export a sample set in which more training patients are copied than by chance."
    ),
) -> None:
    """Export a sample set or a run for another program.

    Images keep the place and the units (HU) of the scans that their label maps are from, whatever the format of the
    samples. A sample set that copies training patients is refused.

    Example: anatogen export samples Dataset501_Synthetic --to nnunet --dataset data/liver
    """
    from anatogen.workflows.export import ExportRequest
    from anatogen.workflows.export import export as run_workflow

    result = run_workflow(ExportRequest(source, out, to, dataset, accept_copies, stack, labels))
    for note in result.notes:
        print(note)
    if to == "diffusers":
        print(f"{out}: load it with UNet2DModel.from_pretrained")
    else:
        of_images = f" of {result.images} slices" if stack else ""
        print(f"{out}: {result.cases} cases{of_images}, classes {', '.join(result.classes)}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)
