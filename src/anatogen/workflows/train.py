"""Training: a prepared data set in, a run out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.errors import SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.distributed import Group
    from anatogen.training.config import RunSettings


@dataclass(frozen=True)
class TrainRequest:
    """What `anatogen train` is asked for.

    Attributes:
        settings: None for the run's own on a resume, for the defaults elsewhere.
        resume: Continue the unfinished run in `out`.
        model: The kind of model: "denoiser", or "retrieval", which learns nothing.
        track: Trackers that get the numbers and previews: "wandb", "mlflow".
    """

    dataset: Path
    out: Path
    settings: RunSettings | None
    device: str = "auto"
    resume: bool = False
    model: str = "denoiser"
    track: tuple[str, ...] = ()


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
    """Train the model of `request`; together, if `torchrun` has started several processes.

    Raises SettingsError, DataError, OutputError, or Interrupted after saving the model so far.
    """
    from anatogen.baselines.retrieval import RETRIEVAL
    from anatogen.data.store import PreparedDataset
    from anatogen.distributed import joined
    from anatogen.generation.kinds import require_kind

    require_kind(request.model)
    dataset = PreparedDataset.open(request.dataset)
    with joined() as group, watched_by(monitor):
        warning = group.first(lambda: _leak(dataset, request))
        if request.model == RETRIEVAL:
            return group.first(lambda: _made_retrieval(dataset, request, warning))
        page = _trained(dataset, request, group)
        return group.first(lambda: _result(request, warning, page))


def _leak(dataset: PreparedDataset, request: TrainRequest) -> str:
    """What the names of cases say of patients in two splits; also logged."""
    from anatogen.check.patients import leak_in

    warning = leak_in(dataset)
    if warning:
        warning = f"{request.dataset}: {warning}. Prepare the data again: cases of one patient stay in one split now"
        logging.getLogger(__name__).warning(warning)
    return warning


def _trained(dataset: PreparedDataset, request: TrainRequest, group: Group) -> Path | None:
    """Train the run; returns training.html, in the first process, where previews were written."""
    from anatogen.training.train import settings_of
    from anatogen.training.train import train as run
    from anatogen.workflows.live import Live, live_for
    from anatogen.workflows.tracking import Tracking

    begun = False

    def moved(share: float, text: str) -> None:
        nonlocal begun
        if not begun:
            bar.begin_at(share)  # what an earlier process did says nothing about the time that is left
            begun = True
        bar.update(share, text or None)

    live: Live | None = None
    tracking: Tracking | None = None

    def prepared() -> RunSettings:
        # The first process trains the segmenter of the previews before the others begin.
        nonlocal live, tracking
        settings = settings_of(request.out, request.settings, resume=request.resume)
        tracking = Tracking(request.out, settings, request.track) if request.track else None
        live = live_for(dataset, request.out, settings, device=group.device(request.device))
        return settings

    settings = group.first(prepared)
    hooks = [part.hook() for part in (live, tracking) if part is not None]
    finished, page = False, None
    try:
        with stage("training", 1.0, "s") as bar:
            run(
                dataset,
                request.out,
                settings,
                device=request.device,
                resume=request.resume,
                hooks=hooks,
                progress=moved,
            )
        page = live.last() if live is not None else None
        finished = True
    finally:
        if tracking is not None:
            tracking.close(finished=finished)
    return page


def _result(request: TrainRequest, warning: str, page: Path | None) -> TrainResult:
    from anatogen.model import read_about

    about = read_about(request.out)
    return TrainResult(request.out, about.steps or 0, about.images or 0, about.seconds or 0.0, warning, page)


def _made_retrieval(dataset: PreparedDataset, request: TrainRequest, warning: str) -> TrainResult:
    """Nearest-map retrieval, for which nothing is trained. Raises SettingsError for settings of a training."""
    from anatogen.baselines.retrieval import make_retrieval
    from anatogen.files import is_empty, locked
    from anatogen.training.config import RunSettings

    if request.resume or request.settings not in (None, RunSettings()):
        raise SettingsError(
            "retrieval is not trained, so it takes no training settings",
            hint="Leave out --resume, --preset, --config, --set and lengths",
        )
    if not is_empty(request.out):
        raise SettingsError("already exists", path=request.out, hint="Choose another folder or remove it")
    with locked(request.out):
        about = make_retrieval(dataset, request.out)
    return TrainResult(request.out, 0, about.images or 0, 0.0, warning)
