"""Odd and oblong sizes with several channels, from the files to the report: nothing is resampled to fit a network."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen import evaluate
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.model import Denoiser, DenoiserConfig
from anatogen.networks.hourglass import HourglassConfig
from anatogen.sampling import SamplingSettings
from anatogen.training.config import build_settings
from anatogen.training.train import train
from conftest import write_nnunet

pytestmark = pytest.mark.usefixtures("small_judges")

QUICK = EvaluationSettings(
    segmenter=SegmenterSettings(steps=10, batch_size=4, validations=2), encoder=EncoderSettings(steps=5)
)
SMALL = ("network.width=8", "network.blocks=1", "training.batch_size=4", "training.steps=2", "sampling.steps=2")
PAPER = ("network.channels=[32,32,64]", "network.layers_per_block=1", "training.epochs=null", *SMALL[2:])


def prepared(folder: Path, channels: int, size: tuple[int, int]) -> PreparedDataset:
    """Balls of 20 x 24 x 12 voxels in `channels` channels, cut or padded to `size`."""
    raw = write_nnunet(folder / "raw", channel_names={str(c): f"T{c}" for c in range(channels)})
    for path in list((raw / "imagesTr").glob("*_0000.nii.gz")):
        image = nibabel.load(path)  # type: ignore[attr-defined]
        for c in range(1, channels):
            values = (np.asarray(image.dataobj) * (-1) ** c - 100 * c).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(values, image.affine), str(path).replace("_0000", f"_{c:04d}"))  # type: ignore[attr-defined]
    return prepare(open_source(str(raw)), folder / "data", PrepareSettings(size, axis="axial", fit="crop", workers=1))


@pytest.mark.parametrize(
    ("channels", "size", "preset"),
    [(2, (37, 21), "fast"), (4, (19, 30), "paper")],
    ids=["hourglass", "the paper's network"],
)
def test_train_sample_interpolate(channels: int, size: tuple[int, int], preset: str, tmp_path: Path) -> None:
    dataset = prepared(tmp_path, channels, size)
    settings = build_settings(preset, values=PAPER if preset == "paper" else SMALL)  # type: ignore[arg-type]
    generator = Generator.load(train(dataset, tmp_path / "run", settings, device="cpu"), device="cpu")
    assert generator.denoiser.padding(size).padded != generator.size == dataset.size == size
    assert len(generator.denoiser.config.data_mean) == channels
    item = dataset.load(dataset.split("test")[:1])
    labels, real = item.labels[0].numpy(), item.images[0].numpy()
    assert generator.sample(labels).shape == (1, channels, *size) and real.shape == (channels, *size)
    assert generator.sampling_with(generator.with_settings(steps=4)).interpolate(labels, real, [0.5]).shape == (
        1,
        channels,
        *size,
    )


def test_volumes() -> None:
    network = HourglassConfig(width=8, blocks=1)
    config = DenoiserConfig(image_channels=2, size=(5, 19, 13), classes=(("ball", "#E69F00"),), network=network)
    generator = Generator(Denoiser(config), SamplingSettings(steps=2), device="cpu")
    labels = np.zeros((5, 19, 13), dtype=np.int64)
    images = generator.sample(labels, seeds=[0, 1])
    assert images.shape == (2, 2, 5, 19, 13) and np.isfinite(images).all()
    assert generator.interpolate(labels, images[0], [0.5]).shape == (1, 2, 5, 19, 13)


def test_evaluate(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 2, (37, 21))
    run = train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu")
    generator = Generator.load(run, device="cpu")
    rows = dataset.split("test")[:6]
    requests = requests_from_dataset(dataset, rows, generator.schema.states())
    write_sample_set(generator, requests, tmp_path / "samples", image_format="npy")
    similar = requests_from_dataset(dataset, rows[:2], generator.schema.states(), similarities=(0.5,))
    write_sample_set(generator, similar, tmp_path / "alike", image_format="npy")
    for name in ("samples", "alike"):
        assert SampleSet.open(tmp_path / name).images().shape[1:] == (2, 37, 21)
    evaluate(
        tmp_path / "samples",
        dataset,
        tmp_path / "report",
        device="cpu",
        only=("faithfulness", "realism"),
        settings=QUICK,
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert 0 <= report["faithfulness"]["dice_real_map"]["mean"] <= 1 and report["realism"]
