"""anatogen interpolate"""

from __future__ import annotations

from pathlib import Path

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
    print_samples,
    shard_option,
    solver_option,
    split_names,
    steps_option,
    tile_option,
)


@guarded
def interpolate(
    run: Path = typer.Argument(help="A run."),
    masks: Path = typer.Option(..., help="A prepared data set: its label maps and their real images."),
    out: Path = typer.Option(..., help="Output folder; an incomplete sample set is resumed."),
    similarity: str = typer.Option(
        "0.25,0.5,0.75", help="Similarities to the real image, each in [0, 1): 1 - lambda of the paper."
    ),
    split: str = typer.Option("test", help="Which label maps of the data set."),
    given: str | None = typer.Option(None, metavar="A,B", help="Given classes; the others are left free."),
    free: str | None = typer.Option(
        None, metavar="A,B", help="Classes left free for the model to infer; the others are given."
    ),
    count: int | None = typer.Option(None, min=1, help="Label maps to take, spread over the split."),
    attribute: list[str] = attribute_option,
    step: int = typer.Option(240, help="Timestep of 1000 at which sampling is paused and the real image mixed in."),
    mixing: str = typer.Option("variance_preserving", help="variance_preserving, or literal (the paper's formula)."),
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    tile: str | None = tile_option,
    guidance: float | None = guidance_option,
    guidance_interval: str | None = guidance_interval_option,
    guidance_classes: str | None = guidance_classes_option,
    attribute_guidance: float | None = attribute_guidance_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option("auto", help="png, npy, nifti or dicom; auto: png for slices, nifti for volumes."),
    shard: str = shard_option,
    device: str = device_option,
) -> None:
    """Make images of adjustable similarity to the real images of their label maps.

    Example: anatogen interpolate runs/liver --masks data/liver --similarity 0.25,0.5,0.75 --given bone --out similar

    Similar to the real images, but told another sequence, by a run that was trained with conditioning.attributes:
    anatogen interpolate runs/breast --masks data/breast --similarity 0.5 --attribute sequence=T2 --out half-t2
    """
    from typing import cast

    from anatogen.diffusion.interpolate import Mixing
    from anatogen.errors import SettingsError
    from anatogen.generation.shards import parse_shard
    from anatogen.workflows.interpolate import InterpolateRequest
    from anatogen.workflows.interpolate import interpolate as run_workflow
    from anatogen.workflows.sample import MapChoice, SolverChoice

    try:
        wanted = tuple(float(part) for part in similarity.split(","))
    except ValueError as error:
        raise SettingsError(
            f"--similarity {similarity} is no list of numbers", hint="Write for instance 0.25,0.5"
        ) from error
    maps = MapChoice(
        masks=masks,
        split=split,
        given=as_tuple(split_names(given)),
        free=as_tuple(split_names(free)),
        count=count,
        seed=seed,
        attributes=tuple(attribute),
    )
    result = run_workflow(
        InterpolateRequest(
            run=run,
            out=out,
            maps=maps,
            similarities=wanted,
            step=step,
            mixing=cast(Mixing, mixing),
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
            device=device,
            command=command_line(),
            shard=parse_shard(shard),
        )
    )
    print_samples(result, dataset=str(masks))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(interpolate)
