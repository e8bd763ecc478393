"""anatogen import"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded, split_names


@guarded
def import_(
    checkpoint: Path = typer.Argument(
        help="A folder with config.json and .safetensors, or a .safetensors file as published."
    ),
    run: Path = typer.Argument(help="New folder for the run."),
    classes: str | None = typer.Option(None, metavar="A,B", help="Names of the classes 1, 2, ... of its masks."),
    size: int | None = typer.Option(
        None, min=8, help="Image size, where the checkpoint does not say it. [default: 256]"
    ),
    ablated: bool | None = typer.Option(
        None, "--ablated/--not-ablated", help="Trained with mask ablation. [default: whether its name says so]"
    ),
) -> None:
    """Turn an authors' checkpoint, or any of diffusers' UNet2DModel, into a run.

    Example: anatogen import ddim-breast_mri-256-segguided runs/breast --classes breast,vessels,dense
    """
    from anatogen.interop.diffusers import import_checkpoint

    import_checkpoint(checkpoint, run, classes=split_names(classes) or (), size=size, ablated=ablated)
    print(f"{run}: imported")
    print(f"Next: anatogen sample {run} --masks DATASET --out SAMPLES")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("import")(import_)
