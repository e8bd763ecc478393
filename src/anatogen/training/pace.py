"""The clock of a training: when a checkpoint is due, and how long a step takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from anatogen.progress import parse_duration
from anatogen.training.schedule import Length
from anatogen.training.state import TrainingState

if TYPE_CHECKING:
    from anatogen.training.config import TrainingSettings

_MOST_SHARE = 0.05  # of the time may go into writing checkpoints that the clock asks for
_FIRST_LOOK = 0.02  # of a time limit, until a step's duration is known
_LAST_LOOK = 0.01  # of a time limit: the plan is not changed any more


class Pace:
    """Reads the clock. Time goes on from what a checkpoint has of it: what was lost and waiting do not count."""

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
        """Seconds trained until now."""
        return self._clock() - self._start

    def seconds_per_step(self) -> float:
        """Of the steps since the last checkpoint, the checkpoint itself counted in."""
        return (self._state.seconds - self._last_seconds) / max(1, self._state.step - self._last_step)

    def due(self, length: Length) -> bool:
        """Whether a checkpoint is due after the present step."""
        step, seconds = self._state.step, self._state.seconds
        if step == length.end or self._state.finished:  # the model itself is written next
            return False
        if self._steps is not None and step % self._steps == 0:
            return True
        if seconds >= self._next:
            return True
        # Steps that become fast must not reach the planned end before the clock is looked at.
        halfway = length.end is not None and step - self._last_step >= (length.end - self._last_step) / 2
        return length.seconds is not None and halfway and seconds >= self._earliest

    def saved(self, length: Length) -> None:
        """A checkpoint of the present step was written."""
        now = self.seconds()
        self._saving = now - self._state.seconds
        self._last_step, self._last_seconds = self._state.step, self._state.seconds
        wait, shortest = self._interval, self._saving / _MOST_SHARE
        self._earliest = now + max(shortest, _LAST_LOOK * (length.seconds or 0))
        if length.seconds is not None:
            left = length.seconds - now
            # Half of what is left, again and again: a step that becomes slow moves the end by little.
            wait = min(wait, max(left / 2, _LAST_LOOK * length.seconds)) if left > 0 else wait
        self._next = now + max(wait, shortest)

    def go_back(self) -> None:
        """The state was put back to a checkpoint: what was lost since then does not count."""
        self._start = self._clock() - self._state.seconds
        self._last_step, self._last_seconds = self._state.step, self._state.seconds
        self._next = min(self._next, self._state.seconds + self._interval)
