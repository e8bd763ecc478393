"""nnU-Net itself is not installed here: an executable stands in for its commands and writes down how it was called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from anatogen.errors import DataError, SettingsError
from anatogen.evaluation.nnunet_judge import nnunet_available, train_with_nnunet
from conftest import write_nnunet

STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
homes = {{k: v for k, v in os.environ.items() if k.startswith("nnUNet_")}}
with open({log!r}, "a") as log:
    log.write(json.dumps([name, arguments, homes]) + "\\n")
print("this is", name)
if name == {failing!r}:
    sys.exit(3)
if name == "nnUNetv2_predict":
    option = dict(zip(arguments, arguments[1:]))
    out = Path(option["-o"])
    out.mkdir(parents=True)
    for image in Path(option["-i"]).glob("*_0000.nii.gz"):
        (out / image.name.replace("_0000", "")).write_bytes(b"label map")
"""
COMMANDS = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")


class Installed:
    """A stand-in nnU-Net on PATH, and what it was called with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder, folder / "calls.jsonl"
        (folder / "nnunetv2").mkdir(parents=True)
        (folder / "nnunetv2" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        self.write(failing="")

    def write(self, failing: str) -> None:
        for name in COMMANDS:
            text = STAND_IN.format(python=sys.executable, log=str(self.log), failing=failing)
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    @property
    def calls(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path / "bin", monkeypatch)


def test_without_nnunet_the_remedy_is_named(nnunet: Path, tmp_path: Path) -> None:
    if nnunet_available():
        pytest.skip("nnU-Net is installed")
    with pytest.raises(SettingsError, match=r"nnU-Net is not installed. Install it with: pip install nnunetv2"):
        train_with_nnunet([nnunet], nnunet / "imagesTr", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_the_three_commands_on_joined_data_sets(installed: Installed, nnunet: Path, tmp_path: Path) -> None:
    assert nnunet_available()
    other = write_nnunet(tmp_path / "synthetic", cases=3)
    said: list[str] = []
    work = tmp_path / "work"
    found = train_with_nnunet(
        [nnunet, other], nnunet / "imagesTr", work, trainer="nnUNetTrainer_5epochs", progress=said.append
    )
    assert found == work / "predictions" and len(list(found.glob("ball_*.nii.gz"))) == 8
    assert [name for name, *_ in installed.calls] == list(COMMANDS)
    plan, train, predict = (arguments for _, arguments, _ in installed.calls)
    assert plan == ["-d", "1", "-c", "2d", "-npfp", "2", "-np", "2", "--verify_dataset_integrity"]
    assert train == ["1", "2d", "all", "-tr", "nnUNetTrainer_5epochs", "-device", "cpu"]
    wanted = f"-i {nnunet / 'imagesTr'} -o {found} -d 1 -c 2d -f all -tr nnUNetTrainer_5epochs -device cpu"
    assert predict == f"{wanted} -npp 2 -nps 2 --disable_progress_bar".split()
    for _, _, homes in installed.calls:
        for name in ("raw", "preprocessed", "results"):
            assert Path(homes[f"nnUNet_{name}"]) == work / name and (work / name).is_dir()
    assert [line.split()[0] for line in said] == list(COMMANDS)
    assert (work / "nnunet.log").read_text().splitlines() == [f"this is {name}" for name in COMMANDS]

    joined = work / "raw" / "Dataset001_anatogen"
    description = json.loads((joined / "dataset.json").read_text())
    assert description["numTraining"] == 11 and description["labels"] == {"background": 0, "ball": 1, "core": 2}
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        cases = {p.name.removesuffix(ending) for p in (joined / part).iterdir()}
        assert cases == {f"0_ball_{k:03d}" for k in range(8)} | {f"1_ball_{k:03d}" for k in range(3)}
    copy, original = joined / "labelsTr" / "1_ball_002.nii.gz", other / "labelsTr" / "ball_002.nii.gz"
    assert copy.read_bytes() == original.read_bytes()


def test_a_failing_command_ends_it_and_names_the_log(installed: Installed, nnunet: Path, tmp_path: Path) -> None:
    installed.write(failing="nnUNetv2_train")
    with pytest.raises(DataError, match=r"nnunet.log: nnUNetv2_train failed with exit status 3"):
        train_with_nnunet([nnunet], nnunet / "imagesTr", tmp_path / "work")
    assert [name for name, *_ in installed.calls] == list(COMMANDS[:2])


def test_bad_folders_are_refused_before_anything_runs(installed: Installed, nnunet: Path, tmp_path: Path) -> None:
    images, work = nnunet / "imagesTr", tmp_path / "work"
    other = write_nnunet(tmp_path / "other", cases=1, labels={"background": 0, "liver": 1})
    with pytest.raises(DataError, match="another labels"):
        train_with_nnunet([nnunet, other], images, work)
    with pytest.raises(DataError, match="not an nnU-Net raw data set"):
        train_with_nnunet([tmp_path], images, work)
    with pytest.raises(DataError, match="holds no image named CASE_0000.nii.gz"):
        train_with_nnunet([nnunet], tmp_path, work)
    with pytest.raises(SettingsError, match="no data set"):
        train_with_nnunet([], images, work)
    work.mkdir()
    with pytest.raises(SettingsError, match="is there already"):
        train_with_nnunet([nnunet], images, work)
    assert not installed.calls
