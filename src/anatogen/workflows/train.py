"""Training: a prepared data set in, a run out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.training.config import RunSettings


@dataclass(frozen=True)
class TrainRequest:
    """What `anatogen train` is asked for.

    settings: None for the run's own on a resume, for the defaults elsewhere. resume: go on with the unfinished run in `out`.
    """

    dataset: Path
    out: Path
    settings: RunSettings | None
    device: str = "auto"
    resume: bool = False


@dataclass(frozen=True)
class TrainResult:
    """The run's folder, and how long it was trained.

    Attributes:
        warning: What the names of cases say of patients in two splits.
        page: training.html, where previews were written.
    """

    run: Path
    steps: int
    images: int
    seconds: float
    warning: str = ""
    page: Path | None = None


def train(request: TrainRequest, *, monitor: Monitor | None = None) -> TrainResult:
    """Train the model of `request`. Raises SettingsError, DataError, OutputError, or Interrupted after saving the model so far."""
    from anatogen.check.patients import leak_in
    from anatogen.data.store import PreparedDataset
    from anatogen.model import read_about
    from anatogen.training.config import RunSettings
    from anatogen.training.train import train as run
    from anatogen.workflows.live import live_for

    dataset = PreparedDataset.open(request.dataset)
    warning = leak_in(dataset)
    if warning:
        warning = f"{request.dataset}: {warning}. Prepare the data again: cases of one patient stay in one split now"
        logging.getLogger(__name__).warning(warning)
    begun = False

    def moved(share: float, text: str) -> None:
        nonlocal begun
        if not begun:
            bar.begin_at(share)  # what an earlier process did says nothing about the time that is left
            begun = True
        bar.update(share, text or None)

    with watched_by(monitor):
        settings = request.settings or RunSettings()
        live = live_for(dataset, request.out, settings, device=request.device)
        with stage("training", 1.0, "s") as bar:
            run(
                dataset,
                request.out,
                request.settings,
                device=request.device,
                resume=request.resume,
                hooks=[live.hook()] if live is not None else [],
                progress=moved,
            )
        page = live.last() if live is not None else None
    about = read_about(request.out)
    return TrainResult(request.out, about.steps or 0, about.images or 0, about.seconds or 0.0, warning, page)
