import errno
import mmap
import platform
from pathlib import Path

import pytest

from anatogen.device import give_back_memory, pick_device
from anatogen.errors import OutputError, SettingsError
from anatogen.files import writing
from anatogen.progress import format_duration, parse_duration
from anatogen.seeds import derive_seed


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5m", 90)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "-5m", "5 minutes", "0"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_duration(text)


def test_format_duration() -> None:
    assert [format_duration(s) for s in (4, 200, 7500)] == ["4 s", "3 min 20 s", "2 h 5 min"]


def test_seeds_depend_on_every_part_and_never_change() -> None:
    seeds = {derive_seed(0, "a", 1), derive_seed(0, "a", 2), derive_seed(1, "a", 1), derive_seed(0, "a1")}
    assert len(seeds) == 4
    assert derive_seed("anatogen", 1) == 4760558722993208575


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with writing(target) as partial:
        partial.write_text("first")
    with pytest.raises(RuntimeError), writing(target) as partial:
        partial.write_text("second")
        raise RuntimeError
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"No space left.*Free space"), writing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="cuda:77"):
        pick_device("cuda:77")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give it back by themselves")
def test_freed_memory_between_what_stays_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    blocks = [bytearray(b"x" * 60_000) for _ in range(2000)]  # small enough for the heap
    stays = blocks[::2]
    del blocks
    before = resident()
    give_back_memory()
    assert before - resident() > 30_000_000  # of the 60 MB that were freed
    assert len(stays) == 1000
