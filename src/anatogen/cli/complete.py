"""anatogen complete"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import (
    as_tuple,
    attribute_option,
    command_line,
    device_option,
    eta_option,
    guarded,
    images_of,
    shard_option,
    solver_option,
    split_names,
    steps_option,
    tile_option,
)

if TYPE_CHECKING:
    from anatogen.reporting.completion import Completion, Share
    from anatogen.reporting.results import Score
    from anatogen.workflows.complete import CompleteResult


@guarded
def complete(
    run: Path | None = typer.Argument(None, help="A run that was trained with mask ablation; none with --of-real."),
    masks: Path | None = typer.Option(
        None, help="The label maps to complete: a prepared data set, or a folder of PNG, NPY, NIfTI or NRRD."
    ),
    of_real: Path | None = typer.Option(
        None,
        metavar="DATASET",
        help="Instead: have the segmenter label the missing classes of this prepared data set's real images.",
    ),
    out: Path = typer.Option(..., help="Output folder; what is there already is kept."),
    split: str = typer.Option("test", help="Which items of the data set."),
    free: str | None = typer.Option(
        None, metavar="A,B", help="Classes to complete. [default: those that a label map was not annotated for]"
    ),
    given: str | None = typer.Option(None, metavar="A,B", help="Given classes; the others are completed."),
    per_mask: int = typer.Option(8, min=1, help="Samples of each label map."),
    count: int | None = typer.Option(
        None, min=1, help="Images in all, spread over the label maps, --per-mask of each; with --of-real real images."
    ),
    calibrate: int = typer.Option(
        0,
        min=0,
        metavar="MAPS",
        help="Calibrate frequencies on this many validation label maps, which are sampled too. [default: as sampled]",
    ),
    rename: list[str] = typer.Option(
        [],
        "--rename",
        metavar="OURS=THEIRS",
        help="A class that has another name in the other data set: liver=liver+tumour.",
    ),
    fit: str = typer.Option("crop", help="Label maps of another geometry: crop to the field of view, or pad (shrink)."),
    judge: Path | None = typer.Option(
        None,
        metavar="DATASET",
        help="Prepared data set whose held-out patients train the segmenter. [default: --masks, if the model was "
        "trained on it; with --of-real that data set]",
    ),
    attribute: list[str] = attribute_option,
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    tile: str | None = tile_option,
    seed: int = typer.Option(0, help="The same seed gives the same samples."),
    format: str = typer.Option("auto", help="Of the samples, as of anatogen sample: png, npy, nifti or dicom."),
    batch_size: int = typer.Option(16, min=1, help="Images made at a time; changes the speed, not the images."),
    shard: str = shard_option,
    device: str = device_option,
) -> None:
    """Complete label maps: what the model fills in for free classes, and how sure it is.

    Example: anatogen complete runs/liver --masks data/liver --free tumour --calibrate 40 --out completed

    Of every label map: samples with the free classes labelled (images/, completed/), mean, standard deviation and
    frequency of each free class (maps/), and pictures. Given classes stay as they are. completion.json compares the
    maps with held-out annotations, and says how well frequencies are calibrated. The pairs train other programs:
    anatogen export completed Dataset501_Completed --to nnunet --labels completed

    The missing classes of a real image are a segmenter's task, not a generator's: it sees the image. This labels them,
    and measures the segmenter on patients whom it did not see:
    anatogen complete --of-real data/partly-annotated --out completed-real

    One of 20 jobs that fill one folder; the one that makes the last samples completes the label maps:
    anatogen complete runs/liver --masks data/liver --free tumour --per-mask 50 --out completed --shard 3/20
    """
    from anatogen.errors import SettingsError
    from anatogen.generation.shards import parse_shard
    from anatogen.workflows.complete import CompleteRequest
    from anatogen.workflows.complete import complete as run_workflow
    from anatogen.workflows.complete_real import CompleteRealRequest, complete_real
    from anatogen.workflows.sample import MapChoice, SolverChoice

    names, part = as_tuple(split_names(free)), parse_shard(shard)
    if of_real is not None:
        if run is not None or masks is not None or given is not None or calibrate or attribute:
            raise SettingsError(
                "--of-real labels real images with a segmenter; it takes no run, --masks, --given, --attribute or "
                "--calibrate",
                hint="Leave them out, or leave --of-real out",
            )
        if part.count > 1:
            raise SettingsError(
                "--shard divides the images that a model makes, and --of-real makes none",
                hint="Leave --shard out; --split and --count choose the images",
            )
        asked = CompleteRealRequest(of_real, out, split, names or (), judge, count, device, command_line())
        result = complete_real(asked)
    elif run is None or masks is None:
        raise SettingsError("there is nothing to complete", hint="Give RUN and --masks, or --of-real DATASET")
    else:
        maps = MapChoice(
            masks=masks,
            split=split,
            given=as_tuple(split_names(given)),
            free=names,
            per_mask=per_mask,
            count=count,
            renames=tuple(rename),
            fit=fit,
            seed=seed,
            attributes=tuple(attribute),
        )
        result = run_workflow(
            CompleteRequest(
                run=run,
                out=out,
                maps=maps,
                judge=judge,
                calibrate=calibrate,
                solver=SolverChoice(solver, steps, eta, tile),
                format=format,
                batch_size=batch_size,
                device=device,
                command=command_line(),
                shard=part,
            )
        )
    _print(result)


def _print(result: CompleteResult) -> None:
    """Print what was made and measured, and the command that exports it."""
    for note in result.notes:
        print(note)
    out, found = result.out, result.completion
    if found is None:  # other shards are missing
        assert result.samples is not None
        print(images_of(result.samples))
        return
    shown = f", overview in {result.overview}" if result.overview else ""
    print(f"{out}: {found.images} images of {found.label_maps} label maps, {', '.join(found.free)} completed{shown}")
    for line in _measured(found):
        print(line)
    if found.of == "samples":
        print(f"Next: anatogen export {out} DATASET_OUT --to nnunet --labels completed --dataset DATASET_OF_THE_MODEL")


def _measured(found: Completion) -> list[str]:
    """What was measured, a line each."""
    lines = []
    measured = found.measured
    if measured is not None:
        titles = {
            "dice_mean": "Dice of completed classes with the annotation, mean of samples",
            "dice_best": "... best of a map's samples",
            "dice_real": "Dice of the segmenter on the real image" + ("s" if found.of == "samples" else ""),
        }
        of_whom = f"{measured.label_maps} label maps of {measured.patients} unseen patients"
        scores = {title: getattr(measured, name) for name, title in titles.items()}
        lines += [f"{title}: {_score(score)} ({of_whom})" for title, score in scores.items() if score is not None]
    for name, of_class in found.calibration.items():
        parts = [("sampled", of_class.sampled), ("calibrated", of_class.calibrated)]
        errors = [f"{title} {_share(part.error_uncertain)}" for title, part in parts if part is not None]
        if errors:
            lines.append(f"{name}: calibration error where samples differ: {', '.join(errors)}")
    return lines


def _score(score: Score) -> str:
    return _share_of(score.mean, score.ci95)


def _share(share: Share) -> str:
    return _share_of(share.value, share.ci95)


def _share_of(value: float | None, ends: tuple[float | None, float | None] | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends and None not in ends else "")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(complete)
