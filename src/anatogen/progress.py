"""Progress with an ETA, and durations in words."""

from __future__ import annotations

import re
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from anatogen.errors import SettingsError

if TYPE_CHECKING:
    pass


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "10m", "1h30m". Raises SettingsError for anything else."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise SettingsError(f"'{text}' is not a duration", hint="Write for instance 90s, 10m or 1h30m")
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


class Progress:
    """A bar with rate and ETA on a terminal; elsewhere a line every few seconds, on standard error.

    `total` is a count of items, or of seconds where `unit` is "s".
    """

    def __init__(self, title: str, total: float, unit: str = "", *, every: float = 15.0) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done, self.text = 0.0, ""
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._start = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, status="")
        return self

    def update(self, done: float, text: str = "") -> None:
        """`done` of `total` are finished; `text` is shown behind."""
        self.done, self.text = min(done, self.total), text
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self._status(now))
        elif now - self._last_line >= self.every:
            self._last_line = now
            print(f"{self.title}: {self._status(now)}", file=sys.stderr, flush=True)

    def advance(self, count: float = 1, text: str = "") -> None:
        """`count` more are finished."""
        self.update(self.done + count, text)

    def _status(self, now: float) -> str:
        elapsed = now - self._start
        left = elapsed * (self.total - self.done) / self.done if self.done else None
        eta = f"{format_duration(left)} left" if left is not None else "starting"
        if self.unit == "s":
            share = f"{100 * self.done / self.total:.0f} %"
            rate = ""
        else:
            share = f"{self.done:.0f}/{self.total:.0f}"
            rate = f", {self.done / elapsed:.1f} {self.unit or 'items'}/s" if elapsed > 0 and self.done else ""
        return f"{share}{rate}, {eta}" + (f", {self.text}" if self.text else "")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and self.done:
            took = format_duration(time.monotonic() - self._start)
            amount = "" if self.unit == "s" else f"{self.done:.0f}{' ' + self.unit if self.unit else ''} in "
            print(
                f"{self.title}: {amount}{took}" + (f", {self.text}" if self.text else ""), file=sys.stderr, flush=True
            )
