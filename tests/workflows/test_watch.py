"""Watching a training: what is said of one that runs, was killed, has ended, or has only just begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anatogen.cli.watch import sparkline
from anatogen.errors import ModelError
from anatogen.files import is_locked, locked
from anatogen.workflows.watch import view_of, watch

LINES = """{"step": 10, "share": 0.1, "seconds": 20.0, "loss": 0.8, "images_per_s": 8.0}
{"step": 15, "dice": 0.5, "dice/liver": 0.6, "dice/bone": 0.4, "dice_ceiling": 0.9}
{"step": 20, "share": 0.2, "seconds": 40.0, "loss": 0.4, "images_per_s": 8.5}
{"step": 25, "sha"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "previews").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("preset: fast\n")
    (tmp_path / "run" / "metrics.jsonl").write_text(LINES, encoding="utf-8")
    (tmp_path / "run" / "previews" / "000000015.png").write_bytes(b"")
    return tmp_path / "run"


def test_a_training_that_runs(run: Path) -> None:
    with locked(run):
        view = view_of(run)
    assert (view.status, view.step, view.share, view.seconds) == ("training", 20, 0.2, 40.0)
    assert view.left == pytest.approx(160) and view.images_per_s == 8.5
    assert view.loss == ((10, 0.8), (20, 0.4)) and view.dice == ((15, 0.5),)
    assert view.dice_of_classes == {"liver": 0.6, "bone": 0.4} and view.ceiling == 0.9
    assert view.preview is not None and view.preview.name == "000000015.png"


def test_one_that_was_killed_and_one_that_has_ended(run: Path, run_folder: Path) -> None:
    assert view_of(run).status == "stopped"
    assert view_of(run_folder).status == "finished"


def test_watching_ends_with_the_training(run: Path) -> None:
    slept: list[float] = []
    with locked(run):
        views = watch(run, every=3, sleep=slept.append)
        assert next(views).status == "training" and next(views).status == "training"
    assert [view.status for view in views] == ["stopped"] and slept == [3, 3]


def test_nothing_is_known_yet(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    view = view_of(run)
    assert view.step == 0 and view.share is None and view.left is None and view.loss == ()


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a run"):
        view_of(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        view_of(tmp_path / "nowhere")


def test_looking_at_a_lock_does_not_take_it(run: Path) -> None:
    assert not is_locked(run)
    with locked(run):
        assert is_locked(run) and is_locked(run)
    with locked(run):
        pass


def test_from_the_command_line(cli: Callable[..., tuple[int, str, str]], run: Path, run_folder: Path) -> None:
    code, out, err = cli("watch", run, "--once")
    assert code == 0, err
    out = " ".join(out.split())  # a long path breaks lines
    assert "stopped, step 20" in out and "Dice" in out and "liver 0.600" in out and "--resume" in out
    assert cli("watch", run_folder)[0] == 0
    assert cli("watch", run / "nowhere")[0] == 2


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1, 1]) == "▄▄▄" and sparkline([]) == ""
    assert len(sparkline(list(range(1000)))) <= 48
