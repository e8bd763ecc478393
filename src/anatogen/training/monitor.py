"""What is written down while a run trains: metrics.jsonl, a line every few seconds; and steps that could not be taken."""

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

from anatogen.training.events import Events
from anatogen.training.state import TrainingState

_log = logging.getLogger(__name__)


class MetricsLog:
    """Collects the measures of every step and writes their means as a line every `every` seconds.

    A line holds step, loss, learning_rate, images_per_s and what a task and its hooks measure. Nothing is read from the
    device before a line is written.

    Args:
        path: The file; lines of steps past `after` were lost with the steps and are removed.
        every: Seconds between two lines.
        events: Where each line goes, too.
    """

    def __init__(self, path: Path, *, after: int = 0, every: float = 5.0, events: Events | None = None) -> None:
        _keep_lines(path, after)
        self._file = path.open("a", encoding="utf-8")
        self._events = events
        self._every, self._last = every, time.monotonic()
        self._measures: dict[str, list[Tensor]] = {}
        self._step, self._rate, self._images = 0, 0.0, 0

    def add(self, step: int, measures: Mapping[str, Tensor], learning_rate: float, images: int) -> str:
        """Note one step of `images` images; returns a text for people where a line was written, "" elsewhere."""
        self._step, self._rate = step, learning_rate
        for name, value in measures.items():
            self._measures.setdefault(name, []).append(value)
        self._images += images
        return self.flush() if time.monotonic() - self._last >= self._every else ""

    def flush(self) -> str:
        """Write a line of what was noted since the last one, if there is anything; returns its text for people."""
        if not self._images:
            return ""
        now = time.monotonic()
        speed = self._images / max(now - self._last, 1e-9)
        means = {name: _mean(values) for name, values in self._measures.items()}
        self.write({"step": self._step, **means, "learning_rate": self._rate, "images_per_s": speed})
        self._last, self._measures, self._images = now, {}, 0
        loss = means.get("loss", float("nan"))
        shown = f"loss {loss:.4f}, " if math.isfinite(loss) else ""
        return f"step {self._step}, {shown}{speed:.1f} images/s"

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line; a number that is not finite is written as null."""
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        self._file.write(json.dumps(known) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(known)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _mean(values: list[Tensor]) -> float:
    """The mean of those that are finite, NaN where none is: steps that were skipped do not count."""
    numbers = torch.stack(values)
    return numbers[torch.isfinite(numbers)].mean().item()


def _keep_lines(path: Path, after: int) -> None:
    """Keep the whole lines of steps up to `after`."""
    kept = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= after:
                    kept.append(line + "\n")
        path.write_text("".join(kept), encoding="utf-8")


# The losses of a micro-batch's items, where they are known, and what gives the items' names.
Suspects = tuple[Tensor | None, Callable[[], Sequence[str]]]


class SkippedSteps:
    """Counts the steps that were not taken because a gradient was not finite, and names the items that did it.

    Whether a step was taken stays on the device until `look`.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._noted: list[tuple[int, Tensor, list[Suspects]]] = []
        self.suspects: dict[str, int] = {}

    def note(self, step: int, skipped: Tensor, parts: list[Suspects]) -> None:
        """Note step `step`. skipped: 0 or 1 on the device."""
        self._noted.append((step, skipped, parts))

    def look(self) -> int:
        """Read what was noted, say what was skipped; how many of the last steps were skipped without one between."""
        found: list[int] = []
        names: list[str] = []
        flags = torch.stack([skipped for _, skipped, _ in self._noted]).cpu().numpy().tolist() if self._noted else []
        for flag, (step, _, parts) in zip(flags, self._noted, strict=True):
            self._state.skipped_in_a_row = self._state.skipped_in_a_row + 1 if flag else 0
            if flag:
                found.append(step)
                names += _whose(parts)
        self._noted = []
        if found:
            self._state.skipped += len(found)
            for name in names:
                self.suspects[name] = self.suspects.get(name, 0) + 1
            whose = f"; the loss was not finite for {', '.join(dict.fromkeys(names))}" if names else ""
            steps = ", ".join(map(str, found))
            _log.warning("skipped step %s: a gradient was not finite%s", steps, whose)
        return self._state.skipped_in_a_row


def _whose(parts: list[Suspects]) -> list[str]:
    names = []
    for losses, of in parts:
        if losses is not None and losses.ndim == 1:
            finite = torch.isfinite(losses).tolist()
            names += [name for name, good in zip(of(), finite, strict=True) if not good]
    return names
