"""anatogen train"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from anatogen.cli.common import device_option, guarded

if TYPE_CHECKING:
    from anatogen.workflows.plan_training import TrainingPlan


@guarded
def train(
    dataset: Path = typer.Argument(help="A prepared data set."),
    out: Path | None = typer.Option(None, help="New folder for the run."),
    model: str | None = typer.Option(
        None,
        help="denoiser (default), or a system to compare with: spade (Park et al. 2019), latent (latent diffusion with "
        "a control branch, from scratch), controlnet (Zhang et al. 2023, on Stable Diffusion), retrieval (the training "
        "image with the nearest label map), painting (each class drawn from its intensity and texture), stacked "
        "(volumes of the slices of another run: --from).",
    ),
    preset: str | None = typer.Option(None, help="fast (default), or paper (Konz et al. 2024, Appendix A)."),
    from_: Path | None = typer.Option(
        None,
        "--from",
        metavar="RUN",
        help="Start from another run's weights, with its settings; classes are matched by name. The run of slices for "
        "--model stacked.",
    ),
    mask_ablation: bool | None = typer.Option(
        None, "--mask-ablation/--no-mask-ablation", help="Train with classes left free (MAT) or on full maps (STD)."
    ),
    unconditional: bool = typer.Option(False, "--unconditional", help="Train without label maps."),
    steps: int | None = typer.Option(None, min=1, help="Optimizer steps."),
    epochs: float | None = typer.Option(None, help="Passes over the training images."),
    max_time: str | None = typer.Option(None, help="Wall-clock time, for instance 90s, 10m or 1h30m."),
    config: Path | None = typer.Option(None, help="YAML file of settings, as a run's config.yaml."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="One setting, for instance network.width=96."
    ),
    resume: bool = typer.Option(
        False,
        "--resume",
        help="Continue the unfinished run in --out with its own settings; start it if there is none. With a new length "
        "it also extends a finished run.",
    ),
    track: list[str] = typer.Option(
        [],
        "--track",
        metavar="wandb|mlflow",
        help="Also send numbers and previews to Weights & Biases or MLflow, or keep them in the run to be sent later.",
    ),
    plan: bool = typer.Option(
        False, "--plan", help="Write nothing: measure a few steps, and show what the training would be and take."
    ),
    device: str = device_option,
) -> None:
    """Train a model on the split "train". Ctrl-C stops training and saves the current model and a checkpoint.

    Training ends at the first of --steps, --epochs and --max-time that is reached. Without --steps or --epochs few
    images are seen 13 times at most, because more is learned by heart; the width of the network fits the data and the
    time, unless it is set. Checkpoints are written every five
    minutes (training.checkpoint_every); after an interruption add --resume to the same command. Previews of validation
    label maps, and their Dice in a longer training, are in training.html (settings live.previews and live.dice).

    Example: anatogen train data/hippocampus --out runs/hippocampus --max-time 10m

    Fine-tune it on other patients: anatogen train data/ours --out runs/ours --from runs/hippocampus --steps 2000

    Make a finished run longer: anatogen train data/ours --out runs/ours --resume --steps 40000

    How long it would take, and how much memory: anatogen train data/hippocampus --plan

    On four GPUs: torchrun --nproc-per-node 4 -m anatogen train data/hippocampus --out runs/hippocampus --max-time 10m
    """
    from anatogen.distributed import is_first_process
    from anatogen.errors import SettingsError
    from anatogen.progress import format_duration, parse_duration
    from anatogen.workflows.plan_training import plan_training
    from anatogen.workflows.train import TrainRequest, is_made_of_a_run, kind_of_training, settings_for
    from anatogen.workflows.train import train as run_workflow

    sections: dict[str, dict[str, Any]] = {"conditioning": {}, "training": {}}
    if mask_ablation is not None:
        sections["conditioning"]["mask_ablation"] = mask_ablation
    if unconditional:
        sections["conditioning"] |= {"encoding": "none", "mask_ablation": False}
    lengths = {"steps": steps, "epochs": epochs, "max_time_s": parse_duration(max_time) if max_time else None}
    sections["training"] = {name: value for name, value in lengths.items() if value is not None}
    if out is None and not plan:
        raise SettingsError("--out is missing", hint="Name a new folder for the run: --out runs/first")
    own = out / "config.yaml" if out is not None else None
    base = own if resume and own is not None and own.is_file() else None
    made_of = from_ if is_made_of_a_run(model) else None
    if from_ is not None and made_of is None and base is None:
        base = from_ / "config.yaml" if (from_ / "config.yaml").is_file() else None
        sections["training"]["start_from"] = str(from_)
    kind = kind_of_training(model, base)
    settings = settings_for(kind, preset, config=config, values=set_, base=base, sections=sections)

    if plan or out is None:
        _print_plan(plan_training(dataset, settings, model=kind, device=device))
        return
    _show_plans()
    result = run_workflow(TrainRequest(dataset, out, settings, device, resume, kind, tuple(track), made_of))
    if not is_first_process():
        return
    if result.steps:
        print(f"{out}: {result.steps} steps, {result.images} images in {format_duration(result.seconds)}")
    else:
        print(f"{out}: {kind} from {result.images} training images")
    if result.page is not None:
        print(f"Curves and previews: {result.page}")
    print(f"Next: anatogen sample {out} --masks {dataset} --out SAMPLES")


def _show_plans() -> None:
    """Show on standard error what is planned because the settings leave it open."""
    import logging
    import sys

    from anatogen.training.train import PLANS

    PLANS.handlers = [logging.StreamHandler(sys.stderr)]
    PLANS.setLevel(logging.INFO)
    PLANS.propagate = False


def _print_plan(plan: TrainingPlan) -> None:
    from anatogen.progress import format_duration

    size = " x ".join(map(str, plan.size))
    micro = f", {plan.micro_batch} at a time" if plan.micro_batch < plan.batch else ""
    memory = "not known" if plan.peak_mb is None else f"{plan.peak_mb:,.0f} MB at the peak"
    if plan.memory_mb is not None:
        memory += f" of {plan.memory_mb:,.0f} MB"
    elif plan.device == "cpu":
        memory += ", of the whole process"
    lines = [
        ("data", f"{plan.images:,} images of {size} from {plan.patients} patients, {plan.classes} classes"),
        (
            "network",
            f"{plan.network}: {plan.parameters / 1e6:.1f} M parameters, {plan.gflops:.2f} GFLOP a forward pass",
        ),
        ("batch", f"{plan.batch} images{micro}, {plan.precision} on {plan.device}"),
        ("length", f"{plan.steps:,} steps: {plan.images_seen:,} images seen, each {plan.epochs:,.0f} times"),
        ("time", f"{format_duration(plan.seconds)}: {plan.batch / plan.seconds_per_step:.1f} images/s, measured"),
        ("memory", memory),
        ("disk", f"{plan.checkpoint_mb:,.0f} MB a checkpoint"),
    ]
    lines += [("before it", f"the {name} is trained for {length} (not measured)") for name, length in plan.before]
    if plan.trains_segmenter:
        lines.append(("before it", "the auxiliary segmenter of the previews is trained (--set live.dice=never: not)"))
    lines += [("planned", choice) for choice in plan.choices]
    for name, text in lines:
        print(f"{name:10}{text}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(train)
