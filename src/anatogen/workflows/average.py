"""Another average of a run's weights: a run with snapshots in, a run out."""

from __future__ import annotations

import shutil
from pathlib import Path

from anatogen.errors import SettingsError


def average(run: Path, out: Path, length: float) -> Path:
    """Write to `out` the run whose weights are the average of relative `length` over the training of `run`.

    Raises:
        ModelError: `run` is no run, or holds no snapshots of averages.
        SettingsError: `out` already exists, or the length is not in (0, 0.28).
    """
    from anatogen.files import is_empty, locked
    from anatogen.model import load_denoiser, save_denoiser
    from anatogen.training.averages import averaged

    if not 0 < length < 0.28:
        raise SettingsError(f"--length must be in (0, 0.28), got {length:g}", hint="Choose for instance 0.07")
    if not is_empty(out):
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")
    denoiser, about = load_denoiser(run)
    weights = averaged(run, length)
    with locked(out):
        about = about.model_copy(update={"average_length": length, "selected_step": None, "selected_dice": None})
        save_denoiser(out, denoiser.config, weights, about)
        if (run / "config.yaml").is_file():
            shutil.copy(run / "config.yaml", out)
    return out
