"""Volumes are judged as slices are: every section of the report, in three dimensions."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.reporting import figures
from anatogen.training.config import build_settings
from anatogen.training.train import train
from anatogen.workflows.evaluate import EvaluateRequest, evaluate
from conftest import write_nnunet

pytestmark = pytest.mark.slow
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("volumes")
    source = open_source(str(write_nnunet(folder / "raw", cases=16)))
    shares = {"train": 50.0, "heldout": 20.0, "val": 10.0, "test": 20.0}
    return prepare(source, folder / "data", PrepareSettings(size=(12, 24, 20), shares=shares), version="test")


@pytest.fixture(scope="module")
def run(volumes: PreparedDataset) -> Path:
    values = ["network.width=8", "network.blocks=1", "sampling.steps=3", "live.dice=always"]
    return train(
        volumes, volumes.folder.parent / "run", build_settings(values=values, training={"steps": 8}), device="cpu"
    )


def test_every_section_of_the_report(volumes: PreparedDataset, run: Path, tmp_path: Path) -> None:
    short = SegmenterSettings(steps=20, batch_size=4, validations=2)
    settings = EvaluationSettings(segmenter=short, encoder=EncoderSettings(steps=5, batch_size=4), utility=short)
    result = evaluate(
        EvaluateRequest((run,), dataset=volumes, out=tmp_path / "report", settings=settings, device="cpu")
    )
    report = result.report
    assert report.faithfulness and report.realism and report.privacy and report.utility
    assert (tmp_path / "report" / "report.html").is_file()
    for name in ("examples", "left_free"):
        picture = Image.open(tmp_path / "report" / "figures" / f"{name}.png")
        assert picture.width > picture.height * 0.5


def test_three_planes_cross_in_the_labelled_part() -> None:
    volume = np.zeros((4, 6, 8), dtype=np.int64)
    volume[3, 1, 5] = 1
    assert figures.centre_of(volume) == (3, 1, 5)
    assert figures.centre_of(np.zeros((4, 6, 8), dtype=np.int64)) == (2, 3, 4)
    assert figures.centre_of(volume[0]) is None
    flat = figures.three_planes(volume, (3, 1, 5), fill=7)
    assert flat.shape == (6, 8 + 8 + 6)
    assert flat[1, 5] == flat[0, 8 + 5] == flat[0, 16 + 1] == 1  # the head is up in the coronal and sagittal planes
    assert flat[4:, 8:].min() == 7 and (flat == 1).sum() == 3


def test_samples_of_volumes_have_an_overview_and_previews(
    cli: Cli, volumes: PreparedDataset, run: Path, tmp_path: Path
) -> None:
    code, _, err = cli("sample", run, "--masks", volumes.folder, "--out", tmp_path / "samples", "--device", "cpu",
                         "--count", 2)  # fmt: skip
    assert code == 0, err
    picture = Image.open(io.BytesIO((tmp_path / "samples" / "overview.png").read_bytes()))
    assert picture.width > 400
    film = Image.open(tmp_path / "samples" / "slices.gif")
    assert film.n_frames == 12 and film.size == (2 * 3 * 20, 2 * 3 * 24)  # type: ignore[attr-defined]
