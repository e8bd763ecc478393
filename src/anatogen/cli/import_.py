"""anatogen import"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded, split_names


@guarded
def import_(
    checkpoint: Path = typer.Argument(
        help="A folder with config.json and .safetensors, or a published .safetensors file."
    ),
    run: Path = typer.Argument(help="New folder for the run."),
    classes: str | None = typer.Option(
        None, metavar="A,B", help="Names of the classes 1, 2, ... of the training masks."
    ),
    size: int | None = typer.Option(
        None, min=8, help="Image size, if the checkpoint does not state it. [default: 256]"
    ),
    ablated: bool | None = typer.Option(
        None, "--ablated/--not-ablated", help="Whether it was trained with mask ablation. [default: by its name]"
    ),
) -> None:
    """Import a checkpoint of the paper's authors, or any UNet2DModel of diffusers, as a run.

    Example: anatogen import ddim-breast_mri-256-segguided runs/breast --classes breast,vessels,dense
    """
    from anatogen.interop.diffusers import import_checkpoint

    import_checkpoint(checkpoint, run, classes=split_names(classes) or (), size=size, ablated=ablated)
    print(f"{run}: imported")
    print(f"Next: anatogen sample {run} --masks DATASET --out SAMPLES")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("import")(import_)
