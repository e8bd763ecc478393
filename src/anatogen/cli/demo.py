"""anatogen demo"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen import __version__
from anatogen.cli.common import command_line, guarded


@guarded
def demo(
    out: Path = typer.Option(Path("demo"), help="New folder for everything that the demo makes."),
    max_time: str = typer.Option("5m", help="Time to train, for instance 5m."),
    size: int = typer.Option(80, help="Height and width of the images."),
) -> None:
    """Brain MRI from anatomy, on this machine, within minutes: prepare, train, sample, evaluate.

    Example: anatogen demo --out demo
    """
    from anatogen.cli.evaluate import print_summary
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.sources import open_source
    from anatogen.errors import SettingsError
    from anatogen.evaluation.counterfactual import enlarged_cavity
    from anatogen.evaluation.evaluate import evaluate
    from anatogen.generation.engine import Generator
    from anatogen.progress import parse_duration, stage
    from anatogen.training.config import build_settings
    from anatogen.training.loop import train

    if out.exists():
        raise SettingsError("is there already", path=out, hint="Remove it or choose another with --out")
    # Half of the draws ablated: these classes fill the brain, so what is freed must be made up from nothing.
    settings = build_settings(
        training={"steps": None, "max_time_s": parse_duration(max_time)}, conditioning={"ablated_share": 0.5}
    )
    source = open_source("brain-template")
    print(source.notice)
    with stage("preparing", len(source.cases), "cases") as bar:
        dataset = prepare(
            source,
            out / "data",
            PrepareSettings(size=(size, size)),
            version=__version__,
            progress=lambda done, total: bar.update(done),
        )
    with stage("training", 1.0, "s") as bar:
        train(
            dataset,
            out / "run",
            settings,
            version=__version__,
            progress=lambda share, text: bar.update(share, text or bar.text),
        )
    edit = enlarged_cavity(
        dataset, Generator.load(out / "run"), dataset.split("test"), "cerebrospinal fluid", "ventricles"
    )
    results = evaluate(
        out / "run",
        dataset,
        out / "report",
        only=("faithfulness", "realism", "privacy"),
        command=command_line(),
        version=__version__,
        more_figures=[edit],
    )
    print_summary(results, out / "report")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)
