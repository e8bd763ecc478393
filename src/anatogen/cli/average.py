"""anatogen average"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def average(
    run: Path = typer.Argument(help="A run that was trained with --set training.power_averages=true."),
    length: float = typer.Option(
        ..., help="Standard deviation of the average's profile, as a share of the training: 0.03 to 0.2."
    ),
    out: Path = typer.Option(..., help="New folder for the run."),
) -> None:
    """Choose the length of the weights' average after the training (EDM2, Karras et al. 2024).

    A longer average is smoother, a shorter one is closer to the last steps. Compare several lengths on the validation
    patients (sample --split val), not on those that the report is about.

    Example: anatogen average runs/hippocampus --length 0.07 --out runs/hippocampus-007
    """
    from anatogen.workflows.average import AverageRequest
    from anatogen.workflows.average import average as run_workflow

    result = run_workflow(AverageRequest(run, out, length))
    print(
        f"{out}: average of length {length:g} up to step {result.step}, from {result.snapshots} snapshots "
        f"(its profile is off by {result.error:.1%})"
    )


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(average)
