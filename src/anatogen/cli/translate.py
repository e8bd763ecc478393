"""anatogen translate"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import (
    attribute_guidance_option,
    command_line,
    device_option,
    eta_option,
    guarded,
    print_samples,
    shard_option,
    solver_option,
    steps_option,
)


@guarded
def translate(
    run: Path = typer.Argument(help="A run that was trained with conditioning.attributes."),
    images: Path = typer.Option(..., help="A prepared data set: real images and their label maps."),
    attribute: list[str] = typer.Option(
        ..., "--attribute", metavar="NAME=VALUE", help="What the images are to be: sequence=T2. May be repeated."
    ),
    out: Path = typer.Option(..., help="Output folder; an incomplete sample set is resumed."),
    split: str = typer.Option("test", help="Which images of the data set."),
    strength: float = typer.Option(
        0.6, help="How far the real image is noised, in (0, 1): with more, less of it stays, its contrast included."
    ),
    count: int | None = typer.Option(None, min=1, help="Images to take, spread over the split."),
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    attribute_guidance: float | None = attribute_guidance_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option("auto", help="png, npy, nifti or dicom; auto: png for slices, nifti for volumes."),
    shard: str = shard_option,
    device: str = device_option,
) -> None:
    """Translate real images to another attribute, such as a sequence or a scanner, following their label maps.

    Example: anatogen translate runs/breast --images data/breast --attribute sequence=T2 --out as-t2
    """
    from anatogen.generation.shards import parse_shard
    from anatogen.workflows.sample import SolverChoice
    from anatogen.workflows.translate import TranslateRequest
    from anatogen.workflows.translate import translate as run_workflow

    result = run_workflow(
        TranslateRequest(
            run,
            out,
            images,
            tuple(attribute),
            split=split,
            strength=strength,
            count=count,
            seed=seed,
            solver=SolverChoice(solver, steps, eta, attribute_guidance=attribute_guidance),
            format=format,
            device=device,
            command=command_line(),
            shard=parse_shard(shard),
        )
    )
    print_samples(result, dataset=str(images))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(translate)
