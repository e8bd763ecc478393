"""Training: a prepared data set in, a run out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatogen import __version__
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.training.config import RunSettings


@dataclass(frozen=True)
class TrainRequest:
    """What `anatogen train` is asked for."""

    dataset: Path
    out: Path
    settings: RunSettings
    device: str = "auto"


@dataclass(frozen=True)
class TrainResult:
    """The run's folder, and how long it was trained. warning: what the names of cases say of patients in two splits."""

    run: Path
    steps: int
    images: int
    seconds: float
    warning: str = ""


def train(request: TrainRequest, *, monitor: Monitor | None = None) -> TrainResult:
    """Train the model of `request`. Raises SettingsError, DataError, OutputError, or Interrupted after saving the model so far."""
    from anatogen.check.patients import leak_in
    from anatogen.data.store import PreparedDataset
    from anatogen.model import load_denoiser
    from anatogen.training.loop import train as run

    dataset = PreparedDataset.open(request.dataset)
    warning = leak_in(dataset)
    if warning:
        warning = f"{request.dataset}: {warning}. Prepare the data again: cases of one patient stay in one split now"
        logging.getLogger(__name__).warning(warning)
    with watched_by(monitor), stage("training", 1.0, "s") as bar:
        run(
            dataset,
            request.out,
            request.settings,
            device=request.device,
            version=__version__,
            progress=lambda share, text: bar.update(share, text or None),
        )
    about: dict[str, Any] = load_denoiser(request.out)[1]
    return TrainResult(request.out, about["steps"], about["images"], about["seconds"], warning)
