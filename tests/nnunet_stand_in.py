"""Executables that stand in for nnU-Net's commands (`nnunet_commands`), and say how they were called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import nnunet_commands
from anatogen.errors import DataError
from anatogen.judges import nnunet as nnunet_judge

STAND_IN = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
homes = {{k: v for k, v in os.environ.items() if k.startswith("nnUNet_")}}
with open({log!r}, "a") as log:
    log.write(json.dumps([name, arguments, homes]) + "\\n")
print("this is", name)
if name == {failing!r}:
    sys.exit(3)
if name == {hanging!r}:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path({log!r}).with_name("workers").write_text(f"{{os.getpid()}} {{worker.pid}}\\n")
    time.sleep(600)
sys.path.insert(0, {tests!r})
import nnunet_commands
nnunet_commands.run(name, arguments, homes)
"""
COMMANDS = nnunet_commands.NAMES


class Installed:
    """A stand-in nnU-Net on PATH, and what it was called with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log, self.seen = folder, folder / "calls.jsonl", folder / "seen.jsonl"
        (folder / "nnunetv2").mkdir(parents=True)
        (folder / "nnunetv2" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc"):
            monkeypatch.delenv(name, raising=False)
        self.write()

    def write(self, failing: str = "", hanging: str = "") -> None:
        self.failing, tests = failing, str(Path(__file__).parent)
        text = STAND_IN.format(python=sys.executable, log=str(self.log), failing=failing, hanging=hanging, tests=tests)
        for name in COMMANDS:
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    def run_in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on commands are function calls, which are faster; what a training is given is noted in `seen`."""

        def run(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
            homes = {k: v for k, v in environment.items() if k.startswith("nnUNet_")}
            with self.log.open("a") as file:
                file.write(json.dumps([command[0], list(command[1:]), homes]) + "\n")
            if command[0] == self.failing:
                raise DataError(f"{command[0]} failed with exit status 3", path=log)
            try:
                nnunet_commands.run(command[0], command[1:], homes, self.seen)
            except nnunet_commands.Refused as error:
                log.write_text(str(error))
                raise DataError(f"{command[0]} failed with exit status 1: {error}", path=log) from error

        monkeypatch.setattr(nnunet_judge, "_run", run)

    @property
    def calls(self) -> list[list[Any]]:
        return _lines(self.log)

    @property
    def given(self) -> list[dict[str, Any]]:
        """The training cases of each planning: {folder, cases: {name: {shape, spacing, affine}}}."""
        return _lines(self.seen)


def _lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
