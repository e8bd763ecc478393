"""Two processes that prepare into one folder, and processes that are killed: one writer, no torn store, resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import blosc2
import numpy as np
import pytest
from test_patients import QUARTERS, source

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.store import PreparedDataset
from anatogen.errors import OutputError, SettingsError
from anatogen.files import locked

NAMES = [f"c{i}" for i in range(10)]
SETTINGS = PrepareSettings((8, 8), shares=QUARTERS, workers=1)
START = multiprocessing.get_context("spawn")  # a fork of threads of NumPy, PyTorch or Blosc2 may hang


def _prepare_slowly(out: Path, pause_s: float, told: Path, pause_from: int = 0) -> None:
    def slow(done: int, _: int) -> None:
        if done >= pause_from:
            told.write_text(str(done))
            time.sleep(pause_s)

    prepare(source(NAMES), out, SETTINGS, progress=slow)


def _started(out: Path, pause_s: float, wanted: int) -> multiprocessing.process.BaseProcess:
    """A process that has written `wanted` cases, and writes on."""
    told = out.with_name(f"{out.name}.told")
    told.unlink(missing_ok=True)
    process = START.Process(target=_prepare_slowly, args=(out, pause_s, told, wanted))
    process.start()
    until = time.monotonic() + 60
    while not told.is_file() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    return process


def _same(a: PreparedDataset, b: PreparedDataset) -> bool:
    same = (a.load(a.rows).images == b.load(b.rows).images).all()
    return bool(same) and a.rows == b.rows and a.info == b.info and a.names == b.names


def test_the_second_of_two_is_turned_away(tmp_path: Path) -> None:
    whole = prepare(source(NAMES), tmp_path / "whole", SETTINGS)
    first = _started(tmp_path / "out", 0.3, 2)
    try:
        with pytest.raises(OutputError, match="another process is writing here"):
            prepare(source(NAMES), tmp_path / "out", SETTINGS)
    finally:
        first.join(60)
    assert first.exitcode == 0 and _same(PreparedDataset.open(tmp_path / "out"), whole)
    with pytest.raises(SettingsError, match="already exists"):
        prepare(source(NAMES), tmp_path / "out", SETTINGS)
    left = {p.name for p in tmp_path.iterdir()} | {p.name for p in (tmp_path / "out").iterdir()}
    assert not [name for name in left if "partial" in name or "lock" in name]


def test_who_waited_finds_the_folder_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder appears between the first look and the lock."""
    work = tmp_path / ".out.partial"

    def late(folder: Path, **more: object) -> object:
        prepare.__globals__["locked"] = locked
        prepare(source(NAMES), tmp_path / "out", SETTINGS)
        return locked(folder, **more)  # type: ignore[arg-type]

    monkeypatch.setitem(prepare.__globals__, "locked", late)
    with pytest.raises(SettingsError, match="already exists"):
        prepare(source(NAMES), tmp_path / "out", SETTINGS)
    assert not work.exists() and len(PreparedDataset.open(tmp_path / "out").rows) == 30


@pytest.mark.parametrize("after", [1, 4, 9])
def test_killed_and_resumed(after: int, tmp_path: Path) -> None:
    whole = prepare(source(NAMES), tmp_path / "whole", SETTINGS)
    process = _started(tmp_path / "out", 30.0, after)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert not (tmp_path / "out").exists()
    done: list[int] = []
    again = prepare(source(NAMES), tmp_path / "out", SETTINGS, progress=lambda i, _: done.append(i))
    assert done == list(range(after + 1, 11)) and _same(again, whole)
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """Killed at any moment, again and again, and at last left in peace."""
    whole = prepare(source(NAMES), tmp_path / "whole", SETTINGS)
    for delay in (0.0, 0.02, 0.05):
        if (tmp_path / "out").exists():
            break
        process = _started(tmp_path / "out", 0.02, 1)
        time.sleep(delay)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    if not (tmp_path / "out").exists():
        prepare(source(NAMES), tmp_path / "out", SETTINGS)
    assert _same(PreparedDataset.open(tmp_path / "out"), whole)


@pytest.mark.parametrize(
    "damage",
    ["half a line", "no such case", "items changed", "a short store", "half a store", "no store", "no journal"],
)
def test_what_a_crash_can_leave(damage: str, tmp_path: Path) -> None:
    whole = prepare(source(NAMES), tmp_path / "whole", SETTINGS)

    def stop(done: int, _: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source(NAMES), tmp_path / "out", SETTINGS, progress=stop)
    work = tmp_path / ".out.partial"
    journal, store = work / "journal.jsonl", work / "data" / "images.b2nd"
    first = 7
    if damage == "half a line":
        journal.write_text(journal.read_text() + '{"case": "case_0007", "rec')
    elif damage == "no such case":
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:4]))
        first = 5
    elif damage == "items changed":
        array = blosc2.open(str(store), mode="a")
        array[10] = np.zeros_like(array[10])  # of the fourth case
        first = 4
    elif damage == "a short store":
        array = blosc2.open(str(store), mode="a")
        array.resize((7, *array.shape[1:]))
        first = 3
    elif damage == "half a store":
        store.write_bytes(store.read_bytes()[:200])
        first = 1
    elif damage == "no store":
        store.unlink()
        first = 1
    else:
        journal.unlink()
        first = 1
    done: list[int] = []
    again = prepare(source(NAMES), tmp_path / "out", SETTINGS, progress=lambda i, _: done.append(i))
    assert done[0] == first and _same(again, whole)
