"""anatogen compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import as_tuple, command_line, device_option, guarded, split_names

if TYPE_CHECKING:
    from anatogen.workflows.compare import Contender


@guarded
def compare(
    systems: list[str] = typer.Argument(
        metavar="[NAME=]RUN|SAMPLES...",
        help="Runs, which are sampled first, or sample sets over the same label maps; each with a name for the tables. "
        "NAME=SAMPLES,SAMPLES: sets from test and from heldout maps. The first is what differences are to.",
    ),
    dataset: Path = typer.Option(..., help="The prepared data set."),
    out: Path = typer.Option(..., help="Folder for the comparison."),
    only: str | None = typer.Option(
        None, metavar="A,B", help="Any of faithfulness, utility, realism, privacy. [default: all that are applicable]"
    ),
    split: str = typer.Option("test", help="Which label maps to sample, given runs."),
    count: int | None = typer.Option(None, min=1, help="How many images to sample from each split, given runs."),
    floors: bool = typer.Option(
        True, "--floors/--no-floors", help="Also compare with nearest-map retrieval and painting, which learn nothing."
    ),
    not_run: list[str] = typer.Option(
        [], "--not-run", metavar="NAME=REASON", help="A system that stands in the tables as not run."
    ),
    utility_seeds: int = typer.Option(
        1, min=1, help="Segmenters trained on each mixture of real and synthetic images."
    ),
    utility_steps: int = typer.Option(600, min=1, help="Steps of each of these trainings."),
    device: str = device_option,
) -> None:
    """Compare systems on the same label maps: faithfulness, utility, realism, copies and cost in the paper's tables.

    Writes comparison.html, .json, .md and .tex, a figure, and each system's own report.

    Example: anatogen compare ours=runs/hippocampus spade=runs/spade --dataset data/hippocampus --out comparison

    Train the others with: anatogen train data/hippocampus --out runs/spade --model spade --max-time 10m
    """
    from anatogen.evaluation.subject import EvaluationSettings
    from anatogen.judges.segmenter import SegmenterSettings
    from anatogen.workflows.compare import CompareRequest
    from anatogen.workflows.compare import compare as run

    settings = EvaluationSettings(utility=SegmenterSettings(steps=utility_steps), utility_seeds=utility_seeds)
    result = run(
        CompareRequest(
            contenders=(*map(_contender, systems), *map(_absent, not_run)),
            dataset=dataset,
            out=out,
            only=as_tuple(split_names(only)),
            split=split,
            count=count,
            floors=floors,
            settings=settings,
            device=device,
            command=command_line(),
        )
    )
    from anatogen.reporting.comparison import floors_in_words

    for system in result.comparison.systems:
        if system.not_run is not None:
            print(f"{system.name}: not run ({system.not_run})")
        elif system.dice_gen_map is not None and system.dice_gen_map.mean is not None:
            print(f"{system.name}: Dice(m_gen, m) {system.dice_gen_map.mean:.3f}")
    for sentence in floors_in_words(result.comparison):
        print(sentence)
    print(f"Comparison: {result.page}, with comparison.md and comparison.tex")


def _contender(text: str) -> Contender:
    from anatogen.errors import SettingsError
    from anatogen.workflows.compare import Contender

    name, equals, places = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
    paths = [Path(place) for place in (places.split(",") if equals else [places])]
    if len(paths) > 2:
        raise SettingsError(
            f"'{text}' names {len(paths)} sample sets", hint="Give one from test and one from heldout maps"
        )
    return Contender(name or paths[0].resolve().name, paths[0], paths[1] if len(paths) > 1 else None)


def _absent(text: str) -> Contender:
    from anatogen.workflows.compare import Contender

    name, _, reason = text.partition("=")
    return Contender(name, not_run=reason or "no reason was given")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)
