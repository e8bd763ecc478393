"""nnU-Net's commands, with an executable that stands in for them; and, where it is installed, nnU-Net itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.intensity import IntensityMapping
from anatogen.data.placement import Placement
from anatogen.errors import DataError, SettingsError
from anatogen.io.nnunet_raw import RawCase, raw_case, read_label_map, write_raw
from anatogen.judges.nnunet import (
    CONFIGURATIONS,
    nnunet_available,
    require_halvings,
    train_with_nnunet,
    trainer_of,
)
from anatogen.volume import Volume
from conftest import write_nnunet
from nnunet_stand_in import COMMANDS, Installed

REAL_THING = find_spec("nnunetv2") is not None


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path / "bin", monkeypatch)


def test_without_nnunet_the_hint_is_named(nnunet: Path, tmp_path: Path) -> None:
    if nnunet_available():
        pytest.skip("nnU-Net is installed")
    with pytest.raises(
        SettingsError, match=r"nnU-Net is not installed. Install it with: pip install 'anatogen\[nnunet\]'"
    ):
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
        assert homes["nnUNet_n_proc_DA"] == homes["nnUNet_def_n_proc"] == "2"
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
    with pytest.raises(DataError, match="differs from that of .* in labels"):
        train_with_nnunet([nnunet, other], images, work)
    with pytest.raises(DataError, match="not an nnU-Net raw data set"):
        train_with_nnunet([tmp_path], images, work)
    with pytest.raises(DataError, match="holds no image named CASE_0000.nii.gz"):
        train_with_nnunet([nnunet], tmp_path, work)
    with pytest.raises(SettingsError, match="no data set"):
        train_with_nnunet([], images, work)
    work.mkdir()
    with pytest.raises(SettingsError, match="already exists"):
        train_with_nnunet([nnunet], images, work)
    assert not installed.calls


def test_only_trainers_that_there_are() -> None:
    assert [trainer_of(epochs) for epochs in (1, 50, 1000)] == [
        "nnUNetTrainer_1epoch",
        "nnUNetTrainer_50epochs",
        "nnUNetTrainer",
    ]
    for epochs, hint in (
        (40, "20 or 50"),
        (0, "1 or 5"),
        (-3, "1 or 5"),
        (10**6, "4000 or 8000"),
        (700, "500 or 750"),
    ):
        with pytest.raises(SettingsError, match=f"no trainer of {epochs} epochs. Choose {hint}"):
            trainer_of(epochs)


def test_a_gpu_by_its_number(
    installed: Installed, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net uses the first visible GPU; the user's choice of GPUs and processes is kept."""
    seen: list[dict[str, str]] = []
    monkeypatch.setattr("anatogen.judges.nnunet._run", lambda command, environment, log: seen.append(environment))
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    for visible, wanted in (("", "1"), ("4,6", "6")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(DataError, match="produced no segmentation"):
            train_with_nnunet([nnunet], nnunet / "imagesTr", tmp_path / f"work{wanted}", device="cuda:1")
        assert seen[-1]["CUDA_VISIBLE_DEVICES"] == wanted and seen[-1]["nnUNet_n_proc_DA"] == "7"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_us(installed: Installed, nnunet: Path, tmp_path: Path, sent: signal.Signals) -> None:
    installed.write(hanging="nnUNetv2_train")
    script = (
        "import sys; from pathlib import Path; from anatogen.cli.evaluate import _end_as_by_ctrl_c as begin; "
        "from anatogen.judges.nnunet import train_with_nnunet as train; begin(); "
        "raw, work = map(Path, sys.argv[1:]); train([raw], raw / 'imagesTr', work)"
    )
    path = os.pathsep.join([str(installed.folder), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", script, nnunet, tmp_path / "work"],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    workers = installed.folder / "workers"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (workers.is_file() and workers.read_text().endswith("\n")):
        time.sleep(0.1)
    found = [int(number) for number in workers.read_text().split()]
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and b"KeyboardInterrupt" in err
    assert len(found) == 2 and not any(_runs(number) for number in found)


def _runs(number: int) -> bool:
    """Whether a process exists and is not a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


TRAINER = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_of_a_test(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 60, 1
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not REAL_THING, reason="nnU-Net is not installed")
@pytest.mark.parametrize("size", [(40, 32), (12, 40, 32)], ids=["slices", "volumes"])
def test_nnunet_itself_finds_what_it_was_shown(
    size: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asymmetric images with a bar and a dot, in the place of an oblique scan: predictions match the label maps."""
    rng = np.random.default_rng(0)
    truth = np.zeros((8, *size), dtype=np.int64)
    axis = "axial" if len(size) == 2 else "volume"
    turned = np.array([[-0.8, -0.6, 0, 5], [0.6, -0.8, 0, -7], [0, 0, -2.5, 9], [0, 0, 0, 1]])
    place = Placement.at(turned.tolist(), (32, 40, 12), (axis, size, "crop"), 0, [IntensityMapping(1, 0, 0, 500)], "MR")
    cases = []
    for k, labels in enumerate(truth):
        y, x = rng.integers(2, 8, 2)
        labels[..., y : y + 6, x : x + 16] = 1
        labels[..., y + 14 : y + 22, x + 2 : x + 10] = 2
        image = (labels * 0.8 - 0.9 + rng.normal(0, 0.03, size)).clip(-1, 1).astype(np.float32)[None]
        of_scan = place.image(image), place.labels(labels), place.cut.sliced
        cases += [raw_case(f"case_{k}", *of_scan), raw_case(f"test_{k}", *of_scan, labelled=False)]
    write_raw(tmp_path / "raw", cases, ["MR"], ["bar", "dot"])
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "nnUNetTrainer_of_a_test.py").write_text(TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    found = train_with_nnunet(
        [tmp_path / "raw"],
        tmp_path / "raw" / "imagesTs",
        tmp_path / "work",
        configuration=CONFIGURATIONS[len(size)],
        trainer="nnUNetTrainer_of_a_test",
        processes=1,
    )
    predicted = np.stack([read_label_map(found / f"test_{k}.nii.gz", len(size)) for k in range(len(truth))])
    stored = nibabel.load(found / "test_0.nii.gz")
    assert stored.shape == (32, 40, *((1,) if axis == "axial" else (12,))) and predicted.shape == truth.shape
    assert np.allclose(stored.header.get_zooms(), (1, 1, 2.5)) and np.allclose(stored.affine, turned, atol=1e-4)
    for c in (1, 2):
        both = ((predicted == c) & (truth == c)).sum()
        assert 2 * both / ((predicted == c).sum() + (truth == c).sum()) > 0.7


def test_what_nnunet_plans_nothing_for(installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net skips 3d_fullres for volumes of one slice, and plans a network without output for tiny ones."""
    installed.run_in_this_process(monkeypatch)

    def planned(name: str, configuration: str, grid: tuple[int, int, int], empty_above: int = 99) -> Path:
        affine, array = np.diag([-1.0, -1.0, -1.0, 1.0]), np.full(grid, 7, np.int16)
        array[..., empty_above:] = 0
        raw, labels = tmp_path / name, Volume((array > 0).astype(np.uint8), affine)
        write_raw(raw, [RawCase("a", [Volume(array, affine)], labels)], ["MR"], ["x"])
        return train_with_nnunet([raw], raw / "imagesTr", raw / "work", configuration=configuration)

    assert len(list(planned("fine", "3d_fullres", (9, 8, 8)).glob("a*.nii.gz"))) == 1
    with pytest.raises(DataError, match="no 3d_fullres for these images: .* median size is 1 x 16 x 16 voxels. Prep"):
        planned("flat", "3d_fullres", (16, 16, 8), empty_above=1)
    assert len(list(planned("slice", "2d", (16, 16, 1)).glob("a*.nii.gz"))) == 1
    with pytest.raises(DataError, match="Plans.json: images of 7 x 7 x 7 voxels of 1 x 1 x 1 mm are too small for nnU"):
        planned("tiny", "3d_fullres", (7, 7, 7))
    assert [name for name, *_ in installed.calls].count("nnUNetv2_train") == 2


@pytest.mark.parametrize(
    ("size", "spacing", "fine"),
    [
        ((8, 8, 8), (1, 1, 1), True),  # each of these was planned by nnU-Net 2.8.1
        ((8, 8, 8), (4, 1, 1), True),
        ((8, 8, 8), (4, 1, 4), False),
        ((7, 7, 7), (1, 1, 1), False),
        ((4, 12, 12), (1, 1, 1), True),
        ((2, 32, 32), (5, 1, 1), True),
        ((16, 8, 9), (3, 2.5, 1), False),
        ((8, 9), (2.5, 1), False),
        ((8, 8), (1, 1), True),
    ],
)
def test_an_axis_has_to_be_halved(size: tuple[int, ...], spacing: tuple[float, ...], fine: bool) -> None:
    if fine:
        require_halvings(size, spacing)
        return
    with pytest.raises(DataError, match="too small for nnU-Net, whose network could halve no axis"):
        require_halvings(size, spacing)
