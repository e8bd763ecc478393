"""The files of a sample set that grow line by line, so that the set is valid whenever its writer is stopped or
killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from anatogen.data.placement import Placement
from anatogen.distributed import WHOLE, Shard
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.files import is_empty, remove_partial, safe_name
from anatogen.generation.header import Header
from anatogen.generation.manifest import Line, PlaceInScan, PlaceLine, RejectedLine
from anatogen.generation.request import Request, Requests
from anatogen.generation.shards import SHARDS, claimed, has_shards, part_of, parts_of, parts_with_images_of
from anatogen.settings import Document

HEADER, MANIFEST, REJECTED, PLACES = "samples.json", "manifest.jsonl", "rejected.jsonl", "places.jsonl"
MOST_IN_A_FOLDER = 10_000  # images
_REJECTED_OF_OLD = "refused.jsonl"  # of version 0.1

D = TypeVar("D", bound=Document)


def read_lines(path: Path, kind: type[D]) -> list[D]:
    """The lines of `path`, none where there is no such file; half a line at the end, of a killed writer, is passed
    over.

    Raises DataError where one is damaged.
    """
    return [kind.parse(line, path, number) for number, line in enumerate(whole_lines(path)[0], start=1)]


def whole_lines(path: Path) -> tuple[list[str], bool]:
    """The texts of the lines of `path`, and whether half a line follows."""
    whole, tail = _split(path)
    lines = whole.decode("utf-8", errors="replace").split("\n")[:-1]
    if _is_whole(tail):
        return [*lines, tail.decode()], False
    return lines, bool(tail)


def read_manifest(folder: Path) -> list[Line]:
    """The lines of the manifest, those of all shards in the order of the set, each image once.

    Raises DataError where a line is damaged or its image is missing.
    """
    found: dict[str, tuple[int, Line]] = {}
    there = _Existing(folder)
    for part in parts_of(folder):
        for number, line in enumerate(_read_part(part, there)):
            found.setdefault(line.id, (number if line.position is None else line.position, line))
    return [line for _, line in sorted(found.values(), key=lambda each: each[0])]


class _Existing:
    """Which files of the set in `folder` exist; a folder is listed once, instead of a look at each of its files."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, dict[str, set[str]]()

    def __contains__(self, name: str) -> bool:
        below, _, last = name.rpartition("/")
        if below not in self._names:
            try:
                with os.scandir(self._folder / below) as found:
                    self._names[below] = {entry.name for entry in found}
            except OSError:
                self._names[below] = set()
        # A file may be newer than the list, or the file system ignore case.
        return last in self._names[below] or (self._folder / name).exists()


def _read_part(part: Path, there: _Existing) -> list[Line]:
    path = part / MANIFEST
    lines = read_lines(path, Line)
    for number, line in enumerate(lines, start=1):
        for name in line.files:
            if name not in there:
                problem = f"{name}, named in line {number}, is missing"
                raise DataError(problem, path=path, hint="Remove the line and sample again")
    return lines


def read_rejected(folder: Path, shard: Shard = WHOLE) -> list[RejectedLine]:
    """The requests of the set, or of a shard of it, of which every try was rejected.

    Raises DataError where a line is damaged.
    """
    if shard.count > 1:
        return read_lines(part_of(folder, shard) / REJECTED, RejectedLine)
    paths = [folder / _REJECTED_OF_OLD, *(part / REJECTED for part in parts_of(folder))]
    return list({line.id: line for path in paths for line in read_lines(path, RejectedLine)}.values())


def read_places(folder: Path) -> dict[str, PlaceLine]:
    """The scans that images are placed in, by their id. Raises DataError where a line is damaged."""
    return {line.id: line for part in parts_of(folder) for line in read_lines(part / PLACES, PlaceLine)}


def _split(path: Path) -> tuple[bytes, bytes]:
    """The whole lines of a file, and what follows the last line's end."""
    data = path.read_bytes() if path.is_file() else b""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _is_whole(tail: bytes) -> bool:
    """Whether a last line without an end is one all the same: the writer was killed before it, or somebody edited the
    file.
    """
    try:
        return isinstance(json.loads(tail), dict)
    except ValueError:
        return False


def _mend_end(path: Path) -> None:
    """End the last line, or remove it where it is torn, so that others can follow."""
    whole, tail = _split(path)
    if _is_whole(tail):
        with path.open("ab") as file:
            file.write(b"\n")
    elif tail:
        with path.open("r+b") as file:
            file.truncate(len(whole))


class Ledger:
    """The lines of a sample set, or of a shard of it, that are being written. Only for who holds its lock.

    Attributes:
        folder: The set's.
        lines, rejected: What is there.
        positions: The place in the whole set of each image that is still to be made, by its id; see `todo`.
    """

    def __init__(self, folder: Path, header: Header, shard: Shard) -> None:
        self.folder, self.shard, self._part = folder, shard, part_of(folder, shard)
        self.ask = header.asks[-1]
        for name in (MANIFEST, REJECTED, PLACES):
            _mend_end(self._part / name)
        (self._part / MANIFEST).touch()
        self.positions: dict[str, int] = {}
        elsewhere: set[str] = set()
        if shard.count == 1:
            self.lines, self.rejected = read_manifest(folder), read_rejected(folder)
        else:
            self.lines = _read_part(self._part, _Existing(folder))
            self.rejected = read_rejected(folder, shard)
            others = parts_with_images_of(folder, shard, asked_once=len(header.asks) == 1)
            elsewhere = {found for part in others for found in _ids_in(part)}
        self._has_shards = has_shards(folder)
        self._settled = elsewhere | {line.id for line in self.lines} | {line.id for line in self.rejected}
        self._names = {name.lower(): name for name in self._settled}
        self._places = {line.id for line in read_lines(self._part / PLACES, PlaceLine)}

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, header: Header, shard: Shard = WHOLE) -> Iterator[tuple[Ledger, Header]]:
        """The ledger of the set in `folder`, which is new or was made with the same `header`, and the header that is
        there now; the set, or its part, is locked for the block.

        Raises SettingsError where the set was made with other settings, DataError where it is damaged, OutputError
        where another process is writing it.
        """
        require_own_folder(folder)
        there: list[Header] = []
        with claimed(folder, shard, lambda others: there.append(_extended(folder, header, others))):
            yield cls(folder, there[0], shard), there[0]

    def todo(self, requests: Sequence[Request]) -> list[int]:
        """The numbers of those `requests` of this shard that have neither an image nor been rejected to the end.

        Raises SettingsError where two requests have one id.
        """
        # The label map of a request that is settled is not read again.
        id_of = requests.id_of if isinstance(requests, Requests) else lambda number: requests[number].id
        own = self.shard.of(len(requests))
        distinct = _are_distinct(map(id_of, range(len(requests))), len(requests))
        seen: set[str] = set()
        # Which of two ids that differ in case keeps its name depends on those before it, in other shards too.
        for number in own if distinct else range(len(requests)):
            name = self.name_of(called := id_of(number))
            if name in seen:
                raise SettingsError(f"two images are both called '{called}'", hint="Give each request its own id")
            seen.add(name)
            self._names[name.lower()] = name
            if number in own and name not in self._settled:
                self.positions[name] = self.ask.first + number
        return [position - self.ask.first for position in self.positions.values()]

    def position_of(self, name: str) -> int | None:
        """What the manifest line of the image `name` says of its place in the set; nothing where lines are in order."""
        return self.positions.get(name) if self._has_shards else None

    def subfolder_of(self, name: str) -> str:
        """The folder of the files of image `name`, "" or for instance "003/": at most 10,000 images are in one."""
        number = self.positions.get(name, 0) // MOST_IN_A_FOLDER
        return f"{number:03d}/" if number else ""

    def name_of(self, own: str) -> str:
        """The id that the request with the id `own` has in the set, after which its files are named; see
        `safe_name`.
        """
        name = safe_name(own)
        return name if self._names.get(name.lower(), name) == name else safe_name(own, {name.lower()})

    def add(self, line: Line) -> None:
        """Write down an image whose files are there."""
        self._append(MANIFEST, line)
        self.lines.append(line)

    def add_rejected(self, line: RejectedLine) -> None:
        """Write down a request of which every try was rejected."""
        self._append(REJECTED, line)
        self.rejected.append(line)

    def place(self, place: Placement) -> PlaceInScan:
        """What a manifest line says of a placement, whose scan is written down once."""
        line = PlaceLine.of(place)
        if line.id not in self._places:
            self._append(PLACES, line)
            self._places.add(line.id)
        return PlaceInScan(scan=line.id, position=place.position)

    def _append(self, name: str, line: Document) -> None:
        # One write of a whole line, handed to the system before anything else happens: a process may be killed at any
        # moment.
        with (self._part / name).open("ab", buffering=0) as file:
            file.write(f"{line.text_on_disk()}\n".encode())


def _are_distinct(ids: Iterable[str], count: int) -> bool:
    """Whether `count` ids differ in more than case; takes 8 bytes for each."""
    digests = np.fromiter((hash(each.lower()) for each in ids), np.int64, count)
    digests.sort()
    return bool((digests[1:] != digests[:-1]).all())


def _ids_in(part: Path) -> Iterator[str]:
    """The ids of the images in `part`, and of what was rejected."""
    for name in (MANIFEST, REJECTED):
        for number, text in enumerate(whole_lines(part / name)[0], start=1):
            try:
                yield str(json.loads(text)["id"])
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"line {number} is damaged", path=part / name, hint=Line.HINT) from error


def require_own_folder(folder: Path) -> None:
    """Raises SettingsError where `folder` holds something that is no sample set."""
    # In this order: another shard may be writing the header of the new set at this moment.
    if not is_empty(folder, (SHARDS,)) and not (folder / HEADER).exists():
        raise SettingsError("already exists and is no sample set", path=folder, hint="Choose another folder")


def _extended(folder: Path, header: Header, others: bool) -> Header:
    """Write `header` to a new set, or the one that is there with the new counts of images.

    others: whether other processes write to the set.
    """
    path = folder / HEADER
    require_own_folder(folder)
    remove_partial(folder, HEADER)
    if not path.exists():
        header.write(path)
        return header
    former = Header.read(path)
    hint = "Choose another folder, or ask for the same"
    if former.request.label_maps is None and header.request.label_maps is not None:
        problem = "holds images of which it is not known what label maps they are from, as version 0.1 wrote them"
        raise SettingsError(problem, path=folder, hint="Choose another folder")
    if (different := former.difference(header)) is not None:
        name, there, wanted = different
        raise SettingsError(f"holds images made with {name} {there}, not {wanted}", path=folder, hint=hint)
    extended = former.extended(header, len(whole_lines(folder / MANIFEST)[0]) if not former.asks else 0)
    if extended != former:
        if others:
            asked = former.asks[-1].images if former.asks else 0
            problem = f"other processes are making a set of {asked} images here, not {header.asks[-1].images}"
            raise OutputError(problem, path=folder, hint="Wait for them to end, or ask for as many")
        extended.write(path)
    return extended
