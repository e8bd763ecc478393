"""The machine and the moment: device, precision, seeds, progress, atomic files."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from anatogen.errors import OutputError, SettingsError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes a GPU where there is one. Raises SettingsError where it is not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device '{name}' is not available here", remedy="Use --device auto or cpu") from error


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 faster than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_tile") or capabilities.get("bf16"))
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context that computes in bfloat16 where `precision` asks for it (`auto`: where the hardware has it)."""
    import torch

    if precision == "bfloat16" or (precision == "auto" and has_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on every part, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def parse_duration(text: str) -> float:
    """Seconds from "90", "90s", "10m", "1h30m". Raises SettingsError for anything else."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise SettingsError(f"'{text}' is not a duration", remedy="Write for instance 90s, 10m or 1h30m")
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


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and renames it to `path` at the end: `path` is whole or not there.

    Raises OutputError, with what was half-written removed, where the disk is full or not writable.
    """
    partial = path.with_name(f".partial-{path.name}")  # the ending stays: it tells writers which kind to write
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            path=path,
            remedy="Free space or choose another place, and run the same command again",
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


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


def give_back_memory() -> None:
    """Give the system what the allocator keeps of freed memory; does nothing where the C library is not glibc.

    Small results between large blocks that come and go keep glibc's heap from shrinking: 42 KB an image of 64 x 64, without end.
    """
    with suppress(OSError, AttributeError, TypeError):  # musl, macOS; Windows
        ctypes.CDLL(None).malloc_trim(0)
