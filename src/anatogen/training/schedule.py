"""The length of a training and its learning rate, as functions of the step."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anatogen.errors import SettingsError

if TYPE_CHECKING:
    from anatogen.training.config import TrainingSettings


class Length:
    """The completed share of a training after a step; training ends with the first of steps, epochs and seconds.

    A step count is final. A time limit becomes a step count when a checkpoint is written (`plan`), and only then: until
    the next checkpoint the share is a function of the step, so that a resume repeats it exactly. From the planned step
    the share rises linearly to 1, so it never falls, and a decay of the learning rate is always completed.

    Args:
        settings: With at least one limit.
        images: Images in an epoch.
        batch_size: Images in a step.

    Attributes:
        former: The plan of a restored checkpoint that was for another length, otherwise None.

    Raises:
        SettingsError: There is no limit.
    """

    def __init__(self, settings: TrainingSettings, images: int, batch_size: int) -> None:
        by_epochs = settings.epochs and math.ceil(settings.epochs * images / batch_size)
        limits = [n for n in (settings.steps, by_epochs) if n]
        self.steps = min(limits) if limits else None
        self.seconds = settings.max_time_s
        if self.steps is None and self.seconds is None:
            raise SettingsError("no training length given", hint="Give --steps, --epochs or --max-time")
        self._step, self._share, self._end = 0, 0.0, self.steps
        self._ending = False
        self.former: Length | None = None

    @property
    def end(self) -> int | None:
        """The planned number of steps; None for a time limit before the first checkpoint."""
        return self._end

    def share(self, step: int) -> float:
        """The completed share in [0, 1] after `step` steps, 1 at the end."""
        if self._end is None:
            return 0.0
        if step >= self._end:
            return 1.0
        return self._share + (1 - self._share) * (step - self._step) / (self._end - self._step)

    def shown(self, step: int, seconds: float) -> float:
        """The share to display: by time while no step count is planned."""
        if self._end is None and self.seconds is not None:
            return min(1.0, seconds / self.seconds)
        return self.share(step)

    def plan(self, step: int, seconds: float, seconds_per_step: float) -> None:
        """Update the planned step count from the time `seconds` at `step` and the duration of a step."""
        if self.seconds is None or self._ending:
            return
        left = (self.seconds - seconds) / max(seconds_per_step, 1e-9)
        end = step + max(1, round(left)) if left > 0 else step
        if self.steps is not None:
            end = min(end, self.steps)
        if end != self._end:
            self._step, self._share, self._end = step, self.share(step), end

    def finish(self, step: int, share: float) -> None:
        """End the training early: after `step` begins what a full training does from `share` on, for as long as it
        would take if the length had been planned so.
        """
        if self.share(step) >= share:
            return
        end = step + max(1, round(step * (1 - share) / share))
        self._end = end if self._end is None else min(end, self._end)
        self._step, self._share, self._ending = step, share, True

    def state_dict(self) -> dict[str, Any]:
        """The current plan, and the limits that it is for."""
        return {
            "step": self._step,
            "share": self._share,
            "end": self._end,
            "ending": self._ending,
            "limits": self._limits,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`. A plan for other limits is kept as `former` only: the length was changed on a resume."""
        limits = state.get("limits", self._limits)
        plan = self
        if limits != self._limits:
            plan = self.former = copy.copy(self)
        plan._step, plan._share, plan._end = state["step"], state["share"], state["end"]
        plan._ending = state.get("ending", False)

    @property
    def _limits(self) -> list[float | None]:
        return [self.steps, self.seconds]


def rate_factor(settings: TrainingSettings, step: int, share: float) -> float:
    """The factor of the learning rate in step 0, 1, ..., when `share` of the training is complete."""
    factor = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * share))
    if settings.schedule == "decay":
        return factor * min(1.0, (1 - share) / settings.decay_share)
    return factor


def decay_from(settings: TrainingSettings) -> float | None:
    """The share of the training from which the rate depends on the length; None if it never does."""
    return {"decay": 1 - settings.decay_share, "cosine": 0.0, "constant": None}[settings.schedule]


def begins_decay(settings: TrainingSettings, length: Length, step: int) -> bool:
    """Whether the decay of the schedule `decay` begins with the step after `step`."""
    start = decay_from(settings)
    return start is not None and start > 0 and step > 0 and length.share(step) >= start > length.share(step - 1)


def may_change(settings: TrainingSettings, length: Length, step: int) -> bool:
    """Whether a training can go on after `step` with `length`: its rate has not begun to decay."""
    start = decay_from(settings)
    return start is None or length.share(step) <= start
