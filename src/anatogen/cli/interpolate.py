"""anatogen interpolate"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import (
    device_option,
    eta_option,
    guarded,
    overview_of,
    sampling_about,
    solver_option,
    split_names,
    steps_option,
)


@guarded
def interpolate(
    run: Path = typer.Argument(help="A run."),
    masks: Path = typer.Option(..., help="A prepared data set: its label maps and their real images."),
    out: Path = typer.Option(..., help="Folder for the sample set; an unfinished one is finished."),
    similarity: str = typer.Option(
        "0.25,0.5,0.75", help="How alike to the real image, each in [0, 1): 1 - lambda of the paper."
    ),
    split: str = typer.Option("test", help="Which label maps of the data set."),
    given: str | None = typer.Option(None, metavar="A,B", help="Classes that are obeyed; the others are free."),
    free: str | None = typer.Option(None, metavar="A,B", help="Classes that the model infers; the others are given."),
    count: int | None = typer.Option(None, min=1, help="Label maps to take, spread over the split."),
    step: int = typer.Option(240, help="Where the generation is halted: a step of the paper's 1000."),
    mixing: str = typer.Option("variance_preserving", help="variance_preserving, or literal (the paper's formula)."),
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option("png", help="png, npy, nifti or dicom."),
    device: str = device_option,
) -> None:
    """Make images that are more or less alike to the real images of their label maps.

    Example: anatogen interpolate runs/liver --masks data/liver --similarity 0.25,0.5,0.75 --given bone --out alike
    """
    from typing import cast

    from anatogen.data.store import PreparedDataset
    from anatogen.diffusion.interpolate import Mixing
    from anatogen.errors import SettingsError, nearest
    from anatogen.generation.engine import Generator
    from anatogen.generation.plan import check_same_anatomy, requests_alike, requests_from_dataset
    from anatogen.generation.sample_set import write_sample_set
    from anatogen.progress import Progress

    try:
        wanted = [float(part) for part in similarity.split(",")]
    except ValueError as error:
        raise SettingsError(
            f"--similarity {similarity} is no list of numbers", hint="Write for instance 0.25,0.5"
        ) from error
    if mixing not in ("variance_preserving", "literal"):
        raise SettingsError(f"there is no mixing '{mixing}'", hint=nearest(mixing, ("variance_preserving", "literal")))
    generator = Generator.load(run, device=device)
    settings = generator.with_settings(solver=solver, steps=steps, eta=eta)
    dataset = PreparedDataset.open(masks)
    check_same_anatomy(generator, dataset)
    states = generator.schema.states(given=split_names(given), free=split_names(free))
    plain = requests_from_dataset(dataset, dataset.split(split), states, seed=seed, count=count)
    requests = requests_alike(dataset, plain, wanted, step=step, mixing=cast(Mixing, mixing))
    about = sampling_about(
        generator, run, {"given": states.given_names(generator.schema), "seed": seed, "step": step, "mixing": mixing}
    )
    with Progress("interpolating", len(requests), "images") as bar:
        samples = write_sample_set(
            generator,
            requests,
            out,
            settings=settings,
            image_format=format,
            about=about,
            progress=lambda done, total: bar.update(done),
        )
    print(f"{out}: {len(samples.entries)} images" + overview_of(samples, dataset))
    print(f"Next: anatogen evaluate {out} --dataset {masks} --out REPORT")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(interpolate)
