"""The length of a training and its learning rate, as functions of the step."""

from __future__ import annotations

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
        if self.seconds is None:
            return
        left = (self.seconds - seconds) / max(seconds_per_step, 1e-9)
        end = step + max(1, round(left)) if left > 0 else step
        if self.steps is not None:
            end = min(end, self.steps)
        if end != self._end:
            self._step, self._share, self._end = step, self.share(step), end

    def state_dict(self) -> dict[str, Any]:
        """The current plan."""
        return {"step": self._step, "share": self._share, "end": self._end}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self._step, self._share, self._end = state["step"], state["share"], state["end"]


def rate_factor(settings: TrainingSettings, step: int, share: float) -> float:
    """The factor of the learning rate in step 0, 1, ..., when `share` of the training is complete."""
    factor = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * share))
    if settings.schedule == "decay":
        return factor * min(1.0, (1 - share) / settings.decay_share)
    return factor
