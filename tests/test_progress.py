"""Progress is told to whoever watches, and the work can be cancelled."""

from __future__ import annotations

import pytest

from anatogen.errors import Interrupted
from anatogen.progress import Bars, Monitor, Stage, stage, watched_by


class Notes(Monitor):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def open(self, stage: Stage) -> None:
        self.lines.append(f"open {stage.title}")

    def show(self, stage: Stage) -> None:
        self.lines.append(f"{stage.done:.0f}/{stage.total:.0f} {stage.text}")

    def close(self, stage: Stage, *, finished: bool) -> None:
        self.lines.append(f"close {finished}")


def work(count: int = 2) -> None:
    with stage("working", count, "images") as bar:
        for number in range(count):
            bar.advance(text=f"image {number}")


def test_a_monitor_is_told_of_every_stage() -> None:
    notes = Notes()
    with watched_by(notes):
        work()
    work()  # nobody watches
    assert notes.lines == ["open working", "1/2 image 0", "2/2 image 1", "close True"]


def test_cancelling_stops_the_work_at_its_next_word() -> None:
    notes = Notes()
    notes.cancel()
    with pytest.raises(Interrupted, match="working was stopped") as raised, watched_by(notes):
        work()
    assert raised.value.exit_code == 130
    assert notes.lines == ["open working", "close False"]


def test_no_monitor_keeps_the_one_around() -> None:
    notes = Notes()
    with watched_by(notes), watched_by(None):
        work(1)
    assert notes.lines[-1] == "close True"


def test_bars_print_lines_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with watched_by(Bars()), stage("working", 2, "images", every=0) as bar:
        bar.update(1)
        bar.update(2, "good")
    err = capfd.readouterr().err.splitlines()
    assert err[0].startswith("working: 1/2") and "left" in err[0]
    assert err[-1].startswith("working: 2 images in") and err[-1].endswith("good")
