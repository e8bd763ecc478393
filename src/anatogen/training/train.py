"""Train a learned system on a prepared data set: from settings to a run on disk."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from anatogen.data.augment import Augment
from anatogen.data.loader import Loader
from anatogen.data.store import Batch, PreparedDataset
from anatogen.device import pick_device
from anatogen.distributed import current_group
from anatogen.errors import GroupError, Interrupted, SettingsError
from anatogen.files import is_empty, locked, writing
from anatogen.model import StartingPoint, read_about
from anatogen.settings import read_yaml
from anatogen.training.best import recall_best
from anatogen.training.checkpoints import checkpoint_files
from anatogen.training.config import (
    LearnedSettings,
    RunSettings,
    TrainingSettings,
    build_settings,
    build_settings_of,
    first_difference,
    training_of,
)
from anatogen.training.denoiser_task import DenoiserTask, require_denoiser
from anatogen.training.exporting import FREE_ON_RESUME, LENGTHS
from anatogen.training.fit import BEFORE_DECAY, ProgressCallback, fit
from anatogen.training.hooks import Hook
from anatogen.training.planning import Planned, adopting, planned, seconds_of_step
from anatogen.training.schedule import Length, may_change
from anatogen.training.snapshots import AVERAGES, snapshot_hook
from anatogen.training.space import check_space, kept_within
from anatogen.training.task import STAGES, StartsFromRun, System, Task

CLOCK: Callable[[], float] = time.monotonic
"""Seconds that only rise; tests and benchmarks put another in its place."""

OUR_DENOISER = System("denoiser", RunSettings, lambda data, how, device, _: DenoiserTask(data, how, device))

PLANS = logging.getLogger("anatogen.plans")
"""Says what was planned; the command line shows it."""

_log = logging.getLogger(__name__)
_START = "start.json"
_LIVE = ("previews", "training.html", "tensorboard", "best.json", "tracking.json", "wandb", "mlruns", "mlflow.db")
_OURS = (STAGES, BEFORE_DECAY, _START, "config.yaml", "metrics.jsonl", "checkpoints", AVERAGES, *_LIVE)


def train(
    dataset: PreparedDataset | str | Path,
    out: str | Path,
    settings: LearnedSettings | None = None,
    *,
    system: System = OUR_DENOISER,
    device: str = "auto",
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    progress: ProgressCallback | None = None,
) -> Path:
    """Train `system` on the split "train" of `dataset` and write the run to the folder `out`.

    Inside `distributed.joined()`, in each process that `torchrun` has started, they train it together.

    Args:
        dataset: A prepared data set or its folder.
        out: The folder of the run.
        settings: By default those of the system (of the denoiser, the preset `fast`); on a resume, those of the run.
        system: By default our denoiser.
        device: auto, cpu, cuda, cuda:1 or mps.
        resume: Continue the unfinished run in `out`; if there is none, start it. With another length in `settings`,
            also extend a finished run, from its checkpoint before the decay of the learning rate.
        hooks: Called at intervals; their names and state are in the checkpoints.
        progress: Called at the start and after each step as progress(completed share in [0, 1], text).

    Returns:
        `out`.

    Raises:
        SettingsError: The settings do not fit the data or the run to resume, or `out` already exists.
        OutputError: Another process is training into `out`, or `out` cannot be written.
        Interrupted: Ctrl-C or a signal stopped the training; a checkpoint and the current model are saved.
    """
    out = Path(out)
    group = current_group()
    settings = group.first(lambda: settings_of(out, settings, system=system, resume=resume))
    resume = resume and group.first((out / "config.yaml").is_file)
    dataset = dataset if isinstance(dataset, PreparedDataset) else PreparedDataset.open(dataset)

    # Build everything that can fail before writing anything.
    place = pick_device(group.device(device))
    if isinstance(settings, RunSettings) and not resume:
        settings, choices = (found := plan_for(dataset, settings, place)).settings, found.choices
        for choice in choices if group.is_first else ():
            PLANS.info("planned: %s", choice)
    how = training_of(settings)
    require_fitting(dataset, settings, system)
    task: Task[Batch] = system.task(dataset, settings, place, out)
    loader = Loader(
        dataset,
        dataset.split("train"),
        how.batch_size,
        how.seed,
        augment=Augment(settings.augment),
        pin=place.type == "cuda",
        crop=how.crop,
    )
    how = how.model_copy(update={"checkpoints_kept": kept_within(task.phases, how.checkpoints_kept, how.disk_gb)})
    if group.is_first:
        check_space(out, task.phases, how.checkpoints_kept)
    length = Length(how, loader.images, loader.batch_size)
    if resume:
        _require_longer(out, how, length)
    if how.start_from is not None and not resume:
        if not isinstance(task, StartsFromRun):
            raise SettingsError(f"--from is not applicable to the model {system.name}", hint="Leave it out")
        new = task.start_from(Path(how.start_from))
        if new:
            _log.warning(
                "%s does not have the classes %s: they are learned from the start", how.start_from, ", ".join(new)
            )
    elif resume and (out / _START).is_file() and isinstance(task, StartsFromRun):
        task.started_from = StartingPoint.read(out / _START)
    with ExitStack() as stack:
        start = task.started_from if isinstance(task, StartsFromRun) else None
        group.first(lambda: stack.enter_context(_begun(out, settings, start, resume=resume)))
        try:
            averages = [phase.power_averages for phase in task.phases if phase.power_averages is not None]
            hooks = [*hooks, *(snapshot_hook(each, out) for each in averages[:1])]
            fit(task, loader, how, out, hooks=hooks, resume=resume, progress=progress, clock=CLOCK)
        except (Interrupted, GroupError) as stopped:
            hint = _how_to_resume(dataset, out) if _checkpoints(out) else stopped.hint
            again = type(stopped)(stopped.problem, path=out, hint=hint)
            again.told = stopped.told
            raise again from stopped
    return out


def plan_for(dataset: PreparedDataset, settings: RunSettings, device: torch.device) -> Planned:
    """The defaults for `dataset`, where `settings` leave them open; a time limit needs a few measured steps."""

    def measure(trial: RunSettings) -> float:
        return seconds_of_step(dataset, trial, DenoiserTask(dataset, trial, device))[0]

    return planned(dataset, settings, measure)


@contextmanager
def _begun(out: Path, settings: LearnedSettings, start: StartingPoint | None, *, resume: bool) -> Iterator[None]:
    """The folder of a run, locked, with what describes the training, while the block trains."""
    with locked(out, hint="Another training is running there: wait for it to finish, or choose another folder"):
        if not resume:
            _require_free(out)  # again: another process may have written it since
        with _removed_if_nothing_was_saved(out):
            if resume and not _checkpoints(out):
                _go_on_before_decay(out)
            if resume and settings.live.chooses:
                recall_best(out)
            write_config(out, settings)
            if start is not None:
                start.write(out / _START)
            yield


def require_fitting(dataset: PreparedDataset, settings: LearnedSettings, system: System) -> None:
    """Raises SettingsError for settings that do not fit system or data, so far as that is quickly known: before a
    segmenter is trained for the previews, or a network is built.
    """
    if isinstance(settings, RunSettings):
        require_denoiser(dataset, settings)
    if system is not OUR_DENOISER:
        _refuse_what_is_ours(settings, system)


def _refuse_what_is_ours(settings: LearnedSettings, system: System) -> None:
    """Raises SettingsError for settings that only our denoiser has a use for."""
    how, conditioning = training_of(settings), settings.conditioning
    wanted = {f"training.{name}": getattr(how, name) for name in ("crop", "activation_checkpointing", "compile")}
    wanted |= {f"conditioning.{name}": getattr(conditioning, name) for name in ("attributes", "regional_share")}
    for name, value in wanted.items():
        if value:
            raise SettingsError(f"{name} is not applicable to the model {system.name}", hint="Leave it out")


def settings_of(
    out: Path, asked: LearnedSettings | None, *, system: System = OUR_DENOISER, resume: bool
) -> LearnedSettings:
    """The settings of a training into `out`: `asked`, or on a resume those of the run, otherwise the defaults.

    Raises:
        SettingsError: `out` already exists, or there is nothing to resume, or the run was started with other settings
            or of another system.
    """
    if resume and (out / "config.yaml").is_file():
        if (own := kind_of_run(out)) != system.name:
            raise SettingsError(f"is a run of the model {own}", path=out, hint=f"Resume it with --model {own}")
        return _settings_to_resume(out, asked, system)
    _require_free(out)
    return asked if asked is not None else default_settings(system)


def write_config(out: Path, settings: LearnedSettings) -> None:
    """Write config.yaml of the run `out`."""
    with writing(out / "config.yaml") as path:
        path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def default_settings(system: System, base: Path | None = None) -> LearnedSettings:
    """The defaults of `system`, or the settings in `base`, the config.yaml of a run."""
    found: Any = build_settings(base=base) if system.settings is RunSettings else None
    return found or build_settings_of(system.settings, base=base)  # type: ignore[return-value]


def kind_of_run(out: Path) -> str:
    """The kind of model of the run `out`, by its config.yaml; "denoiser" where it names none."""
    return str(read_yaml(out / "config.yaml").get("model", OUR_DENOISER.name))


def _checkpoints(out: Path) -> list[Path]:
    return checkpoint_files(out / "checkpoints")


def _require_free(out: Path) -> None:
    """Raise SettingsError where `out` holds more than what a training without checkpoints leaves."""
    if is_empty(out):
        return
    if _checkpoints(out):
        last = int(_checkpoints(out)[-1].stem)
        raise SettingsError(
            f"holds an unfinished run (step {last})",
            path=out,
            hint=f"{_how_to_resume(None, out)}, or choose another folder",
        )
    foreign = not out.is_dir() or any(
        f.name not in _OURS and not f.name.startswith((".", "best-")) for f in out.iterdir()
    )
    if foreign or not (out / "config.yaml").is_file():
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")


def _how_to_resume(dataset: PreparedDataset | None, out: Path) -> str:
    return f"Resume it with: anatogen train {dataset.folder if dataset else 'DATASET'} --out {out} --resume"


def _settings_to_resume(out: Path, asked: LearnedSettings | None, system: System) -> LearnedSettings:
    """The settings of the run `out`, or `asked` where they differ in nothing that affects the weights."""
    own = default_settings(system, out / "config.yaml")
    if isinstance(asked, RunSettings) and isinstance(own, RunSettings):
        asked = adopting(asked, own)
    if not _checkpoints(out):
        if not (out / "model.json").is_file():
            return asked or own  # stopped before its first checkpoint: start anew
        about = read_about(out)
        if not about.finished:
            raise SettingsError("holds a model but no checkpoint", path=out, hint="Train into another folder")
        if asked is None or not _another_length(own, asked):
            hint = "To extend it, give a longer length, for instance --steps " + str(2 * (about.steps or 1000))
            raise SettingsError(f"is finished, after {about.steps} steps", path=out, hint=hint)
        if not checkpoint_files(out / BEFORE_DECAY):
            hint = f"Start a new run from its model: --from {out}"
            raise SettingsError(
                "has no checkpoint from before its decay, so it cannot be extended", path=out, hint=hint
            )
    if asked is None:
        return own
    if (name := first_difference(own, asked, but=FREE_ON_RESUME)) is not None:
        hint = "Leave it out to resume, or train into another folder"
        raise SettingsError(f"was started with a different {name}", path=out, hint=hint)
    return asked


def _another_length(own: LearnedSettings, asked: LearnedSettings) -> bool:
    names = [name.removeprefix("training.") for name in LENGTHS]
    return any(getattr(own.training, name) != getattr(asked.training, name) for name in names)


def _require_longer(out: Path, how: TrainingSettings, length: Length) -> None:
    """Raise SettingsError where a finished run in `out` would be extended to a length that it has already."""
    files = checkpoint_files(out / BEFORE_DECAY)
    if _checkpoints(out) or not files:
        return
    about, step = read_about(out), int(files[-1].stem)
    short = length.end is not None and (length.end <= step or not may_change(how, length, step))
    if short or (length.seconds is not None and length.seconds <= (about.seconds or 0)):
        raise SettingsError(
            f"is finished after {about.steps} steps, and the new length is no longer than that",
            path=out,
            hint=f"Give a longer one, for instance --steps {2 * (about.steps or 1000)}",
        )


def _go_on_before_decay(out: Path) -> None:
    """Make the checkpoint from before the decay the last one of the run, which is unfinished then."""
    for file in checkpoint_files(out / BEFORE_DECAY):
        for name in (file.with_suffix(".safetensors").name, file.name):  # JSON last, as when it was written
            with writing(out / "checkpoints" / name) as path:
                shutil.copyfile(out / BEFORE_DECAY / name, path)


@contextmanager
def _removed_if_nothing_was_saved(out: Path) -> Iterator[None]:
    """Remove what a failed training wrote to `out` before it saved anything, so that it does not block the next try."""
    try:
        yield
    except BaseException:
        if not _checkpoints(out) and not (out / "model.json").is_file() and not (out / STAGES).is_dir():
            for name in ("config.yaml", "metrics.jsonl", _START):
                with suppress(OSError):
                    (out / name).unlink(missing_ok=True)
            for name in ("tensorboard", AVERAGES):
                shutil.rmtree(out / name, ignore_errors=True)
            with suppress(OSError):
                (out / "checkpoints").rmdir()
        raise
