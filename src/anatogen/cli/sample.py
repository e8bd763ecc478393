"""anatogen sample"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import device_option, guarded, sampling_about, split_names


@guarded
def sample(
    run: Path = typer.Argument(help="A run."),
    masks: Path = typer.Option(..., help="Where the label maps are: a prepared data set, or a folder of PNG or NPY."),
    out: Path = typer.Option(..., help="Folder for the sample set; an unfinished one is finished."),
    split: str = typer.Option("test", help="Which label maps of the data set."),
    given: str | None = typer.Option(None, metavar="A,B", help="Classes that are obeyed; the others are free."),
    free: str | None = typer.Option(None, metavar="A,B", help="Classes that the model infers; the others are given."),
    per_mask: int = typer.Option(1, min=1, help="Images for each label map."),
    count: int | None = typer.Option(None, min=1, help="Images in all, spread over the label maps."),
    solver: str | None = typer.Option(None, help="dpmpp_2m, ddim, ddpm or heun. [default: the run's]"),
    steps: int | None = typer.Option(None, min=1, max=1000, help="Solver steps. [default: the run's]"),
    eta: float | None = typer.Option(None, min=0, max=1, help="Noise put back while solving: 0 none, 1 full."),
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option(
        "png", help="png (16-bit gray or RGB), npy, nifti or dicom (both in the place and units of the scan)."
    ),
    batch_size: int = typer.Option(16, min=1, help="Images made at a time; changes the speed, not the images."),
    device: str = device_option,
) -> None:
    """Make images from label maps.

    Example: anatogen sample runs/liver --masks data/liver --free tumour --per-mask 4 --out samples
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.diffusion.solvers import SOLVERS
    from anatogen.errors import SettingsError, nearest
    from anatogen.evaluation.evaluate import check_same_anatomy
    from anatogen.generation.engine import Generator
    from anatogen.generation.request import requests_from_dataset, requests_from_folder
    from anatogen.generation.sample_set import write_sample_set
    from anatogen.runtime import Progress

    generator = Generator.load(run, device=device)
    if solver is not None and solver not in SOLVERS:
        raise SettingsError(f"there is no solver '{solver}'", remedy=nearest(solver, SOLVERS))
    settings = generator.with_settings(solver=solver, steps=steps, eta=eta)
    states = generator.schema.states(given=split_names(given), free=split_names(free))
    if (masks / "dataset.json").is_file():
        dataset = PreparedDataset.open(masks)
        check_same_anatomy(generator, dataset)
        requests = requests_from_dataset(
            dataset, dataset.split(split), states, seed=seed, per_mask=per_mask, count=count
        )
    else:
        requests = requests_from_folder(
            masks, generator.schema, generator.size, states, seed=seed, per_mask=per_mask, count=count
        )
    if not all(states.given) and not generator.about.get("mask_ablation", False):
        print("note: this run was trained without mask ablation: it has never seen a free class")
    with Progress("sampling", len(requests), "images") as bar:
        samples = write_sample_set(
            generator,
            requests,
            out,
            settings=settings,
            image_format=format,
            batch_size=batch_size,
            about=sampling_about(generator, run, {"given": states.given_names(generator.schema), "seed": seed}),
            progress=lambda done, total: bar.update(done),
        )
    print(f"{out}: {len(samples.entries)} images")
    print(f"Next: anatogen evaluate {out} --dataset {masks} --out REPORT")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sample)
