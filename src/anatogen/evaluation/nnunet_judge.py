"""nnU-Net v2 as the segmenter that is trained and tested, where it is installed (Isensee et al. 2021): by its own commands.

Commands and options as in nnU-Net's documentation (documentation/how-to/ and `nnUNetv2_... -h`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.runtime import writing

_NAME, _ID = "Dataset001_anatogen", "1"  # of the work folder's own nnUNet_raw


def nnunet_available() -> bool:
    """Whether nnU-Net v2 is installed."""
    return importlib.util.find_spec("nnunetv2") is not None


def train_with_nnunet(
    folders: Sequence[Path],
    images: Path,
    work: Path,
    *,
    configuration: str = "2d",
    trainer: str = "nnUNetTrainer_50epochs",
    device: str = "cpu",
    processes: int = 2,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train nnU-Net on all cases of the raw data sets `folders` (for instance real and synthetic), and segment `images`.

    folders: nnU-Net raw data sets of equal channels, classes and file ending, as `export_nnunet` writes them. images: a
    folder of images named as nnU-Net wants them (CASE_0000.nii.gz). work: a new folder, for all that nnU-Net writes.
    trainer: also says for how long: nnUNetTrainer (1000 epochs), nnUNetTrainer_5epochs, _50epochs, _250epochs, ...
    device: cpu, cuda or mps. progress: called with each command before it runs.
    Returns the folder of the predicted label maps, CASE.nii.gz. Raises SettingsError where nnU-Net is not installed or `work`
    is there already, DataError where the data sets do not fit one another or a command fails (its output is in
    `work`/nnunet.log), OutputError where `work` cannot be written.
    """
    if not nnunet_available():
        raise SettingsError("nnU-Net is not installed", remedy="Install it with: pip install nnunetv2")
    if work.exists():
        raise SettingsError("is there already", path=work, remedy="Choose another folder or remove it")
    description = _joint_description(folders)
    if not any(images.glob(f"*_0000{description['file_ending']}")):
        raise DataError(
            f"holds no image named CASE_0000{description['file_ending']}",
            path=images,
            remedy="Name images as nnU-Net's data sets do",
        )
    homes = {f"nnUNet_{name}": work.resolve() / name for name in ("raw", "preprocessed", "results")}
    predictions = work / "predictions"
    try:
        for home in homes.values():
            home.mkdir(parents=True)
        _join(folders, homes["nnUNet_raw"] / _NAME, description)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=work) from error
    count, dataset = str(processes), ["-d", _ID, "-c", configuration]
    how = ["-tr", trainer, "-device", device]
    many = ["-npfp", count, "-np", count]
    few = ["-npp", count, "-nps", count, "--disable_progress_bar"]
    commands = [
        ["nnUNetv2_plan_and_preprocess", *dataset, *many, "--verify_dataset_integrity"],
        ["nnUNetv2_train", _ID, configuration, "all", *how],
        ["nnUNetv2_predict", "-i", str(images), "-o", str(predictions), *dataset, "-f", "all", *how, *few],
    ]
    environment = {**os.environ, **{name: str(home) for name, home in homes.items()}, "nnUNet_n_proc_DA": count}
    for command in commands:
        if progress is not None:
            progress(" ".join(command))
        _run(command, environment, work / "nnunet.log")
    if not any(predictions.glob(f"*{description['file_ending']}")):
        raise DataError("nnU-Net has segmented nothing", path=images, remedy=f"See {work / 'nnunet.log'}")
    return predictions


def _joint_description(folders: Sequence[Path]) -> dict[str, object]:
    """dataset.json of all `folders` together. Raises DataError where one is missing, damaged or does not fit the first."""
    if not folders:
        raise SettingsError("no data set to train nnU-Net on")
    found = []
    for folder in folders:
        try:
            text = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            found.append({key: text[key] for key in ("channel_names", "labels", "file_ending")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError("is not an nnU-Net raw data set", path=folder, remedy="Export it again") from error
        for key in found[0]:
            if found[-1][key] != found[0][key]:
                raise DataError(f"has another {key} in its dataset.json than {folders[0]}", path=folder)
    count = sum(1 for folder in folders for _ in (folder / "labelsTr").glob("*" + found[0]["file_ending"]))
    return {**found[0], "numTraining": count}


def _join(folders: Sequence[Path], out: Path, description: dict[str, object]) -> None:
    """Copy the cases of `folders` to one data set; the number of the folder keeps equal names apart."""
    with writing(out) as partial:
        for part in ("imagesTr", "labelsTr"):
            (partial / part).mkdir(parents=True)
            for number, folder in enumerate(folders):
                for file in sorted((folder / part).glob(f"*{description['file_ending']}")):
                    shutil.copyfile(file, partial / part / f"{number}_{file.name}")
        (partial / "dataset.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")


def _run(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Run one of nnU-Net's commands, which lie on PATH or beside this Python, with its output added to `log`."""
    path = os.pathsep.join([environment.get("PATH", ""), str(Path(sys.executable).parent)])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise SettingsError(
            f"{command[0]} was not found", remedy="Install nnU-Net in this environment: pip install nnunetv2"
        )
    with log.open("ab") as file:
        status = subprocess.run(
            [program, *command[1:]], env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        ).returncode
    if status:
        raise DataError(f"{command[0]} failed with exit status {status}", path=log, remedy="Its output says why")
