"""The parts of a sample set that several processes make: who may write, and which parts are finished.

Each shard appends to files of its own, shards/3-of-200/manifest.jsonl and so on, and holds the lock of that folder
only. What belongs to the whole set, samples.json, is written under a lock that is held for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from anatogen.distributed import Shard
from anatogen.errors import OutputError, SettingsError
from anatogen.files import is_locked, locked

SHARDS, FINISHED = "shards", "finished"
_NAME = re.compile(r"(\d+)-of-(\d+)")
_WAIT_S = 60.0
_HINT = "Wait for it to end, or choose another folder"


def parse_shard(text: str) -> Shard:
    """The shard that "3/200" names, counted from 1. Raises SettingsError for anything else."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise SettingsError(f"--shard {text} is not one of several shards", hint="Use --shard 1/8 to --shard 8/8")
    return Shard(int(found[1]) - 1, int(found[2]))


def part_of(folder: Path, shard: Shard) -> Path:
    """Where `shard` writes its lines: the set's own folder where it is the whole."""
    return folder if shard.count == 1 else folder / SHARDS / f"{shard.index + 1}-of-{shard.count}"


def parts_of(folder: Path) -> list[Path]:
    """The set's own folder and those of its shards, in their order."""
    return [folder, *(path for _, path in sorted(_shards(folder).items()))]


def _shards(folder: Path) -> dict[tuple[int, int], Path]:
    """The folders of the shards by their count and number."""
    found = {}
    for path in (folder / SHARDS).glob("*-of-*"):
        if match := _NAME.fullmatch(path.name):
            found[int(match[2]), int(match[1])] = path
    return found


def other_parts(folder: Path, shard: Shard) -> list[Path]:
    """The parts that may hold images of `shard`, besides its own: those of shards of the same count are others'."""
    own = part_of(folder, shard)
    beside = {path for (count, _), path in _shards(folder).items() if count == shard.count != 1}
    return [path for path in parts_of(folder) if path != own and path not in beside]


@contextmanager
def claimed(folder: Path, shard: Shard, begin: Callable[[], None]) -> Iterator[None]:
    """Hold the part of `shard` while the block runs, and the whole set while `begin` writes what belongs to it.

    Raises:
        OutputError: Another process writes to it, or to the whole set.
    """
    with ExitStack() as part:
        with ExitStack() as whole:
            if shard.count > 1:
                whole.enter_context(locked(folder, "header", wait_s=_WAIT_S))
                if is_locked(folder):
                    raise OutputError("another process is writing the whole set here", path=folder, hint=_HINT)
                begin()
                part.enter_context(locked(part_of(folder, shard), hint=_HINT))
            else:
                if _shards(folder):
                    whole.enter_context(locked(folder, "header", wait_s=_WAIT_S))
                if any(is_locked(path) for path in _shards(folder).values()):
                    raise OutputError("another process is writing a shard here", path=folder, hint=_HINT)
                part.enter_context(locked(folder))
                begin()
        yield


def mark_finished(folder: Path, shard: Shard) -> None:
    """Write down that all images of `shard` are made."""
    if shard.count > 1:
        (part_of(folder, shard) / FINISHED).touch()
    elif _shards(folder):
        (folder / SHARDS / FINISHED).touch()


def unfinished(folder: Path) -> list[str]:
    """The shards that are not finished, as "3/200"; none where the whole set is, or was made without shards."""
    if (folder / SHARDS / FINISHED).exists():
        return []
    counts: dict[int, set[int]] = {}
    for (count, number), path in _shards(folder).items():
        counts.setdefault(count, set()).update({number} if (path / FINISHED).exists() else ())
    if not counts:
        return []
    count, done = max(counts.items(), key=lambda each: len(each[1]) / each[0])
    return [f"{number}/{count}" for number in range(1, count + 1) if number not in done]
