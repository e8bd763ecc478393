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
from anatogen.generation.engine import at_most
from anatogen.generation.sample_set import SampleSet
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.labels import LabelSchema
from anatogen.reporting import figures
from anatogen.training.config import build_settings
from anatogen.training.train import train
from anatogen.workflows.evaluate import EvaluateRequest, evaluate
from by_brightness import ByBrightness
from conftest import write_nnunet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_judges")]
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
    slices = report.realism.slices
    assert list(slices) == ["D", "H", "W"] and len({each.encoder for each in slices.values()}) == 3
    assert all(each.n for each in slices.values()) and "slices_H" in report.realism.test.p_of
    for name in ("examples", "left_free"):
        picture = Image.open(tmp_path / "report" / "figures" / f"{name}.png")
        assert picture.width > 2 * picture.height  # of slices, five pictures in three or four lines are nearly square


def test_large_volumes_are_made_one_at_a_time() -> None:
    """The default of 16 is for slices: 16 volumes of 256^3 fit nowhere."""
    assert at_most(16, (256, 256)) == at_most(16, (64, 64, 64)) == 16
    assert at_most(16, (128, 128, 128)) == 2 and at_most(16, (256, 256, 256)) == 1
    assert at_most(4, (12, 24, 20)) == 4


def test_three_planes_cross_in_the_labelled_part() -> None:
    volume = np.zeros((4, 6, 8), dtype=np.int64)
    volume[3, 1, 5] = 1
    assert figures.view_of(volume).at == (3, 1, 5)
    assert figures.view_of(np.zeros((4, 6, 8), dtype=np.int64)).at == (2, 3, 4)
    assert figures.view_of(volume[0]).at is None
    flat = figures.view_of(volume).flat(volume, 3, fill=7)
    assert flat.shape == (6, 8 + 8 + 6)
    assert flat[1, 5] == flat[3, 8 + 5] == flat[3, 16 + 1] == 1  # from the head, which is plane 0, downwards
    assert flat[4:, 8:].min() == 7 and (flat == 1).sum() == 3


def test_pictures_keep_the_proportions_of_thick_slices() -> None:
    """4 slices of 5 mm with pixels of 2.5 x 1 mm: 20 mm x 15 mm x 8 mm."""
    volume = np.zeros((4, 6, 8), dtype=np.int64)
    volume[3, 1, 5] = 1
    view = figures.view_of(volume, (5.0, 2.5, 1.0))
    flat = view.flat(volume, 3)
    assert flat.shape == (20, 8 + 8 + 15)  # axial 15 x 8, coronal 20 x 8, sagittal 20 x 15
    assert [(flat[:, part] == 1).sum() for part in (slice(8), slice(8, 16), slice(16, None))] == [3, 5, 5 * 3]
    assert flat[15:, 13].all() and flat[15:, 16 + 3 : 16 + 5].all()
    image = volume[None].astype(np.float32)
    schema = LabelSchema.from_names(["one"])
    assert figures.gray(image, view).shape == figures.coloured(volume, schema, view).shape == (20, 31, 3)
    assert figures.outlined(image, volume, schema, view).shape == (60, 93, 3)
    alike = figures.view_of(volume, (1.0, 1.05, 0.99))
    assert alike.flat(volume, 3).shape == (6, 8 + 8 + 6)  # a sheet of nearly square pixels stays as it is
    assert figures.View(spacing_mm=(3.0, 1.0)).flat(volume[0], 2).shape == (18, 8)


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


def test_what_slices_have_volumes_have(
    cli: Cli, volumes: PreparedDataset, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs, combinations, gates, similarity to a real volume, a plan; a map of a folder."""
    monkeypatch.setattr("anatogen.judges.of_dataset.segmenter_for", lambda data, *_, **__: ByBrightness(data))
    common = ("--masks", volumes.folder, "--device", "cpu", "--count", 2)

    def made(command: str, name: str, *more: object) -> SampleSet:
        code, _, err = cli(command, run, *common, "--out", tmp_path / name, *more)
        assert code == 0, err
        assert cli("check", tmp_path / name)[0] == 0
        return SampleSet.open(tmp_path / name)

    pairs = made("sample", "pairs", "--paired", "--given", "core")
    assert pairs.real_image(pairs.entries[0]).shape == (1, 12, 24, 20)
    combined = made("sample", "combined", "--combine", "all")
    assert len(combined.entries) == 8 and len({entry.free for entry in combined.entries}) == 4
    assert made("sample", "gated", "--min-dice", "0.001", "--retries", 0).header.gate is not None
    similar = made("interpolate", "similar", "--similarity", "0,0.9")
    real = volumes.load([row for row in volumes.rows if row.case == similar.entries[0].case]).images[0].numpy()
    far, near = (np.abs(similar.image(entry) - real).mean() for entry in similar.entries[:2])
    assert near < far
    code, out, err = cli("train", volumes.folder, "--plan", "--device", "cpu", "--set", "network.width=8")
    assert code == 0 and "12 x 24 x 20" in out, err
    masks = tmp_path / "masks"
    masks.mkdir()
    np.save(masks / "one.npy", volumes.load(volumes.split("test")[:1]).labels[0].numpy().astype(np.uint8))
    code, _, err = cli("sample", run, "--masks", masks, "--device", "cpu", "--out", tmp_path / "folder")
    assert code == 0, err
    assert SampleSet.open(tmp_path / "folder").header.image_format == "npy"
