"""Training: a prepared data set in, a run out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatogen.errors import Interrupted, SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.distributed import Group
    from anatogen.generation.kinds import Kind
    from anatogen.training.config import LearnedSettings
    from anatogen.training.task import Stage, System


@dataclass(frozen=True)
class TrainRequest:
    """What `anatogen train` is asked for.

    Attributes:
        settings: None for the run's own on a resume, for the defaults elsewhere.
        resume: Continue the unfinished run in `out`.
        model: The kind of model: "denoiser", "spade", "latent", "controlnet", or "retrieval", "painting" and
            "stacked", which learn nothing.
        made_of: The run of slices, for "stacked".
        track: Trackers that get the numbers and previews: "wandb", "mlflow".
    """

    dataset: Path
    out: Path
    settings: LearnedSettings | None
    device: str = "auto"
    resume: bool = False
    model: str = "denoiser"
    track: tuple[str, ...] = ()
    made_of: Path | None = None


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
    from anatogen.data.store import PreparedDataset
    from anatogen.distributed import joined
    from anatogen.generation.kinds import kind_of

    kind = kind_of(request.model)
    dataset = PreparedDataset.open(request.dataset)
    with joined() as group, watched_by(monitor):
        warning = group.first(lambda: _leak(dataset, request))
        if kind.system is None:
            return group.first(lambda: _made(dataset, request, kind, warning))
        for stage_before in kind.system.before:
            _trained_before(dataset, request, kind.system, stage_before, group)
        page = _trained(dataset, request, kind.system, group)
        return group.first(lambda: _result(request, warning, page))


def is_made_of_a_run(name: str | None) -> bool:
    """Whether the model `name` is made of another run, so that --from is that run and no start of a training.

    Raises SettingsError where there is no such kind.
    """
    from anatogen.generation.kinds import kind_of

    return name is not None and kind_of(name).make_from is not None


def kind_of_training(name: str | None, base: Path | None) -> str:
    """The kind of model that is trained: `name`, otherwise that of the run whose config.yaml is `base`.

    Raises SettingsError where there is no such kind, or where the run is of another.
    """
    from anatogen.generation.kinds import kind_of
    from anatogen.model import DENOISER
    from anatogen.training.train import kind_of_run

    own = kind_of_run(base.parent) if base is not None else None
    found = name or own or DENOISER
    kind_of(found)
    if base is not None and found != own:
        raise SettingsError(f"is a run of the model {own}", path=base.parent, hint=f"Use --model {own}")
    return found


def settings_for(
    kind: str,
    preset: str | None = None,
    *,
    config: Path | None = None,
    values: Sequence[str] = (),
    base: Path | None = None,
    sections: dict[str, dict[str, Any]] | None = None,
) -> LearnedSettings | None:
    """The settings of a training of `kind`, as `build_settings` has them; None for a kind that learns nothing.

    Raises SettingsError for an unknown key or a value out of range, and for settings of a kind that has none.
    """
    from anatogen.generation.kinds import kind_of
    from anatogen.training.config import build_settings, build_settings_of
    from anatogen.training.train import OUR_DENOISER

    system, given = kind_of(kind).system, {name: each for name, each in (sections or {}).items() if each}
    if system is OUR_DENOISER:
        return build_settings(preset, config=config, values=values, base=base, **given)  # type: ignore[arg-type]
    if preset is not None:
        raise SettingsError(f"the model {kind} has no presets", hint="Leave out --preset")
    if system is None:
        if given or values or config is not None:
            raise _not_trained(kind)
        return None
    return build_settings_of(system.settings, config=config, values=values, base=base, **given)  # type: ignore[return-value]


def _leak(dataset: PreparedDataset, request: TrainRequest) -> str:
    """What the names of cases say of patients in two splits; also logged."""
    from anatogen.check.patients import leak_in

    warning = leak_in(dataset)
    if warning:
        warning = f"{request.dataset}: {warning}. Prepare the data again: cases of one patient stay in one split now"
        logging.getLogger(__name__).warning(warning)
    return warning


def _trained_before(
    dataset: PreparedDataset, request: TrainRequest, whole: System, before: Stage, group: Group
) -> None:
    """Train a stage that `whole` builds on, in a folder of its run; one that is finished stays as it is.

    Raises SettingsError where another training has left it, or with other settings.
    """
    from anatogen.model import read_about
    from anatogen.training.config import first_difference
    from anatogen.training.exporting import FREE_ON_RESUME
    from anatogen.training.task import stage_folder
    from anatogen.training.train import default_settings, settings_of, write_config
    from anatogen.training.train import train as run

    folder = stage_folder(request.out, before.name)

    def prepared() -> LearnedSettings | None:
        settings = settings_of(request.out, request.settings, system=whole, resume=request.resume)
        own: LearnedSettings = before.settings(settings)
        if folder.is_dir() and not request.resume:
            hint = "Add --resume to go on, or choose another folder"
            raise SettingsError(f"holds a training of its {before.name}", path=request.out, hint=hint)
        if (folder / "model.json").is_file() and read_about(folder).finished:
            known = default_settings(before.system, folder / "config.yaml")
            if (name := first_difference(known, own, but=FREE_ON_RESUME)) is not None:
                problem = f"its {before.name} was trained with a different {name}"
                raise SettingsError(problem, path=request.out, hint="Train into another folder")
            return None
        write_config(request.out, settings)
        return own

    settings = group.first(prepared)
    if settings is None:
        return
    bar_begun = False

    def moved(share: float, text: str) -> None:
        nonlocal bar_begun
        if not bar_begun:
            bar.begin_at(share)
            bar_begun = True
        bar.update(share, text or None)

    try:
        with stage(f"training the {before.name}", 1.0, "s") as bar:
            run(
                dataset,
                folder,
                settings,
                system=before.system,
                device=request.device,
                resume=request.resume,
                progress=moved,
            )
    except Interrupted as stopped:
        hint = f"Resume it with: anatogen train {dataset.folder} --out {request.out} --resume"
        again = Interrupted(f"{stopped.problem} (the {before.name}, the first part)", path=request.out, hint=hint)
        again.told = stopped.told
        raise again from stopped


def _trained(dataset: PreparedDataset, request: TrainRequest, system: System, group: Group) -> Path | None:
    """Train the run; returns training.html, in the first process, where previews were written."""
    from anatogen.training.train import require_fitting, settings_of
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

    def prepared() -> LearnedSettings:
        # The first process trains the segmenter of the previews before the others begin.
        nonlocal live, tracking
        settings = settings_of(request.out, request.settings, system=system, resume=request.resume)
        require_fitting(dataset, settings, system)
        tracking = Tracking(request.out, settings, request.track) if request.track else None
        live = live_for(dataset, request.out, settings, kind=system.name, device=group.device(request.device))
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
                system=system,
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


def _made(dataset: PreparedDataset, request: TrainRequest, kind: Kind, warning: str) -> TrainResult:
    """A model for which nothing is trained. Raises SettingsError for settings of a training."""
    from anatogen.files import is_empty, locked

    if request.resume or request.settings is not None:
        raise _not_trained(request.model)
    if not is_empty(request.out):
        raise SettingsError("already exists", path=request.out, hint="Choose another folder or remove it")
    with locked(request.out):
        if kind.make_from is not None:
            about = kind.make_from(dataset, request.out, request.made_of)
        else:
            assert kind.make is not None
            about = kind.make(dataset, request.out)
    return TrainResult(request.out, 0, about.images or 0, 0.0, warning)


def _not_trained(kind: str) -> SettingsError:
    return SettingsError(
        f"{kind} is not trained, so it takes no training settings",
        hint="Leave out --resume, --preset, --config, --set and lengths",
    )
