"""Work on cases here or in processes, and what such processes load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_patients import source

from anatogen.data.pool import each_case
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources.base import SourceCase
from anatogen.errors import DataError

HEAVY = ("torch", "pandas", "matplotlib", "highdicom", "diffusers", "sklearn", "blosc2", "pydantic")


def cases(count: int) -> list[SourceCase]:
    return [SourceCase(f"c{i}", f"c{i}", lambda: None) for i in range(count)]  # type: ignore[arg-type, return-value]


class Clock:
    """Each look at it takes `step` seconds."""

    def __init__(self, step: float) -> None:
        self.step, self.now = step, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def where(case: SourceCase) -> tuple[str, bool]:
    import multiprocessing

    if case.id == "c3":
        raise DataError("is broken", path="a file", hint="Mend it")
    return case.id, multiprocessing.parent_process() is not None


def portable(count: int) -> list[SourceCase]:
    return [SourceCase(f"c{i}", f"c{i}", where) for i in range(count)]  # type: ignore[arg-type]


def test_what_a_worker_imports_is_light() -> None:
    """All that unpickling a task imports: the work, its settings, a case of any layout, and what changes its
    classes.
    """
    code = (
        "import sys; import anatogen.data.worker, anatogen.data.sources, anatogen.data.relabel, anatogen.data.slicing;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_a_task_names_no_heavy_module() -> None:
    """A pickle imports the modules that it names: settings of a subclass would bring `prepare`, and with it the
    store.
    """
    import pickle
    import pickletools

    from anatogen.data.worker import read_case, slice_settings

    task = pickle.dumps((read_case, slice_settings(PrepareSettings())))
    named = {str(argument) for _, argument, _ in pickletools.genops(task) if isinstance(argument, str)}
    assert "anatogen.data.worker" in named and not any("prepare" in name for name in named), named


def test_preparing_loads_no_torch(tmp_path: Path) -> None:
    """Pictures in, a prepared set out, without PyTorch in this process either."""
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(12):
            array = np.random.default_rng(i).integers(0, 3, (16, 16), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "raw" / name / f"s{i}.png")
    code = (
        "import sys; from anatogen.cli.app import app\n"
        "try: app(args=['prepare', sys.argv[1], sys.argv[2], '--size', '16'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([name for name in ('torch', 'multiprocessing.forkserver') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "raw"), str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]", found.stdout


@pytest.mark.parametrize(("step", "processes"), [(0.001, 0), (10.0, 6)], ids=["quick cases", "slow cases"])
def test_processes_are_started_where_that_pays(step: float, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found = list(each_case(where, portable(8), clock=Clock(step)))
    assert [f[0] for f in found if not isinstance(f, DataError)] == ["c0", "c1", "c2", "c4", "c5", "c6", "c7"]
    [error] = [f for f in found if isinstance(f, DataError)]
    assert str(error) == "a file: is broken. Mend it."
    assert sum(f[1] for f in found if not isinstance(f, DataError)) == max(0, processes - 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_as_many_processes_as_were_asked_for(workers: int) -> None:
    found = [f for f in each_case(where, portable(5), workers) if not isinstance(f, DataError)]
    assert [f[0] for f in found] == ["c0", "c1", "c2", "c4"] and all(f[1] == (workers > 1) for f in found)
    assert list(each_case(where, [], workers)) == []


def test_workers_change_nothing_with_faulty_cases(tmp_path: Path) -> None:
    from test_patients import QUARTERS, Scan

    several = source([f"c{i}" for i in range(8)], {3: Scan(0, fault="is broken")})
    made = [
        prepare(several, tmp_path / str(n), PrepareSettings((8, 8), shares=QUARTERS, workers=n, skip_faulty=True))
        for n in (1, 2)
    ]
    assert made[0].info == made[1].info and made[0].rows == made[1].rows and made[0].names == made[1].names
