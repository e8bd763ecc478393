"""anatogen evaluate"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import typer

from anatogen import __version__
from anatogen.cli.common import command_line, device_option, guarded, split_names


@guarded
def evaluate(
    subject: list[Path] = typer.Argument(
        metavar="SAMPLES...|RUN",
        help="A run, which is sampled first; or a sample set, or two: from test and from heldout maps.",
    ),
    dataset: Path = typer.Option(..., help="The prepared data set that the model was trained on."),
    out: Path = typer.Option(..., help="Folder for the report."),
    only: str | None = typer.Option(
        None, metavar="A,B", help="Of faithfulness, utility, realism, privacy. [default: all that can be answered]"
    ),
    split: str = typer.Option("test", help="Which label maps to sample, given a run."),
    count: int | None = typer.Option(None, min=1, help="How many images to sample from each split, given a run."),
    utility_seeds: int = typer.Option(
        1, min=1, help="Segmenters trained on each mixture of real and synthetic images."
    ),
    utility_steps: int = typer.Option(600, min=1, help="Steps of each of these trainings."),
    nnunet: int | None = typer.Option(
        None,
        metavar="EPOCHS",
        help="Train nnU-Net too, where it is installed, to see how useful the images are: 1, 5, 10, 20, 50, 100, 250, 500, "
        "750, 1000, 2000, 4000 or 8000 epochs.",
    ),
    made_by: Path | None = typer.Option(
        None, "--run", help="The run that made the sample set, where it lies in no folder beside it."
    ),
    quick: bool = typer.Option(False, "--quick", help="Leave out the freed classes and the steps curve."),
    device: str = device_option,
) -> None:
    """Are the images faithful, useful, real, and nobody's copy? Writes a report, a model card and a data sheet.

    Example: anatogen evaluate samples --dataset data/hippocampus --out report

    All four questions of a run: anatogen evaluate runs/hippocampus --dataset data/hippocampus --out report
    """
    from anatogen.evaluation.evaluate import QUESTIONS, EvaluationSettings
    from anatogen.evaluation.evaluate import evaluate as run
    from anatogen.judges.segmenter import SegmenterSettings

    settings = EvaluationSettings(
        usefulness=SegmenterSettings(steps=utility_steps), utility_seeds=utility_seeds, nnunet_epochs=nnunet
    )
    if nnunet is not None:
        _end_as_by_ctrl_c()
    results = run(
        subject,
        dataset,
        out,
        only=split_names(only) or QUESTIONS,
        split=split,
        count=count,
        device=device,
        settings=settings,
        quick=quick,
        run=made_by,
        command=command_line(),
        version=__version__,
    )
    print_summary(results, out)
    if "utility" not in results and (only is None or "utility" in only):
        print(
            "Usefulness was not measured: it needs images from the held-out patients' maps. Give the run, or add the sample set of "
            f"anatogen sample RUN --masks {dataset} --split heldout"
        )


def _end_as_by_ctrl_c() -> None:
    """Let a closed terminal and a scheduler's SIGTERM end this process as Ctrl-C does, so that none of its children stays."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, stop)


def print_summary(results: dict[str, Any], out: Path) -> None:
    """The report in a few lines."""
    from anatogen.reporting.answers import answers, selection_in_words
    from anatogen.reporting.tables import defined

    for paragraph in selection_in_words(results):
        print(paragraph)
    measures = results.get("faithfulness", {})
    for key, text in (
        ("dice_gen_map", "generated, map"),
        ("dice_gen_real", "generated, real"),
        ("dice_real_map", "real, map"),
    ):
        if key in measures:
            per_class = ", ".join(f"{name} {defined(value)}" for name, value in measures[key]["per_class"].items())
            print(f"Dice({text}) {_interval(measures[key])}: {per_class}")
    if "utility" in results:
        parts = [
            f"{name} {_interval(entry)}" for name, entry in results["utility"].items() if entry and "mean" in entry
        ]
        print(f"Segmenter on real patients, trained on: {'; '.join(parts)}")
        if by_nnunet := results["utility"].get("nnunet"):
            parts = [f"{name} {_interval(by_nnunet[name])}" for name in ("real", "synthetic", "both")]
            print(f"nnU-Net on real patients, trained on: {'; '.join(parts)}")
    if "realism" in results:
        r = results["realism"]
        print(
            f"FID {r['fid']:.3g} (between real images {r['fid_real']:.3g}), noise {r['noise_ratio']:.2f} of the real images'"
        )
    if "privacy" in results:
        print(next(answer.verdict for answer in answers(results) if answer.section == "privacy"))
    print(f"Report: {out / 'report.html'}, with model_card.md and data_sheet.md")


def _interval(entry: dict[str, Any]) -> str:
    from anatogen.reporting.tables import TOO_FEW, defined, with_interval

    if entry["ci95"] is None:
        return f"{defined(entry['mean'])} ({entry.get('no_interval') or TOO_FEW})"
    return with_interval(entry["mean"], entry["ci95"])


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)
