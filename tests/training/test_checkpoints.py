"""Checkpoints are whole or do not count, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anatogen.errors import ModelError, OutputError, SettingsError
from anatogen.training.checkpoints import Checkpoints, from_json, to_json
from anatogen.training.state import OptimizerState


class Anything:
    """A part that holds one value."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None:
        self.value = state["value"]


class Killed(BaseException):
    pass


def saved(folder: Path, *steps: int, **more: Any) -> Checkpoints:
    part = Anything()
    checkpoints = Checkpoints(folder, {"part": part}, **more)
    for step in steps:
        part.value = {"step": step, "weights": torch.full((4,), float(step))}
        checkpoints.save(step)
    return checkpoints


def restored(folder: Path, **more: Any) -> tuple[int | None, Any]:
    part = Anything()
    step = Checkpoints(folder, {"part": part}, **more).restore()
    return step, part.value


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {
        "none": None, "flag": True, "count": 3, "third": 1 / 3, "word": "Größe", "list": [1, [2.5]], "pair": (1, "b"),
        "by number": {0: torch.arange(3), 7: {"step": torch.tensor(4.0)}}, "$odd": 1,
        "half": torch.ones(2, dtype=torch.bfloat16), "bits": torch.tensor([True, False]), "empty": torch.zeros(0, 3),
        "array": np.arange(4, dtype=np.int16),
    }  # fmt: skip
    Checkpoints(tmp_path, {"part": Anything(value)}).save(1)
    _, back = restored(tmp_path)
    assert back.keys() == value.keys()
    tensors = ("half", "bits", "empty")
    assert all(torch.equal(back[k], value[k]) and back[k].dtype == value[k].dtype for k in tensors)  # type: ignore[call-overload]
    assert np.array_equal(back["array"], np.arange(4)) and back["array"].dtype == np.int16
    assert torch.equal(back["by number"][0], torch.arange(3)) and back["by number"][7]["step"] == 4
    plain = ("none", "flag", "count", "third", "word", "list", "pair", "$odd")
    assert all(back[k] == value[k] and type(back[k]) is type(value[k]) for k in plain)


def test_a_numpy_scalar_is_a_number_and_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    """MONAI #8355, nnU-Net #2681: a NumPy scalar in a checkpoint makes it unreadable without pickle."""
    Checkpoints(tmp_path, {"part": Anything({"best": np.float64(0.5), "at": np.int64(3)})}).save(1)
    assert restored(tmp_path)[1] == {"best": 0.5, "at": 3} and type(restored(tmp_path)[1]["best"]) is float
    with pytest.raises(TypeError, match="part/value/what: a set cannot be saved"):
        to_json({"value": {"what": {1, 2}}}, "part", {})
    assert from_json(to_json((1, 2), "p", {}), {}) == (1, 2)


def test_one_memory_under_two_names(tmp_path: Path) -> None:
    tensor = torch.arange(3.0)
    Checkpoints(tmp_path, {"a": Anything(tensor), "b": Anything(tensor)}).save(1)
    parts = {"a": Anything(), "b": Anything()}
    Checkpoints(tmp_path, parts).restore()
    assert torch.equal(parts["a"].value, tensor) and torch.equal(parts["b"].value, tensor)


def test_no_code_is_in_a_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for file in tmp_path.iterdir():
        head = file.read_bytes()[:2]
        assert head not in (b"\x80\x02", b"PK") and file.suffix in (".json", ".safetensors")


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20, 30, 40)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        f"{step:09d}.{kind}" for step in (30, 40) for kind in ("json", "safetensors")
    ]
    assert restored(tmp_path)[0] == 40
    saved(tmp_path, 50, keep=1)
    assert len(list(tmp_path.iterdir())) == 2
    checkpoints.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    "damage", ["torn tensors", "flipped bit", "torn json", "changed json", "no tensors", "empty json"]
)
def test_a_damaged_one_is_passed_over_with_a_word(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 10, 20)
    tensors, document = tmp_path / "000000020.safetensors", tmp_path / "000000020.json"
    content = bytearray(tensors.read_bytes())
    if damage == "torn tensors":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flipped bit":
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "torn json":
        document.write_text(document.read_text()[:40])
    elif damage == "changed json":
        document.write_text(document.read_text().replace('"step": 20', '"step": 21'))
    elif damage == "no tensors":
        tensors.unlink()
    else:
        document.write_text("")
    step, value = restored(tmp_path)
    assert step == 10 and value["weights"][0] == 10
    assert "000000020.json: is damaged" in caplog.text and "using the previous checkpoint" in caplog.text
    for file in tmp_path.glob("*.json"):
        file.write_text("{")
    with pytest.raises(ModelError, match="no checkpoint is intact"):
        restored(tmp_path)


def test_none_at_all(tmp_path: Path) -> None:
    assert restored(tmp_path / "nowhere") == (None, None) and Checkpoints(tmp_path, {}).last() is None


def test_a_newer_format_and_another_recipe_are_refused_in_one_line(tmp_path: Path) -> None:
    saved(tmp_path, 10, recipe={"training data": "a", "settings": "b"})
    with pytest.raises(SettingsError, match="was started with different training data"):
        restored(tmp_path, recipe={"training data": "c", "settings": "b"})
    file = tmp_path / "000000010.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    with pytest.raises(ModelError, match=r"newer version \(format 2, this one reads 1\)\. Update anatogen\.$"):
        restored(tmp_path, recipe={"training data": "a", "settings": "b"})


def operations(folder: Path) -> list[str]:
    """The file operations of a save that also removes an old one."""
    done: list[str] = []
    saved(folder, 10, 20)
    saved(folder, 30, before=done.append)
    return done


def test_killed_between_any_two_file_operations_of_a_save(tmp_path: Path) -> None:
    names = operations(tmp_path / "counted")
    assert len(names) >= 10
    for number in range(len(names)):
        folder, calls = tmp_path / str(number), [0]

        def kill(operation: str, calls: list[int] = calls, number: int = number) -> None:
            if calls[0] == number:
                raise Killed
            calls[0] += 1

        saved(folder, 10, 20)
        with pytest.raises(Killed):
            saved(folder, 30, before=kill)
        committed = number > names.index("rename json")
        assert restored(folder)[0] == (30 if committed else 20), names[number]
        saved(folder, 40)  # and the next save leaves no litter
        assert len([f for f in folder.iterdir() if f.suffix == ".json"]) == len(list(folder.iterdir())) / 2 == 2


def test_the_same_step_written_again(tmp_path: Path) -> None:
    """After a return to a checkpoint it is overwritten; a kill in the middle leaves the previous one."""
    saved(tmp_path, 10, 20)

    def kill(operation: str) -> None:
        if operation == "write json":
            raise Killed

    with pytest.raises(Killed):
        again = Anything({"weights": torch.zeros(4)})
        Checkpoints(tmp_path, {"part": again}, before=kill).save(20)
    assert restored(tmp_path)[0] == 10


@pytest.mark.slow
def test_a_kill_of_the_process_while_it_writes(tmp_path: Path) -> None:
    """SIGKILL at every operation, which no `finally` can clean up after."""
    script = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_checkpoints import saved, restored
root = Path(sys.argv[1])
for number in range(int(sys.argv[3])):
    folder, calls = root / str(number), [0]
    saved(folder, 10, 20)
    child = os.fork()
    if not child:
        def kill(operation):
            if calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            calls[0] += 1
        saved(folder, 30, before=kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    print(restored(folder)[0])
    saved(folder, 40)
"""
    names = operations(tmp_path / "counted")
    arguments = [sys.executable, "-c", script, tmp_path, Path(__file__).parent, len(names)]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    committed = names.index("rename json")
    assert done.stdout.split() == ["20"] * (committed + 1) + ["30"] * (len(names) - committed - 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            saved(tmp_path, 1)
    finally:
        tmp_path.chmod(0o700)


def test_an_optimizer_in_another_memory_format_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Channels-last weights need channels-last moments: a fused optimizer pairs them by memory position."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Conv2d(5, 7, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module, torch.optim.AdamW(module.parameters(), lr=0.01, fused=True)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        x = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()

    first, of_first = made()
    for number in range(3):
        step(first, of_first, number)
    Checkpoints(tmp_path, {"m": first, "o": OptimizerState(of_first)}).save(3)
    second, of_second = made()
    Checkpoints(tmp_path, {"m": second, "o": OptimizerState(of_second)}).restore()
    for number in range(3, 6):
        step(first, of_first, number)
        step(second, of_second, number)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
