"""The parts of a sample set that several processes make: who may write, and which parts are finished.

Each shard appends to files of its own, shards/3-of-200/manifest.jsonl and so on, and holds the lock of that folder
only. What belongs to the whole set, samples.json, is written under a lock that is held for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from anatogen.distributed import WHOLE, Shard
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.files import is_locked, locked, remove_partial
from anatogen.generation.header import Ask
from anatogen.settings import Document

SHARDS, FINISHED = "shards", "finished.json"
_OF_IMAGES = ("images", "labels", "real")
_NAME = re.compile(r"(\d+)-of-(\d+)")
_WAIT_S = 300.0  # for as many shards as start at once: each holds the lock for some milliseconds
_HINT = "Wait for it to end, or choose another folder"


class Finished(Document):
    """finished.json of a shard, or of all of them: the asks of which every image was made or rejected to the end."""

    FORMAT: ClassVar[int] = 1

    asks: tuple[Ask, ...] = ()


def parse_shard(text: str) -> Shard:
    """The shard that "3/200" names, counted from 1. Raises SettingsError for anything else."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise SettingsError(f"--shard {text} is not one of several shards", hint="Use --shard 1/8 to --shard 8/8")
    return Shard(int(found[1]) - 1, int(found[2]))


def name_of_shard(shard: Shard) -> str:
    """As the command line has it: "3/200"."""
    return f"{shard.index + 1}/{shard.count}"


def part_of(folder: Path, shard: Shard) -> Path:
    """Where `shard` writes its lines: the set's own folder where it is the whole."""
    return folder if shard.count == 1 else folder / SHARDS / f"{shard.index + 1}-of-{shard.count}"


def parts_of(folder: Path) -> list[Path]:
    """The set's own folder and those of its shards, in their order."""
    return [folder, *_shards(folder).values()]


def has_shards(folder: Path) -> bool:
    """Whether a part of the set in `folder` was made, or is being made, as a shard."""
    return bool(_shards(folder))


def _shards(folder: Path) -> dict[Shard, Path]:
    """The shards that were begun and their folders, by their count and number."""
    found = {}
    for path in (folder / SHARDS).glob("*-of-*"):
        if match := _NAME.fullmatch(path.name):
            found[Shard(int(match[1]) - 1, int(match[2]))] = path
    return dict(sorted(found.items(), key=lambda each: (each[0].count, each[0].index)))


def _ends(shard: Shard) -> tuple[Fraction, Fraction]:
    return Fraction(shard.index, shard.count), Fraction(shard.index + 1, shard.count)


def _overlap(a: Shard, b: Shard) -> bool:
    return max(_ends(a)[0], _ends(b)[0]) < min(_ends(a)[1], _ends(b)[1])


def parts_with_images_of(folder: Path, shard: Shard, *, asked_once: bool) -> list[Path]:
    """The parts, besides its own, that may hold images of `shard`: where the set was asked for once, its own folder
    and the shards that overlap with this one.
    """
    others = {each: path for each, path in _shards(folder).items() if each != shard}
    return [
        *([folder] if shard.count > 1 else []),
        *(path for each, path in others.items() if not asked_once or _overlap(each, shard)),
    ]


@contextmanager
def claimed(folder: Path, shard: Shard, begin: Callable[[bool], None]) -> Iterator[None]:
    """Hold the part of `shard` while the block runs, and the whole set while `begin` writes what belongs to it.

    Whoever starts takes its lock first and looks at the others' then, so that of two who start at once one is refused.

    Args:
        folder: The set's.
        shard: The part to write to.
        begin: Called with whether another shard is being made.

    Raises:
        OutputError: Another process writes to the part, to images of it, or to the whole set.
    """
    with ExitStack() as part:
        with ExitStack() as header:
            if shard.count > 1:
                header.enter_context(locked(folder, "header", wait_s=_WAIT_S))
                part.enter_context(locked(part_of(folder, shard), hint=_HINT))
                if is_locked(folder):
                    raise OutputError("another process is writing the whole set here", path=folder, hint=_HINT)
            else:
                # A shard that starts looks at this lock for a moment.
                part.enter_context(locked(folder, wait_s=1.0 if has_shards(folder) else 0.0, clean=False))
                if has_shards(folder):
                    header.enter_context(locked(folder, "header", wait_s=_WAIT_S))
            running = [each for each, path in _shards(folder).items() if each != shard and is_locked(path)]
            if overlapping := [each for each in running if _overlap(each, shard)]:
                problem = f"another process is writing shard {name_of_shard(overlapping[0])} here"
                raise OutputError(problem, path=folder, hint=_HINT)
            if shard.count == 1:
                _remove_partial(folder)
            begin(bool(running))
        yield


def mark_finished(folder: Path, shard: Shard, ask: Ask) -> None:
    """Write down that all images of `shard` that `ask` asks for are made."""
    if shard.count == 1 and not has_shards(folder):
        return
    path = _finished_file(folder, shard)
    if ask not in (asks := _finished(path)):
        Finished(asks=(*asks, ask)).write(path)


def _finished_file(folder: Path, shard: Shard) -> Path:
    return (folder / SHARDS if shard.count == 1 else part_of(folder, shard)) / FINISHED


def _finished(path: Path) -> tuple[Ask, ...]:
    """What `path` names; nothing where it is missing or damaged, for then the shard can be made again."""
    with suppress(DataError):
        return Finished.read(path).asks
    return ()


def tidy(folder: Path, shard: Shard) -> None:
    """Remove the half-written files that killed shards have left, for `shard`, which has finished a set."""
    with locked(folder, "header", wait_s=_WAIT_S):  # nobody starts meanwhile
        running = (path for each, path in _shards(folder).items() if each != shard)
        if not is_locked(folder) and not any(map(is_locked, running)):
            _remove_partial(folder)


def _remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written of images and of shards.

    What is made of a set (an overview, differences, completed maps, a calibration) is written under other locks or
    none, so another process may be writing it at this moment.
    """
    for name in (*_OF_IMAGES, SHARDS):
        remove_partial(folder / name)


def unfinished(folder: Path, ask: Ask | None) -> list[str]:
    """The shards, as "3/200", that have not made all images that `ask` asks for; none where the set has no shards."""
    shards = _shards(folder)
    if not shards or ask is None or ask in _finished(_finished_file(folder, WHOLE)):
        return []
    done = [each for each, path in shards.items() if ask in _finished(path / FINISHED)]
    # The number that most of the set was made in.
    count = max({each.count for each in shards}, key=lambda n: (sum(Fraction(1, n) for d in done if d.count == n), -n))
    return [name_of_shard(each) for each in (Shard(i, count) for i in range(count)) if not _covered(each, done)]


def _covered(shard: Shard, by: list[Shard]) -> bool:
    """Whether the shards `by` together hold all of `shard`."""
    reached, end = _ends(shard)
    for start, stop in sorted(map(_ends, by)):
        if start <= reached:
            reached = max(reached, stop)
    return reached >= end
