"""The training loop shared by all tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anatogen.device import autocast
from anatogen.distributed import Group, current_group
from anatogen.errors import DataError, Interrupted, OutputError, SettingsError
from anatogen.seeds import Draws, derive_seed, evenly_spread
from anatogen.training.checkpoints import Checkpoints, Part
from anatogen.training.config import TrainingSettings
from anatogen.training.events import Events
from anatogen.training.hooks import Hook, Moment
from anatogen.training.interrupt import stop_signals
from anatogen.training.monitor import MetricsLog, SkippedSteps, Suspects
from anatogen.training.pace import Pace
from anatogen.training.probe import micro_batch_of
from anatogen.training.schedule import Length, begins_decay, decay_from, may_change, rate_factor
from anatogen.training.state import OptimizerState, TrainingState
from anatogen.training.task import B, Batches, Task

_log = logging.getLogger(__name__)
_LOOK_EVERY = 10  # steps between two reads of the skipped steps from the device
_MOST_ATTEMPTS = 4

BEFORE_DECAY = "before_decay"  # the folder of the checkpoint from which a finished run can be extended

ProgressCallback = Callable[[float, str], None]


def fit(
    task: Task[B],
    data: Batches[B],
    settings: TrainingSettings,
    out: Path,
    *,
    hooks: Sequence[Hook] = (),
    resume: bool = False,
    progress: ProgressCallback | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainingState:
    """Train `task` on `data`; writes checkpoints/, metrics.jsonl and finally the model to the folder `out`.

    A checkpoint from before the decay of the learning rate stays in before_decay/: with it a resume can have another
    length, also of a finished training.

    All random numbers derive from (seed, attempt, step, position in the batch, phase). So the micro-batch size affects
    rounding only, and a resumed training is bit-identical to an uninterrupted one (with steps or epochs as its length,
    on the CPU).

    In a group (`distributed.joined`) every process computes its share of each batch, and the gradients are summed: the
    same training, but for rounding. The first process writes the files, calls the hooks and shows the progress.

    Args:
        task: What is trained.
        data: Where batches come from.
        settings: Length and optimisation.
        out: The folder of the run.
        hooks: Called at intervals; see `Hook`.
        resume: Continue from the last intact checkpoint in `out`, if there is one.
        progress: Called at the start and after each step as progress(completed share in [0, 1], text).
        clock: Monotonic seconds.

    Returns:
        The final state.

    Raises:
        Interrupted: Ctrl-C or a signal stopped the training; a checkpoint and the current model are saved.
        DataError: The loss stays non-finite after returning to a checkpoint with other random numbers and half the
            learning rate.
        GroupError: Another process of the group has ended.
        SettingsError: The device is out of memory, or a checkpoint belongs to other settings.
    """
    group = current_group()
    _require_same(task, group)
    state = TrainingState()
    length = Length(settings, data.images, data.batch_size)
    checkpoints = Checkpoints(
        out / "checkpoints",
        parts_of(task, hooks) | {"training": state, "length": length},
        recipe=task.recipe,
        keep=settings.checkpoints_kept,
    )
    before_decay = checkpoints.beside(out / BEFORE_DECAY)
    if resume and (step := restored(checkpoints, before_decay, settings, length)) is not None:
        _log.info("%s: resumes after step %d", out, step)
    events = Events(out / "tensorboard", after=state.step) if group.is_first else None
    log = MetricsLog(out / "metrics.jsonl" if group.is_first else None, after=state.step, events=events)
    skipped = SkippedSteps(state)
    pace = Pace(settings, state, clock)
    stream = data.stream(state.step, state.attempt, group.shard)
    mine = group.shard.of(data.batch_size)
    micro = micro_batch_of(task, data, settings)
    whole = True  # no step is half done
    with stop_signals() as asked:
        try:
            if progress is not None and group.is_first:
                progress(length.shown(state.step, state.seconds), "")
            while (share := length.share(state.step)) < 1 and not state.finished:
                if begins_decay(settings, length, state.step):
                    _save(before_decay, state.step)
                batch = next(stream)
                factor = state.rate_scale * rate_factor(settings, state.step, share)
                measures: dict[str, Tensor] = {}
                noted: list[Suspects] = []
                bad: list[Tensor] = []
                for phase in task.phases:
                    for options in phase.optimizer.param_groups:
                        options["lr"] = phase.learning_rate * factor
                    phase.optimizer.zero_grad(set_to_none=True)
                    for first in range(0, len(batch), micro):
                        part = batch.part(first, first + micro)
                        weight = len(part) / data.batch_size
                        places = mine[first : first + len(part)]
                        random = draws_of(settings.seed, state, phase.name, places, data.batch_size, task.device)
                        with autocast(task.device, settings.precision):
                            loss, measured = task.loss(phase, part, random)
                        (loss * weight).backward()  # type: ignore[no-untyped-call]
                        noted.append((measured.get("loss"), partial(task.names, part)))
                        for name, value in measured.items():
                            mean = value.detach().mean() * weight
                            measures[name] = measures[name] + mean if name in measures else mean
                    group.sum_gradients(list(phase.module.parameters()))
                    norm = torch.nn.utils.clip_grad_norm_(phase.module.parameters(), settings.gradient_norm)
                    whole = False
                    bad.append(step_where_finite(phase.optimizer, norm))
                    for average in (phase.average, phase.power_averages):
                        if average is not None:
                            average.update(phase.module)
                skipped.note(state.step, torch.stack(bad).amax(), noted)
                state.step += 1
                state.images += data.batch_size
                state.seconds = pace.seconds()
                whole = True

                now = {
                    "step": state.step,
                    "share": round(length.shown(state.step, state.seconds), 6),
                    "seconds": round(state.seconds, 1),
                    "learning_rate": task.phases[0].learning_rate * factor,
                }
                log.add(now, measures, data.batch_size)
                if state.step % _LOOK_EVERY == 0 and skipped.look() >= settings.most_skipped:
                    _go_back(checkpoints, state, skipped)
                    stream = _another(stream, data, state)
                    pace.go_back()
                    continue
                finish = False
                for hook in hooks if group.is_first else ():
                    if state.step % hook.every == 0:
                        finish = _run(hook, task, state, length.share(state.step), log) or finish
                own = Agreement(bool(asked), finish, log.due, pace.due(length))
                said = _agree(group, state, pace, own)
                if said.finish:
                    length.finish(state.step, decay_from(settings) or 1.0)
                text = log.flush() if said.log else ""
                if said.save:
                    skipped.look()
                    length.plan(state.step, state.seconds, said.seconds_per_step)
                    _save(checkpoints, state.step)
                    pace.saved(length)
                if progress is not None and group.is_first:
                    progress(length.shown(state.step, state.seconds), text)
                if said.asked or (asked and group.size == 1):
                    raise KeyboardInterrupt
            skipped.look()
            log.flush()
            for hook in hooks if group.is_first else ():
                if hook.last:
                    _run(hook, task, state, 1.0, log)
            if decay_from(settings) is None:  # such a training can be extended from its end
                _save(before_decay, state.step)
            state.finished = True
            group.first(lambda: task.export(out, state))
            if group.is_first:
                checkpoints.clear()
            return state
        except (KeyboardInterrupt, Interrupted) as stopped:  # the latter: cancelled by a monitor
            raise _interrupted(task, checkpoints, state, out, whole=whole) from stopped
        except torch.OutOfMemoryError as error:
            if whole and state.step:
                _save(checkpoints, state.step)
            raise _out_of_memory(micro, out) from error
        except Exception:  # for instance missing data or a failed hook: keep the progress
            if whole and state.step:
                _save(checkpoints, state.step)
            raise
        finally:
            stream.close()


def draws_of(
    seed: int, state: TrainingState, phase: str, places: Sequence[int], batch_size: int, device: torch.device
) -> Draws:
    """The random numbers of the items at `places` of the batch of this step."""
    shift = derive_seed(seed, state.attempt, phase, "even")
    return Draws(
        [derive_seed(seed, state.attempt, state.step, place, phase) for place in places],
        device,
        even=[evenly_spread(state.step * batch_size + place, shift) for place in places],
    )


@dataclass(frozen=True)
class Agreement:
    """What the processes of a group do after a step."""

    asked: bool
    finish: bool
    log: bool
    save: bool
    seconds_per_step: float = 0.0


def _agree(group: Group, state: TrainingState, pace: Pace, own: Agreement) -> Agreement:
    """Stop where any process was `asked` to; for all else the first process decides, with its clock and its hooks.

    Args:
        group: The processes.
        state: Its `finished` and `seconds` become those of the first process.
        pace: Of this process.
        own: What this process would do.
    """
    first = (own.finish, own.log, own.save, state.finished, state.seconds, pace.seconds_per_step())
    said = group.totals([float(own.asked), *(float(value) * group.is_first for value in first)])
    asked, finish, log, save, finished = (flag > 0 for flag in said[:5])
    state.finished, state.seconds = finished, said[5]
    return Agreement(asked, finish, log, save, said[6])


def _require_same(task: Task[Any], group: Group) -> None:
    """Raise SettingsError where the processes of a group have other settings or data."""
    recipes = group.gather(dict(task.recipe))
    for rank, recipe in enumerate(recipes):
        for name in recipe:
            if recipe[name] != recipes[0].get(name):
                raise SettingsError(
                    f"process {rank} has other {name} than process 0", hint="Give every process the same data set"
                )


def restored(
    checkpoints: Checkpoints, before_decay: Checkpoints, settings: TrainingSettings, length: Length
) -> int | None:
    """Restore the latest checkpoint; for another length than its own, one from before the rate depends on the length.

    Returns:
        Its step, or None if there are no checkpoints.
    """
    step = checkpoints.restore()
    if step is None or length.former is None or may_change(settings, length.former, step):
        return step
    hint = "Resume it with its own length, or start another run from its model with --from"
    if (step := before_decay.restore()) is None:
        problem = "its learning rate depends on its length already, and no checkpoint from before that was kept"
        raise SettingsError(problem, path=checkpoints.folder.parent, hint=hint)
    return step


def parts_of(task: Task[Any], hooks: Sequence[Hook]) -> dict[str, Part]:
    """Everything of `task` and `hooks` that a training saves and restores, by name."""
    parts: dict[str, Part] = {}
    for phase in task.phases:
        parts[f"{phase.name}/module"] = phase.module
        parts[f"{phase.name}/optimizer"] = OptimizerState(phase.optimizer)
        if phase.average is not None:
            parts[f"{phase.name}/average"] = phase.average
        if phase.power_averages is not None:
            parts[f"{phase.name}/power averages"] = phase.power_averages
    return parts | {f"hook/{hook.name}": hook for hook in hooks if hook.remembered}


def step_where_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> Tensor:
    """Take the optimizer's step unless the gradient's `norm` is not finite.

    A fused optimizer decides on the device, as for `torch.amp.GradScaler`; for others the norm is read.

    Returns:
        1 where the step was skipped, otherwise 0; a scalar on the device.
    """
    bad = (~torch.isfinite(norm)).float()
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, bad  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
    elif not bad.item():
        optimizer.step()
    return bad


def _run(hook: Hook, task: Task[Any], state: TrainingState, share: float, log: MetricsLog) -> bool:
    """Call `hook`; returns whether it asks to finish the training."""
    answer = hook.call(Moment(state.step, share, task.model, hook.memory))
    if answer == "stop":
        state.finished = True
    elif isinstance(answer, Mapping):
        log.write({"step": state.step, **{name: float(value) for name, value in answer.items()}})
    return answer == "finish"


def _save(checkpoints: Checkpoints, step: int) -> bool:
    """Save a checkpoint, in the first process; returns whether it was saved. A full disk does not end the training."""
    if not current_group().is_first:
        return False
    try:
        checkpoints.save(step)
    except OutputError as error:
        _log.warning("the checkpoint of step %d was not saved: %s", step, error)
        return False
    return True


def _go_back(checkpoints: Checkpoints, state: TrainingState, skipped: SkippedSteps) -> None:
    """Return to the last checkpoint for another attempt, with other random numbers and half the learning rate."""
    bad, attempt, scale = state.skipped_in_a_row, state.attempt + 1, state.rate_scale * 0.5
    names = ", ".join(sorted(skipped.suspects, key=lambda name: -skipped.suspects[name])[:5])
    problem = f"the loss was not finite in {bad} consecutive steps up to step {state.step}"
    problem += f", with {names} in the batch" if names else ""
    hint = "Check the data with anatogen check, or lower training.learning_rate"
    if attempt >= _MOST_ATTEMPTS or checkpoints.restore() is None:
        raise DataError(problem, hint=hint)
    state.attempt, state.rate_scale, state.skipped_in_a_row = attempt, scale, 0
    _log.warning(
        "%s: returning to step %d with other random numbers and %g of the learning rate", problem, state.step, scale
    )
    _save(checkpoints, state.step)


def _another(stream: Generator[B, None, None], data: Batches[B], state: TrainingState) -> Generator[B, None, None]:
    stream.close()
    return data.stream(state.step, state.attempt, current_group().shard)


def _interrupted(
    task: Task[Any], checkpoints: Checkpoints, state: TrainingState, out: Path, *, whole: bool
) -> Interrupted:
    """Save the current model and state, in the first process, and report what was saved."""
    if not current_group().is_first:
        stopped = Interrupted(f"training was stopped after step {state.step}", path=out)
        stopped.told = True
        return stopped
    if state.step == 0:
        return Interrupted("training was stopped before its first step; nothing was saved", path=out)
    saved = []
    try:
        task.export(out, state)
        saved.append("the current model is saved as model.safetensors")
    except OutputError as error:
        _log.warning("the current model was not saved: %s", error)
    if whole and _save(checkpoints, state.step):
        saved.append("its state in checkpoints")
    what = " and ".join(saved) or "nothing was saved"
    return Interrupted(f"training was stopped after step {state.step}; {what}", path=out)


def _out_of_memory(micro: int, out: Path) -> SettingsError:
    hint = f"Use --set training.micro_batch_size={micro // 2}: it splits the batch, with the same result"
    if micro == 1:
        hint = "Use a smaller network.width or smaller images"
    return SettingsError(f"a micro-batch of {micro} images does not fit into device memory", path=out, hint=hint)
