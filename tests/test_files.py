"""Files that are whole or not there, and locks that the system releases with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from anatogen.errors import OutputError
from anatogen.files import is_empty, locked, writing


def in_another_process(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


HOLD = """
    import sys
    from pathlib import Path
    from anatogen.files import locked
    with locked(Path({folder!r})):
        (Path({folder!r}) / ".partial-1-ab-x.txt").write_text("half")
        print("ready", flush=True)
        sys.stdin.readline()
"""


def test_two_writers_of_one_file_do_not_tear_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with writing(target) as first, writing(target) as second:
        assert first != second
        first.write_text("first" * 1000)
        second.write_text("second")
    assert target.read_text() == "first" * 1000  # whole, and by the last to end
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "run.v1"
    holder = in_another_process(HOLD.format(folder=str(folder)))
    with pytest.raises(OutputError, match="another process is writing here"), locked(folder):
        pass
    with locked(folder, "segmenter-1"):  # another part of it is free
        pass
    holder.communicate("\n")
    with locked(folder):
        assert is_empty(folder)


def test_a_killed_holder_blocks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    holder = in_another_process(HOLD.format(folder=str(tmp_path / "run")))
    os.kill(holder.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    holder.wait()
    with locked(tmp_path / "run"):
        assert is_empty(tmp_path / "run")
        assert not list((tmp_path / "run").glob(".partial-*"))


def test_waiting_for_another_holder(tmp_path: Path) -> None:
    holder = in_another_process(HOLD.format(folder=str(tmp_path)))
    start = time.monotonic()
    with pytest.raises(OutputError), locked(tmp_path, wait_s=0.3):
        pass
    assert time.monotonic() - start >= 0.3
    holder.communicate("\n")


def test_what_is_empty(tmp_path: Path) -> None:
    assert is_empty(tmp_path) and is_empty(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    assert not is_empty(tmp_path) and not is_empty(tmp_path / "file")
