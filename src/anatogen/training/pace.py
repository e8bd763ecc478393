"""The clock of a training: when a checkpoint is due, and how long a step takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from anatogen.progress import parse_duration
from anatogen.training.schedule import Length
from anatogen.training.state import TrainingState

if TYPE_CHECKING:
    from anatogen.training.config import TrainingSettings

_MOST_SHARE = 0.05  # the most time that checkpoints scheduled by time may take
_FIRST_LOOK = 0.02  # of a time limit, after which the duration of a step is known
_LAST_LOOK = 0.01  # of a time limit, within which the plan stays fixed


class Pace:
    """Training time and the schedule of checkpoints.

    Time continues from the value in the checkpoint: lost steps and the pause before a resume do not count.
    """

    def __init__(self, settings: TrainingSettings, state: TrainingState, clock: Callable[[], float]) -> None:
        every = settings.checkpoint_every
        self._steps = every if isinstance(every, int) else None
        self._interval = parse_duration(every) if isinstance(every, str) else float("inf")
        self._clock, self._state = clock, state
        self._start = clock() - state.seconds
        self._last_step, self._last_seconds = state.step, state.seconds
        self._saving = 0.0
        limit = settings.max_time_s
        first = min(self._interval, _FIRST_LOOK * limit) if limit else self._interval
        self._next = self._earliest = state.seconds + first

    def seconds(self) -> float:
        """Training time so far."""
        return self._clock() - self._start

    def seconds_per_step(self) -> float:
        """Mean time of the steps since the last checkpoint, the checkpoint itself included."""
        return (self._state.seconds - self._last_seconds) / max(1, self._state.step - self._last_step)

    def due(self, length: Length) -> bool:
        """Whether a checkpoint is due after the current step."""
        step, seconds = self._state.step, self._state.seconds
        if step == length.end or self._state.finished:  # the model is written next
            return False
        if self._steps is not None and step % self._steps == 0:
            return True
        if seconds >= self._next:
            return True
        # If steps become faster, the planned end must not come before the next checkpoint.
        halfway = length.end is not None and step - self._last_step >= (length.end - self._last_step) / 2
        return length.seconds is not None and halfway and seconds >= self._earliest

    def saved(self, length: Length) -> None:
        """Record that a checkpoint of the current step was written, and schedule the next one."""
        now = self.seconds()
        self._saving = now - self._state.seconds
        self._last_step, self._last_seconds = self._state.step, self._state.seconds
        wait, shortest = self._interval, self._saving / _MOST_SHARE
        self._earliest = now + max(shortest, _LAST_LOOK * (length.seconds or 0))
        if length.seconds is not None:
            left = length.seconds - now
            # Half of the remaining time each, so that slower steps hardly move the end.
            wait = min(wait, max(left / 2, _LAST_LOOK * length.seconds)) if left > 0 else wait
        self._next = now + max(wait, shortest)

    def go_back(self) -> None:
        """Record that training returned to a checkpoint; the time lost since then does not count."""
        self._start = self._clock() - self._state.seconds
        self._last_step, self._last_seconds = self._state.step, self._state.seconds
        self._next = min(self._next, self._state.seconds + self._interval)
