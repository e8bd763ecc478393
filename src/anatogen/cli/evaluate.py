"""anatogen evaluate"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import as_tuple, command_line, device_option, guarded, split_names

if TYPE_CHECKING:
    from anatogen.workflows.evaluate import EvaluateResult


@guarded
def evaluate(
    subject: list[Path] = typer.Argument(
        metavar="SAMPLES...|RUN",
        help="A run, which is sampled first; or a sample set; or two sets, from test and from heldout maps.",
    ),
    dataset: Path = typer.Option(..., help="The prepared data set that the model was trained on."),
    out: Path = typer.Option(..., help="Folder for the report."),
    only: str | None = typer.Option(
        None, metavar="A,B", help="Any of faithfulness, utility, realism, privacy. [default: all that are applicable]"
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
        help="Also measure utility for training nnU-Net (2d on slices, 3d_fullres on volumes), where it is installed: "
        "1, 5, 10, 20, 50, 100, 250, 500, 750, 1000, 2000, 4000 or 8000 epochs.",
    ),
    made_by: Path | None = typer.Option(
        None, "--run", help="The run that made the sample set, if it is not in a folder beside it."
    ),
    quick: bool = typer.Option(
        False, "--quick", help="Skip classes left free, variation between seeds and Dice against solver steps."
    ),
    device: str = device_option,
) -> None:
    """Evaluate faithfulness, utility, realism and privacy (memorisation).

    Writes a report, a model card and a data sheet.

    Example: anatogen evaluate samples --dataset data/hippocampus --out report

    All four questions of a run: anatogen evaluate runs/hippocampus --dataset data/hippocampus --out report
    """
    from anatogen.evaluation.subject import EvaluationSettings
    from anatogen.judges.segmenter import SegmenterSettings
    from anatogen.workflows.evaluate import EvaluateRequest
    from anatogen.workflows.evaluate import evaluate as run

    if nnunet is not None:
        _end_as_by_ctrl_c()
    result = run(
        EvaluateRequest(
            subjects=tuple(subject),
            dataset=dataset,
            out=out,
            only=as_tuple(split_names(only)),
            split=split,
            count=count,
            run=made_by,
            settings=EvaluationSettings(
                utility=SegmenterSettings(steps=utility_steps), utility_seeds=utility_seeds, nnunet_epochs=nnunet
            ),
            quick=quick,
            device=device,
            command=command_line(),
        )
    )
    print_summary(result)


def _end_as_by_ctrl_c() -> None:
    """Let a closed terminal and a scheduler's SIGTERM end this process as Ctrl-C does, so that none of its children
    stays.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, stop)


def print_summary(result: EvaluateResult) -> None:
    """The report in a few lines."""
    from anatogen.reporting.summary import summary_lines

    for line in summary_lines(result.report):
        print(line)
    print(f"Report: {result.page}, with model_card.md and data_sheet.md")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(evaluate)
