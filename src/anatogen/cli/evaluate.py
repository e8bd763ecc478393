"""anatogen evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from anatogen import __version__
from anatogen.cli.common import command_line, device_option, guarded


@guarded
def evaluate(
    subject: Path = typer.Argument(metavar="SAMPLES|RUN", help="A sample set, or a run, which is sampled first."),
    dataset: Path = typer.Option(..., help="The prepared data set that the label maps are from."),
    out: Path = typer.Option(..., help="Folder for the report."),
    split: str = typer.Option("test", help="Which label maps to sample, given a run."),
    count: int | None = typer.Option(None, min=1, help="How many images to sample, given a run."),
    quick: bool = typer.Option(False, "--quick", help="Leave out the freed classes and the steps curve."),
    device: str = device_option,
) -> None:
    """Measure how well images follow their label maps, and write a report.

    Example: anatogen evaluate samples --dataset data/hippocampus --out report
    """
    from anatogen.evaluation.evaluate import evaluate as run

    results = run(
        subject,
        dataset,
        out,
        split=split,
        count=count,
        device=device,
        quick=quick,
        command=command_line(),
        version=__version__,
    )
    print_summary(results, out)


def print_summary(results: dict[str, Any], out: Path) -> None:
    """The report in four lines."""
    measures = results["faithfulness"]
    for key, text in (
        ("dice_gen_map", "generated, map"),
        ("dice_gen_real", "generated, real"),
        ("dice_real_map", "real, map"),
    ):
        if key not in measures:
            continue
        per_class = ", ".join(f"{name} {value:.3f}" for name, value in measures[key]["per_class"].items())
        low, high = measures[key]["ci95"]
        print(f"Dice({text}) {measures[key]['mean']:.3f} [{low:.3f}, {high:.3f}]: {per_class}")
    print(f"Report: {out / 'report.html'}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)
