"""nnU-Net v2 (Isensee et al. 2021) as the segmenter to train and test, through its own commands.

Commands and options as in nnU-Net's documentation (documentation/how-to/ and `nnUNetv2_... -h`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.files import writing

EPOCHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 1000, 2000, 4000, 8000)  # nnU-Net has trainers for these
STEPS_AN_EPOCH = 250
CONFIGURATIONS = {2: "2d", 3: "3d_fullres"}  # by the dimensions of the images
_NAME, _ID = "Dataset001_anatogen", "1"  # of the work folder's own nnUNet_raw
_READER = "overwrite_image_reader_writer"
_LEAST_HALVED, _LEAST_HALVED_ALONE = 8, 12  # voxels; nnU-Net keeps 4 in the deepest level
_OTHERWISE = "Prepare volumes that scans fill better (--size, --fit), or slices (--dim 2), or leave out --nnunet"


def nnunet_available() -> bool:
    """Whether nnU-Net v2 is installed."""
    return importlib.util.find_spec("nnunetv2") is not None


def require_nnunet() -> None:
    """Check that nnU-Net v2 is installed.

    Raises:
        SettingsError: It is not.
    """
    if not nnunet_available():
        raise SettingsError("nnU-Net is not installed", hint="Install it with: pip install 'anatogen[nnunet]'")


def nnunet_version() -> str:
    """The version of nnU-Net, "" if unknown."""
    try:
        return metadata.version("nnunetv2")
    except metadata.PackageNotFoundError:
        return ""


def trainer_of(epochs: int) -> str:
    """The name of nnU-Net's trainer with this number of epochs.

    Raises:
        SettingsError: There is none; the hint names the nearest.
    """
    if epochs not in EPOCHS:
        near = sorted(sorted(EPOCHS, key=lambda e: abs(e - epochs))[:2])
        raise SettingsError(f"nnU-Net has no trainer of {epochs} epochs", hint=f"Choose {' or '.join(map(str, near))}")
    if epochs == 1000:
        return "nnUNetTrainer"
    return f"nnUNetTrainer_{epochs}epoch{'s' if epochs > 1 else ''}"


def require_halvings(size: Sequence[int], spacing_mm: Sequence[float], *, path: Path | None = None) -> None:
    """Check that nnU-Net's planner finds an axis to halve: it plans a network that halves none, but that has no output.

    It halves axes of at least 8 voxels whose spacing is below twice the smallest spacing of such axes. If this is one
    axis only, it needs 12 voxels.

    Args:
        size: The voxels of an image along each axis.
        spacing_mm: Their distance along each axis, in the same order.
        path: Where the images are.

    Raises:
        DataError: It finds none.
    """
    axes = [(n, mm) for n, mm in zip(size, spacing_mm, strict=True) if n >= _LEAST_HALVED]
    halved = [n for n, mm in axes if mm < 2 * min(other for _, other in axes)]
    if not halved or (len(halved) == 1 and halved[0] < _LEAST_HALVED_ALONE):
        raise _too_small(size, spacing_mm, path)


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
    """Train nnU-Net on all cases of several raw data sets (for instance real and synthetic), and segment `images`.

    Args:
        folders: nnU-Net raw data sets of equal channels, classes and file ending, as `export_nnunet` writes them.
        images: A folder of images with nnU-Net's names (CASE_0000.nii.gz).
        work: A new folder for everything that nnU-Net writes.
        configuration: nnU-Net's configuration, as in CONFIGURATIONS.
        trainer: nnU-Net's trainer, which sets the length: nnUNetTrainer (1000 epochs), nnUNetTrainer_50epochs, ...
        device: cpu, cuda, cuda:1 or mps.
        processes: Worker processes; nnU-Net's own variables (nnUNet_n_proc_DA, nnUNet_def_n_proc) take precedence.
        progress: Called with each command before it runs.

    Returns:
        The folder of the predicted label maps, CASE.nii.gz.

    Raises:
        SettingsError: nnU-Net is not installed, or `work` already exists.
        DataError: The data sets do not match, nnU-Net plans no such configuration for their images, or a command fails
            (its output is in `work`/nnunet.log).
        OutputError: `work` cannot be written.
    """
    require_nnunet()
    if work.exists():
        raise SettingsError("already exists", path=work, hint="Choose another folder or remove it")
    description = _joint_description(folders)
    if not any(images.glob(f"*_0000{description['file_ending']}")):
        raise DataError(
            f"holds no image named CASE_0000{description['file_ending']}",
            path=images,
            hint="Name images like those of nnU-Net's data sets",
        )
    homes = {f"nnUNet_{name}": work.resolve() / name for name in ("raw", "preprocessed", "results")}
    predictions = work / "predictions"
    try:
        for home in homes.values():
            home.mkdir(parents=True)
        _join(folders, homes["nnUNet_raw"] / _NAME, description)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=work) from error
    kind, _, number = device.partition(":")
    count, dataset = str(processes), ["-d", _ID, "-c", configuration]
    how = ["-tr", trainer, "-device", kind]
    many = ["-npfp", count, "-np", count]
    few = ["-npp", count, "-nps", count, "--disable_progress_bar"]
    commands = [
        ["nnUNetv2_plan_and_preprocess", *dataset, *many, "--verify_dataset_integrity"],
        ["nnUNetv2_train", _ID, configuration, "all", *how],
        ["nnUNetv2_predict", "-i", str(images), "-o", str(predictions), *dataset, "-f", "all", *how, *few],
    ]
    environment = {"nnUNet_n_proc_DA": count, "nnUNet_def_n_proc": count, **os.environ}
    environment |= {name: str(home) for name, home in homes.items()}
    if number:  # nnU-Net takes no GPU index, it uses the first visible one
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(number)] if visible else number
    for command in commands:
        if progress is not None:
            progress(" ".join(command))
        _run(command, environment, work / "nnunet.log")
        if command is commands[0]:
            _require_planned(homes["nnUNet_preprocessed"] / _NAME / "nnUNetPlans.json", configuration)
    if not any(predictions.glob(f"*{description['file_ending']}")):
        raise DataError("nnU-Net produced no segmentation", path=images, hint=f"See {work / 'nnunet.log'}")
    return predictions


def _require_planned(file: Path, configuration: str) -> None:
    """Check that the plans in `file` have `configuration`, with a network that can be trained.

    nnU-Net itself skips a configuration that it did not plan, and plans networks that have no output. Plans that cannot
    be read are left to its own next command.

    Raises:
        DataError: They have no such configuration or network.
    """
    try:
        plans = json.loads(file.read_text(encoding="utf-8"))
        planned: dict[str, Any] | None = plans["configurations"].get(configuration)
    except (OSError, ValueError, KeyError, AttributeError):
        return
    if planned is None:
        median = " x ".join(map(str, plans.get("original_median_shape_after_transp", ())))
        problem = f"nnU-Net plans no {configuration} for these images: without borders that are zero, "
        raise DataError(f"{problem}their median size is {median} voxels", path=file, hint=_OTHERWISE)
    if planned.get("architecture", {}).get("arch_kwargs", {}).get("n_stages") == 1:
        raise _too_small(planned["patch_size"], planned["spacing"], file)


def _too_small(size: Sequence[int], spacing_mm: Sequence[float], path: Path | None) -> DataError:
    shape, spacing = " x ".join(map(str, size)), " x ".join(f"{mm:.3g}" for mm in spacing_mm)
    problem = f"images of {shape} voxels of {spacing} mm are too small for nnU-Net, whose network could halve no axis"
    return DataError(problem, path=path, hint=_OTHERWISE)


def _joint_description(folders: Sequence[Path]) -> dict[str, object]:
    """The dataset.json of all `folders` together. A reader that one of them needs is used for all.

    Raises:
        DataError: One is missing, damaged or does not match the first.
    """
    if not folders:
        raise SettingsError("no data set to train nnU-Net on")
    found: list[dict[str, object]] = []
    readers: dict[str, str] = {}
    for folder in folders:
        try:
            text = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            found.append({key: text[key] for key in ("channel_names", "labels", "file_ending")})
            readers |= {_READER: text[_READER]} if _READER in text else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError("is not an nnU-Net raw data set", path=folder, hint="Export it again") from error
        for key in found[0]:
            if found[-1][key] != found[0][key]:
                raise DataError(f"its dataset.json differs from that of {folders[0]} in {key}", path=folder)
    count = sum(1 for folder in folders for _ in (folder / "labelsTr").glob(f"*{found[0]['file_ending']}"))
    return {**found[0], "numTraining": count, **readers}


def _join(folders: Sequence[Path], out: Path, description: dict[str, object]) -> None:
    """Copy the cases of `folders` into one data set; the number of the folder keeps equal names apart."""
    with writing(out) as partial:
        for part in ("imagesTr", "labelsTr"):
            (partial / part).mkdir(parents=True)
            for number, folder in enumerate(folders):
                for file in sorted((folder / part).glob(f"*{description['file_ending']}")):
                    shutil.copyfile(file, partial / part / f"{number}_{file.name}")
        (partial / "dataset.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")


def _run(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Run a command of nnU-Net from PATH or this Python's folder, and append its output to `log`."""
    path = os.pathsep.join([environment.get("PATH", ""), str(Path(sys.executable).parent)])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise SettingsError(
            f"{command[0]} was not found", hint="Install nnU-Net in this environment: pip install 'anatogen[nnunet]'"
        )
    with log.open("ab") as file:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a process group of its own, so that its workers can be terminated with it
        )
        try:
            status = process.wait()
        finally:
            _end(process)
    if status:
        raise DataError(f"{command[0]} failed with exit status {status}", path=log, hint="Its output says why")


def _end(process: subprocess.Popen[bytes], patience_s: float = 10.0) -> None:
    """Terminate `process` and all processes that it started."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    try:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(patience_s)
            until = time.monotonic() + patience_s
            while time.monotonic() < until:  # the last of them frees shared memory
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
