"""The log of a training: metrics.jsonl, a line every few seconds, and skipped steps."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anatogen.distributed import current_group
from anatogen.errors import OutputError
from anatogen.files import append, writing
from anatogen.training.events import Events
from anatogen.training.state import TrainingState

_log = logging.getLogger(__name__)


class MetricsLog:
    """Collects the metrics of every step and writes their means as a line every `every` seconds.

    A line holds step, share (of the training, in [0, 1]), seconds, loss, learning_rate, images_per_s and what a task
    and its hooks measure. Values stay on the device until a line is written. In a group a line holds the values of all
    processes, so all must call `flush` after the same step.

    Args:
        path: The file, or None in all processes of a group but the first; lines of steps after `after` are removed,
            because these steps were lost.
        after: The step that the training starts from.
        every: Seconds between two lines.
        events: Also receives each line.
    """

    def __init__(self, path: Path | None, *, after: int = 0, every: float = 5.0, events: Events | None = None) -> None:
        if path is not None:
            _keep_lines(path, after)
            append(path, b"")
        self._path, self._events, self._full = path, events, False
        self._every, self._last = every, time.monotonic()
        self._measures: dict[str, list[Tensor]] = {}
        self._now: dict[str, float] = {}
        self._images = 0

    def add(self, now: Mapping[str, float], measures: Mapping[str, Tensor], images: int) -> None:
        """Add one step of `images` images.

        Args:
            now: Numbers of which a line has the last ones, "step" among them.
            measures: This process's part of the values of which a line has the means.
            images: In the step.
        """
        self._now = dict(now)
        for name, value in measures.items():
            self._measures.setdefault(name, []).append(value)
        self._images += images

    @property
    def due(self) -> bool:
        """Whether it is time for a line."""
        return time.monotonic() - self._last >= self._every

    def flush(self) -> str:
        """Write the means since the last line, if any; returns a summary."""
        if not self._images:
            return ""
        now = time.monotonic()
        speed = self._images / max(now - self._last, 1e-9)
        parts = current_group().gather({name: torch.stack(values).cpu() for name, values in self._measures.items()})
        names = dict.fromkeys(name for part in parts for name in part)
        means = {name: _mean(torch.stack([part[name] for part in parts if name in part]).sum(0)) for name in names}
        self.write({**self._now, **means, "images_per_s": speed})
        self._last, self._measures, self._images = now, {}, 0
        loss = means.get("loss", float("nan"))
        shown = f"loss {loss:.4f}, " if math.isfinite(loss) else ""
        return f"step {self._now['step']:.0f}, {shown}{speed:.1f} images/s"

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line; non-finite numbers become null. A line for which there is no space is left out."""
        if self._path is None:
            return
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        try:
            append(self._path, (json.dumps(known) + "\n").encode())
            if self._events is not None:
                self._events.write(known)
            self._full = False
        except OutputError as error:
            if not self._full:
                _log.warning("the metrics are not written for now: %s", error)
            self._full = True


def _mean(numbers: Tensor) -> float:
    """The mean of the finite values, NaN if there are none: skipped steps do not count."""
    return numbers[torch.isfinite(numbers)].mean().item()


def _keep_lines(path: Path, after: int) -> None:
    """Keep the complete lines of steps up to `after`."""
    kept = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= after:
                    kept.append(line + "\n")
        with writing(path) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


# The losses of a micro-batch's items, if known, and a function that returns their names.
Suspects = tuple[Tensor | None, Callable[[], Sequence[str]]]


class SkippedSteps:
    """Counts the steps skipped because of a non-finite gradient, and names the items that caused it.

    Whether a step was skipped stays on the device until `look`. All processes of a group call it after the same step.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._noted: list[tuple[int, Tensor, list[Suspects]]] = []
        self.suspects: dict[str, int] = {}

    def note(self, step: int, skipped: Tensor, parts: list[Suspects]) -> None:
        """Record a step. skipped: 0 or 1, on the device."""
        self._noted.append((step, skipped, parts))

    def look(self) -> int:
        """Read the recorded steps and log the skipped ones; returns the number of latest steps skipped in a row."""
        found: list[int] = []
        names: list[str] = []
        group = current_group()
        flags = torch.stack([skipped for _, skipped, _ in self._noted]).cpu().numpy().tolist() if self._noted else []
        for flag, (step, _, parts) in zip(flags, self._noted, strict=True):
            self._state.skipped_in_a_row = self._state.skipped_in_a_row + 1 if flag else 0
            if flag:
                found.append(step)
                names += _whose(parts)
        self._noted = []
        if found:
            names = [name for part in group.gather(names) for name in part]
            self._state.skipped += len(found)
            for name in names:
                self.suspects[name] = self.suspects.get(name, 0) + 1
            whose = f"; the loss was not finite for {', '.join(dict.fromkeys(names))}" if names else ""
            steps = ", ".join(map(str, found))
            if group.is_first:
                _log.warning("skipped step %s: a gradient was not finite%s", steps, whose)
        return self._state.skipped_in_a_row


def _whose(parts: list[Suspects]) -> list[str]:
    names = []
    for losses, of in parts:
        if losses is not None and losses.ndim == 1:
            finite = torch.isfinite(losses).tolist()
            names += [name for name, good in zip(of(), finite, strict=True) if not good]
    return names
