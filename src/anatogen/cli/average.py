"""anatogen average"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def average(
    run: Path = typer.Argument(help="A run that was trained with training.average_lengths."),
    length: float = typer.Option(..., help="Length of the average relative to the training, for instance 0.07."),
    out: Path = typer.Option(..., help="New folder for the run with these weights."),
) -> None:
    """Make a run of another average of the weights, from snapshots that its training kept.

    Longer averages have less noise and lag behind the last steps; which one is best is seen by sampling and evaluating.

    Example: anatogen average runs/hippocampus --length 0.07 --out runs/hippocampus-007

    The training has to keep snapshots:
    anatogen train data/hippocampus --out runs/hippocampus --set training.average_lengths=[0.05,0.1]
    """
    from anatogen.workflows.average import average as run_workflow

    run_workflow(run, out, length)
    print(f"{out}: average of relative length {length:g} over the training of {run}")
    print(f"Next: anatogen sample {out} --masks DATASET --out SAMPLES")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(average)
