"""Atomic file writes, and folders that only one process writes to at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from anatogen.errors import OutputError

_PARTIAL = ".partial-"
LOCK_ENDING = ".lock"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` at the end, so that `path` is never half-written.

    Temporary names are unique: if two processes write the same file, the last one wins.

    Raises:
        OutputError: The disk is full or not writable. The half-written file is removed.
    """
    # Writers infer the format from the suffix, so it is kept.
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            path=path,
            hint="Free space or choose another location, then run the same command again",
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # missing, or its parent is not a folder
                partial.unlink()


def append(path: Path, data: bytes) -> None:
    """Append `data` to the file `path`, wholly or not at all; creates the file and its folder.

    Raises:
        OutputError: The disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=path, hint="Free space") from error


@contextmanager
def locked(
    folder: Path,
    part: str = "",
    *,
    wait_s: float = 0.0,
    hint: str = "Wait for it to end, or choose another folder",
    clean: bool = True,
) -> Iterator[None]:
    """Hold `folder` (created if missing), or one named `part` of it, for this process while the block runs.

    The system releases the lock when its process ends (`flock`; where the file system has none, a file with host and
    process id), so a killed process never blocks the next one. Locking a whole folder removes the half-written files
    that a killed process left in it.

    Args:
        wait_s: How many seconds to wait for another process.
        clean: Whether half-written files are removed from a whole folder.

    Raises:
        OutputError: Another process still holds the folder, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / (f".{part}{LOCK_ENDING}" if part else LOCK_ENDING), timeout=wait_s)
        lock.acquire()
    except Timeout as error:
        raise OutputError("another process is writing here", path=folder, hint=hint) from error
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=folder) from error
    try:
        if clean and not part:
            remove_partial(folder)
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of the whole `folder`."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK_ENDING).exists():
        return False
    lock = FileLock(folder / LOCK_ENDING, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def remove_partial(folder: Path, *names: str) -> None:
    """Remove half-written files of killed processes: all in `folder` and two levels below, or its `names` only.

    No other process may be writing them: the caller must hold the lock under which they are written.
    """
    of_names = [f"{_PARTIAL}*-{escape(name)}" for name in names]
    patterns = of_names or [f"{depth}{_PARTIAL}*" for depth in ("", "*/", "*/*/")]
    for left in (left for pattern in patterns for left in folder.glob(pattern)):
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def is_empty(folder: Path, besides: Container[str] = ()) -> bool:
    """Whether `folder` is missing, or contains only a lock, half-written files and what `besides` names."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        f.name.startswith(_PARTIAL) or f.name.endswith(LOCK_ENDING) or f.name in besides for f in folder.iterdir()
    )


_LONGEST = 120  # bytes; suffixes and temporary names add to it
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+-]*")


def safe_name(name: str, taken: Container[str] = ()) -> str:
    """A file name for `name` that is valid on every system: `name` itself if it is valid.

    Otherwise (a path, hidden, a reserved word, too long) it is cleaned and a digest of `name` is appended, which keeps
    two of them distinct.

    Args:
        taken: Lower-case names already in use; some file systems ignore case.
    """
    safe = (
        bool(_SAFE.fullmatch(name))
        and len(name) <= _LONGEST
        and not _DEVICES.fullmatch(name)
        and not name.endswith(".")
        and name.lower() not in taken
    )
    if safe:
        return name
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[: _LONGEST - 20].strip("_-") or "unnamed"
    return f"{cleaned}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
