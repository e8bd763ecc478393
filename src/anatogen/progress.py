"""Progress of long tasks with an ETA, cancelling, and durations in words.

A long task opens a `stage`; to show its progress, or to be able to cancel it, wrap the call in a `Monitor`:

    with watched_by(Bars()):
        evaluate(...)

Without a monitor nothing is shown.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from anatogen.errors import Interrupted, SettingsError


class Stage:
    """One stage of a long task: how much is done, since when, and a status text.

    `total` is a number of items, or a share or seconds if `unit` is "s".
    """

    def __init__(self, monitor: Monitor, title: str, total: float, unit: str = "", every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done, self.text = 0.0, ""
        self.started = time.monotonic()
        self._monitor = monitor
        self._before = 0.0

    def begin_at(self, done: float) -> None:
        """Start at `done` of `total`: work finished earlier does not count for the rate and the ETA."""
        self.done = self._before = done

    def update(self, done: float, text: str | None = None) -> None:
        """Report that `done` of `total` are finished, with a new status text or the last one.

        Raises:
            Interrupted: The task was cancelled.
        """
        self.done = min(done, self.total)
        self.text = self.text if text is None else text
        if self._monitor.cancelled:
            raise Interrupted(f"{self.title} was stopped")
        self._monitor.show(self)

    def advance(self, count: float = 1, text: str | None = None) -> None:
        """Report that `count` more are finished."""
        self.update(self.done + count, text)

    @property
    def status(self) -> str:
        """How much is done, at what rate, and the ETA."""
        elapsed = time.monotonic() - self.started
        here = self.done - self._before
        left = elapsed * (self.total - self.done) / here if here > 0 else None
        eta = f"{format_duration(left)} left" if left is not None else "starting"
        if self.unit == "s":
            share, rate = f"{100 * self.done / self.total:.0f} %", ""
        else:
            share = f"{self.done:.0f}/{self.total:.0f}"
            rate = f", {here / elapsed:.1f} {self.unit or 'items'}/s" if elapsed > 0 and here > 0 else ""
        return f"{share}{rate}, {eta}" + (f", {self.text}" if self.text else "")

    @property
    def summary(self) -> str:
        """What was done and how long it took."""
        amount = "" if self.unit == "s" else f"{self.done:.0f}{' ' + self.unit if self.unit else ''} in "
        took = format_duration(time.monotonic() - self.started)
        return f"{amount}{took}" + (f", {self.text}" if self.text else "")


class Monitor:
    """Follows every stage and can cancel the task; other threads may call `cancel`. This one shows nothing."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the task at its next progress update, as Ctrl-C does."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._cancelled.is_set()

    def open(self, stage: Stage) -> None:
        """A stage begins."""

    def show(self, stage: Stage) -> None:
        """A stage has made progress."""

    def close(self, stage: Stage, *, finished: bool) -> None:
        """A stage has ended; `finished` is False if by an error."""


class Bars(Monitor):
    """Progress on standard error: a bar with rate and ETA on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._bars: dict[Stage, tuple[Any, Any]] = {}
        self._last_line: dict[Stage, float] = {}

    def open(self, stage: Stage) -> None:
        """Show the bar."""
        self._last_line[stage] = stage.started
        if sys.stderr.isatty() and not self._bars:  # Rich draws one live display at a time
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            bar = Progress(*columns, console=Console(stderr=True), transient=True)
            bar.start()
            self._bars[stage] = bar, bar.add_task(stage.title, total=stage.total, status="")

    def show(self, stage: Stage) -> None:
        """Update the bar, or print a line if there is none."""
        if stage in self._bars:
            bar, task = self._bars[stage]
            bar.update(task, completed=stage.done, total=stage.total, status=stage.status)
        elif (now := time.monotonic()) - self._last_line[stage] >= stage.every:
            self._last_line[stage] = now
            print(f"{stage.title}: {stage.status}", file=sys.stderr, flush=True)

    def close(self, stage: Stage, *, finished: bool) -> None:
        """Replace the bar with a line."""
        self._last_line.pop(stage, None)
        if stage in self._bars:
            self._bars.pop(stage)[0].stop()
        if finished and stage.done:
            print(f"{stage.title}: {stage.summary}", file=sys.stderr, flush=True)


_SILENT = Monitor()
_MONITOR: ContextVar[Monitor | None] = ContextVar("monitor", default=None)


@contextmanager
def watched_by(monitor: Monitor | None) -> Iterator[None]:
    """Report the progress of the block to `monitor` (None: keep the current one)."""
    if monitor is None:
        yield
        return
    token = _MONITOR.set(monitor)
    try:
        yield
    finally:
        _MONITOR.reset(token)


def show_bars() -> None:
    """Show progress bars for the rest of this process, as the command line does; for scripts."""
    _MONITOR.set(Bars())


@contextmanager
def stage(title: str, total: float, unit: str = "", *, every: float = 15.0) -> Iterator[Stage]:
    """A stage of a long task, reported to the current monitor (`watched_by`).

    Args:
        title: What is being done, for instance "sampling".
        total: The number of items; with unit "s" a time or a share.
        unit: The unit of the items, for instance "images".
        every: Seconds between two lines if no bar can be shown.
    """
    monitor = _MONITOR.get() or _SILENT
    this = Stage(monitor, title, total, unit, every)
    monitor.open(this)
    finished = False
    try:
        yield this
        finished = True
    finally:
        monitor.close(this, finished=finished)


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "10m" or "1h30m".

    Raises:
        SettingsError: The text is not a duration, or not longer than 0.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise SettingsError(f"expected a duration, got '{text}'", hint="Use for instance 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    if not (total := hours * 3600 + minutes * 60 + seconds):
        raise SettingsError("a duration must be longer than 0")
    return total


def format_duration(seconds: float) -> str:
    """ "4 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
