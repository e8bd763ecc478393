"""anatogen balance"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import (
    attribute_option,
    command_line,
    device_option,
    guarded,
    images_of,
    implausible_option,
    shard_option,
    solver_option,
    steps_option,
)


@guarded
def balance(
    dataset: Path = typer.Argument(help="A prepared data set."),
    out: Path = typer.Argument(help="Output folder; an incomplete sample set is resumed."),
    run: Path = typer.Option(..., help="A run that was trained on it."),
    class_name: str = typer.Option(..., "--class", metavar="CLASS", help="The class that is rare."),
    share: float = typer.Option(..., help="Share of the images that are to show it, 0 to 1."),
    count: int | None = typer.Option(None, min=1, help="Images in all. [default: as many as the split has label maps]"),
    split: str = typer.Option("train", help="Whose label maps are edited."),
    edit: list[str] = typer.Option(
        ["deform 0.2..0.4"], "--edit", help="What is done with each label map, as in anatogen edit. May be repeated."
    ),
    implausible: str = implausible_option,
    min_dice: float = typer.Option(
        0.7, metavar="DICE", help="Reject images whose segmentation Dice is below this; 0 rejects none."
    ),
    attribute: list[str] = attribute_option,
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option("auto", help="png, npy, nifti or dicom; auto: png for slices, nifti for volumes."),
    shard: str = shard_option,
    device: str = device_option,
) -> None:
    """Compose a synthetic set in which a rare class is as frequent as you ask for.

    Label maps of training patients that show the class are edited, each in a new way, until they are that share of the
    set; the others do not show it. Images that do not follow their label map are rejected.

    Example: anatogen balance data/pelvis balanced --run runs/pelvis --class bladder --share 0.3 --count 1000

    One of 20 jobs that fill one folder; the one that completes the set says how often the class was found:
    anatogen balance data/pelvis balanced --run runs/pelvis --class bladder --share 0.3 --count 100000 --shard 3/20
    """
    from anatogen.generation.shards import parse_shard
    from anatogen.workflows.balance import BalanceRequest
    from anatogen.workflows.balance import balance as run_workflow
    from anatogen.workflows.edit import EditChoice
    from anatogen.workflows.sample import SolverChoice

    result = run_workflow(
        BalanceRequest(
            dataset,
            out,
            run,
            class_name,
            share,
            count=count,
            split=split,
            edits=EditChoice(tuple(edit), implausible=implausible),
            min_dice=min_dice or None,
            seed=seed,
            attributes=tuple(attribute),
            solver=SolverChoice(solver, steps),
            format=format,
            device=device,
            command=command_line(),
            shard=parse_shard(shard),
        )
    )
    for note in result.notes:
        print(note)
    overview = f", overview in {result.overview}" if result.overview else ""
    print(f"{images_of(result.samples)}{overview}")
    if result.asked is None or result.found is None:  # other shards are missing
        return
    print(
        f"{class_name} is in {result.asked:.1%} of the label maps ({result.before:.1%} of the split {split}), and the "
        f"segmenter finds it in {result.found:.1%} of the images"
    )
    print(f"Next: anatogen export {result.samples.folder} OUT --to nnunet")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(balance)
