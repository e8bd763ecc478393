"""anatogen sample"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import (
    as_tuple,
    attribute_guidance_option,
    attribute_option,
    command_line,
    device_option,
    eta_option,
    guarded,
    guidance_classes_option,
    guidance_interval_option,
    guidance_option,
    implausible_option,
    optional_edit_option,
    print_samples,
    shard_option,
    solver_option,
    split_names,
    steps_option,
    tile_option,
)

if TYPE_CHECKING:
    from anatogen.generation.sample_set import SampleSet

_RETRIES = 3


@guarded
def sample(
    run: Path = typer.Argument(help="A run."),
    masks: Path = typer.Option(
        ..., help="The label maps: a prepared data set, or a folder of PNG, NPY, NIfTI or NRRD."
    ),
    out: Path = typer.Option(..., help="Output folder; an incomplete sample set is resumed."),
    split: str = typer.Option("test", help="Which label maps of the data set."),
    given: str | None = typer.Option(None, metavar="A,B", help="Given classes; the others are left free."),
    free: str | None = typer.Option(
        None, metavar="A,B", help="Classes left free for the model to infer; the others are given."
    ),
    within: str | None = typer.Option(
        None,
        metavar="REGION",
        help="Where the free classes are free; outside they are given: 'box 10,12..40,50', 'near liver 8mm', or a mask "
        "(PNG, NPY) of the label maps' size, free where it is not 0.",
    ),
    absent: str | None = typer.Option(
        None, metavar="A,B", help="Classes removed from the label maps and enforced as absent."
    ),
    combine: str | None = typer.Option(
        None, metavar="A,B|all", help="Every combination of these classes given or free, with a labelled grid."
    ),
    paired: bool = typer.Option(
        False, "--paired", help="Keep the real image of each label map beside the generated one, in folder real."
    ),
    counterfactual: str | None = typer.Option(
        None,
        metavar="MARGIN",
        help="Keep the real image of each edited map farther than this from the edit, 6px or 4mm, with the real image "
        "and the difference beside it.",
    ),
    per_mask: int = typer.Option(1, min=1, help="Images for each label map."),
    count: int | None = typer.Option(
        None, min=1, help="Images in all, spread over the label maps, --per-mask of each."
    ),
    attribute: list[str] = attribute_option,
    rename: list[str] = typer.Option(
        [],
        "--rename",
        metavar="OURS=THEIRS",
        help="A class that has another name in the other data set: liver=liver+tumour.",
    ),
    fit: str = typer.Option("crop", help="Label maps of another geometry: crop to the field of view, or pad (shrink)."),
    edits: list[str] = optional_edit_option,
    edits_per_map: int = typer.Option(1, min=1, help="Edits of each label map, --per-mask images of each."),
    implausible: str = implausible_option,
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    tile: str | None = tile_option,
    guidance: float | None = guidance_option,
    guidance_interval: str | None = guidance_interval_option,
    guidance_classes: str | None = guidance_classes_option,
    attribute_guidance: float | None = attribute_guidance_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option(
        "auto",
        help="png (16-bit gray or RGB), npy, nifti or dicom (both in the place and units of the scan); auto takes png "
        "for slices and nifti for volumes.",
    ),
    batch_size: int = typer.Option(16, min=1, help="Images made at a time; changes the speed, not the images."),
    min_dice: float | None = typer.Option(
        None, metavar="DICE", help="Reject images whose segmentation Dice on the given classes is below this: 0.8."
    ),
    reject_copies: bool = typer.Option(
        False,
        "--reject-copies",
        help="Reject images that are nearer to a training image than those of unseen patients.",
    ),
    retries: int | None = typer.Option(
        None, min=0, help=f"How often a rejected image is resampled.  [default: {_RETRIES}]"
    ),
    judge: Path | None = typer.Option(
        None,
        metavar="DATASET",
        help="Prepared data set whose held-out patients train the segmenter and whose training patients are searched "
        "for copies. [default: --masks, if the model was trained on it]",
    ),
    shard: str = shard_option,
    device: str = device_option,
) -> None:
    """Make images from label maps.

    Example: anatogen sample runs/liver --masks data/liver --free tumour --per-mask 4 --out samples

    Pairs of real and generated images that share only the bones:
    anatogen sample runs/ct --masks data/ct --given bone --paired --out pairs

    The patients' own images with a larger ventricle, and what that changes in them:
    anatogen sample runs/brain --masks data/brain --edit "grow ventricle 3mm" --counterfactual 6px --out pairs

    A tumour wherever the model puts it, but near the vessel only:
    anatogen sample runs/liver --masks data/liver --free tumour --within "near vessel 15mm" --out near
    The same anatomy in another sequence, by a run that was trained with conditioning.attributes:
    anatogen sample runs/breast --masks data/breast --attribute sequence=T2 --out t2

    Label maps of another data set, its classes matched by name:
    anatogen sample runs/ct --masks data/mr --rename liver=liver+tumour --out from-mr

    Only images that follow their label map, and copy no training patient; the manifest says what was rejected:
    anatogen sample runs/liver --masks data/liver --min-dice 0.8 --reject-copies --out kept

    Ten edits of each label map, drawn by seed (see anatogen edit):
    anatogen sample runs/liver --masks data/liver --edit "grow liver 2..6mm; deform 0.3" --edits-per-map 10 --out edited

    One of 200 jobs that fill one folder; a job that was stopped is started again, and makes what it lacks:
    anatogen sample runs/liver --masks data/liver --per-mask 500 --out million --shard 3/200
    """
    from anatogen.generation.shards import parse_shard
    from anatogen.workflows.edit import EditChoice
    from anatogen.workflows.sample import GateChoice, MapChoice, SampleRequest, SolverChoice
    from anatogen.workflows.sample import sample as run_workflow

    combined = split_names(combine)
    maps = MapChoice(
        masks=masks,
        split=split,
        given=as_tuple(split_names(given)),
        free=as_tuple(split_names(free)),
        within=within,
        absent=tuple(split_names(absent) or ()),
        combine="all" if combine == "all" else as_tuple(combined),
        paired=paired,
        per_mask=per_mask,
        count=count,
        renames=tuple(rename),
        fit=fit,
        seed=seed,
        attributes=tuple(attribute),
        edits=EditChoice(tuple(edits), edits_per_map, implausible),
        counterfactual=counterfactual,
    )
    gate = GateChoice(min_dice, reject_copies, retries, judge)
    result = run_workflow(
        SampleRequest(
            run=run,
            out=out,
            maps=maps,
            gate=gate,
            solver=SolverChoice(
                solver,
                steps,
                eta,
                tile,
                guidance,
                guidance_interval,
                as_tuple(split_names(guidance_classes)),
                attribute_guidance,
            ),
            format=format,
            batch_size=batch_size,
            device=device,
            command=command_line(),
            shard=parse_shard(shard),
        )
    )
    samples = result.samples
    a_folder = not (masks / "dataset.json").is_file()
    foreign = a_folder or any(line.elsewhere is not None for line in samples.entries[:1])
    dataset = "DATASET_OF_THE_MODEL" if foreign else str(masks)
    print_samples(result, _rejections(samples) if gate.wanted else "", dataset=dataset)


def _rejections(samples: SampleSet) -> str:
    found = samples.selection
    return f"; {found.rejected} images rejected, {found.given_up} requests without an image (rejected.jsonl)"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sample)
