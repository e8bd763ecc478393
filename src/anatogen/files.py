"""Files that are whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anatogen.errors import OutputError

_PARTIAL = ".partial-"
LOCK_ENDING = ".lock"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and renames it to `path` at the end: `path` is whole or not there.

    The path beside has a name of its own, so that two processes that write the same file do not tear it: the last wins.
    Raises OutputError, with what was half-written removed, where the disk is full or not writable.
    """
    # The ending stays: it tells writers which kind to write.
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            path=path,
            hint="Free space or choose another place, and run the same command again",
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # missing, or its folder is none
                partial.unlink()


@contextmanager
def locked(
    folder: Path,
    part: str = "",
    *,
    wait_s: float = 0.0,
    hint: str = "Wait for it to end, or choose another folder",
) -> Iterator[None]:
    """Holds `folder` (made where it is missing), or one named `part` of it, for this process while the block runs.

    The system releases the lock with its holder (`flock`; where a file system has none, a file that names host and process),
    so a killed process never blocks the next. Whoever holds a whole folder removes what a killed process left half-written in
    it. wait_s: how long to wait for another holder. Raises OutputError where another process holds it still, or where the
    folder cannot be written to.
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
        if not part:
            remove_partial(folder)
        yield
    finally:
        lock.release()


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder` and one level below; only for who holds its lock."""
    for left in (*folder.glob(f"{_PARTIAL}*"), *folder.glob(f"*/{_PARTIAL}*")):
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def is_empty(folder: Path) -> bool:
    """Whether `folder` is missing or holds nothing but a lock and what was half-written."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        f.name.startswith(_PARTIAL) or f.name.endswith(LOCK_ENDING) for f in folder.iterdir()
    )


_LONGEST = 120  # bytes of a name: what is written beside, and endings, add to it
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+-]*")


def safe_name(name: str, taken: Container[str] = ()) -> str:
    """A file's name on any system for what is called `name`: itself, if it is one already.

    Anything else, so that it is no path, hidden, a device or too long, is cleaned and ends with a digest of `name`, which keeps
    two of them apart. taken: names in lower case that are others' already, for systems do not tell case apart.
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
