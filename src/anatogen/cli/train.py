"""anatogen train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from anatogen.cli.common import device_option, guarded


@guarded
def train(
    dataset: Path = typer.Argument(help="A prepared data set."),
    out: Path = typer.Option(..., help="New folder for the run."),
    preset: str = typer.Option("fast", help="fast, or paper (Konz et al. 2024, Appendix A)."),
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
    device: str = device_option,
) -> None:
    """Train a model on the split "train". Ctrl-C stops it and keeps what it has learnt.

    Example: anatogen train data/hippocampus --out runs/hippocampus --max-time 10m
    """
    import signal

    from anatogen.progress import format_duration, parse_duration
    from anatogen.training.config import build_settings
    from anatogen.workflows.train import TrainRequest
    from anatogen.workflows.train import train as run_workflow

    sections: dict[str, dict[str, Any]] = {"conditioning": {}, "training": {}}
    if mask_ablation is not None:
        sections["conditioning"]["mask_ablation"] = mask_ablation
    if unconditional:
        sections["conditioning"] |= {"encoding": "none", "mask_ablation": False}
    if steps is not None or epochs is not None or max_time is not None:
        seconds = None if max_time is None else parse_duration(max_time)
        sections["training"] = {"steps": steps, "epochs": epochs, "max_time_s": seconds}
    settings = build_settings(preset, config=config, values=set_, **sections)  # type: ignore[arg-type]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # a scheduler's way to say Ctrl-C
    result = run_workflow(TrainRequest(dataset, out, settings, device))
    print(f"{out}: {result.steps} steps, {result.images} images in {format_duration(result.seconds)}")
    print(f"Next: anatogen sample {out} --masks {dataset} --out SAMPLES")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(train)
