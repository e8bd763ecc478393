"""Small data that the tests make themselves."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.training.config import build_settings
from anatogen.training.train import train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def write_case(folder: Path, case: str, seed: int, shape: tuple[int, int, int] = (20, 24, 12)) -> None:
    """One case: a ball (class 1) with a core (class 2), bright and brighter, in noise."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-1.5, 1.5, 3)
    radius = rng.uniform(5, 7)
    distance = np.linalg.norm(np.indices(shape) - centre[:, None, None, None], axis=0)
    labels = (distance < radius).astype(np.int16) + (distance < radius / 2)
    image = (labels * 300 + rng.normal(100, 20, shape)).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), affine), folder / "labelsTr" / f"{case}.nii.gz")


def write_nnunet(folder: Path, cases: int = 8, **more: object) -> Path:
    """An nnU-Net raw data set of balls."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for number in range(cases):
        write_case(folder, f"ball_{number:03d}", number)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": 1, "core": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that at the end no process waits for another's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Everything is imported: leave a million objects out of every later search for garbage."""
    gc.freeze()


def pseudonym(dataset: PreparedDataset, case: str) -> str:
    """What the case called `case` at its source is called in a prepared data set."""
    [found] = [name for name, line in dataset.names.items() if line.case == case]
    return found


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    return write_nnunet(tmp_path / "Dataset001_Balls")


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 32 x 32 axial slices; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    source = open_source(str(write_nnunet(folder / "raw")))
    prepare(source, folder / "data", PrepareSettings(size=(32, 32), axis="axial"))
    return folder / "data"


@pytest.fixture
def dataset(dataset_folder: Path) -> PreparedDataset:
    return PreparedDataset.open(dataset_folder)


SMALL = ("network.width=8", "training.batch_size=4", "training.steps=6", "training.warmup_steps=2", "sampling.steps=3")


@pytest.fixture(scope="session")
def run_folder(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps; not to be changed."""
    return train(dataset_folder, tmp_path_factory.mktemp("runs") / "run", build_settings(values=SMALL), device="cpu")


@pytest.fixture(scope="session")
def longer_run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt the balls, in a few seconds; not to be changed."""
    settings = build_settings(
        values=["network.width=16", "training.steps=250", "training.batch_size=8", "training.learning_rate=2e-3"]
    )
    return train(dataset_folder, tmp_path_factory.mktemp("runs") / "longer", settings, device="cpu")


@pytest.fixture(scope="module")
def small_judges() -> Iterator[None]:
    """Segmenters with few channels, for tests whose images need no more: they learn in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anatogen.judges.segmenter.CHANNELS", (8, 16, 16, 32, 32))
        yield


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, standard output, standard error)."""
    from anatogen.cli.app import app

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            app(args=[str(a) for a in arguments], prog_name="anatogen")
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return call
