"""Averaging: a run with snapshots of power-function averages in, a run with an average of another length out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from anatogen.errors import SettingsError


@dataclass(frozen=True)
class AverageRequest:
    """What `anatogen average` is asked for.

    Attributes:
        length: The standard deviation of the average's profile, as a share of the training.
    """

    run: Path
    out: Path
    length: float


@dataclass(frozen=True)
class AverageResult:
    """The new run.

    Attributes:
        step: The last step that counts in the average.
        snapshots: Number of snapshots that it was made from.
        error: The L2 distance between the profile and that of the wanted length, relative to its norm.
    """

    run: Path
    step: int
    snapshots: int
    error: float


def average(request: AverageRequest) -> AverageResult:
    """Write the run with the average.

    Raises:
        SettingsError: `out` already exists, or the snapshots do not give the length.
        ModelError: The run holds no model or no snapshots, or they are damaged.
    """
    from anatogen.files import is_empty, locked, writing
    from anatogen.model import load_denoiser, save_denoiser
    from anatogen.training.snapshots import average_of

    run, out = request.run, request.out
    denoiser, about = load_denoiser(run)
    if not is_empty(out):
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")
    found = average_of(run, request.length)
    steps = about.steps or found.step
    changes = {
        "steps": found.step,
        "images": about.images and round(about.images * found.step / steps),
        "seconds": about.seconds and round(about.seconds * found.step / steps, 1),
        "average_length": request.length,
        "selected_step": None,
        "selected_dice": None,
    }
    with locked(out):
        if (run / "config.yaml").is_file():
            with writing(out / "config.yaml") as path:
                shutil.copyfile(run / "config.yaml", path)
        save_denoiser(out, denoiser.config, found.weights, about.model_copy(update=changes))
    return AverageResult(out, found.step, found.snapshots, found.error)
