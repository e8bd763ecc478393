"""anatogen demo"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import command_line, device_option, guarded


@guarded
def demo(
    out: Path = typer.Option(Path("demo"), help="New folder for everything that the demo makes."),
    max_time: str = typer.Option("2m", help="Longest time to train, for instance 10m."),
    steps: int = typer.Option(2500, min=1, help="Training steps; fewer where --max-time is over before."),
    device: str = device_option,
) -> None:
    """MRI of the hippocampus from label maps, with real patients, within minutes: prepare, train, sample, evaluate.

    80 patients of the Medical Segmentation Decathlon ship with the package (CC-BY-SA 4.0).

    Example: anatogen demo --out demo
    """
    from anatogen.cli.evaluate import print_summary
    from anatogen.data.sources.hippocampus import NOTICE
    from anatogen.progress import format_duration, parse_duration
    from anatogen.workflows.demo import DemoRequest
    from anatogen.workflows.demo import demo as run

    request = DemoRequest(
        out,
        training_steps=steps,
        training_seconds=parse_duration(max_time),
        device=device,
        command=command_line(),
    )
    print(NOTICE)
    made = run(request)
    print_summary(made.evaluation)
    if made.note:
        print(made.note)
    print("Took " + ", ".join(f"{format_duration(s)} to {stage}" for stage, s in made.seconds.items()))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)
