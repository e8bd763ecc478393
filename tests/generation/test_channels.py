"""Images of any number of channels, in every format: 16 bits stay, and every channel is shown."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from anatogen.check.samples import check_samples
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.reporting import figures
from cohorts import RealImages
from conftest import SMALL

Cli = Callable[..., tuple[int, str, str]]
NAMES = {1: ("CT",), 2: ("T1", "T2"), 3: ("T1", "T2", "FLAIR"), 4: ("T1", "T1c", "T2", "FLAIR")}


def of_channels(folder: Path, names: tuple[str, ...], cases: int = 7) -> PreparedDataset:
    """Noise in every channel, a square is labelled, in slices of 31 x 24 (odd and oblong) shown as 32 x 32."""
    raw = folder / "Dataset001_Noise"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for case in range(cases):
        rng = np.random.default_rng(case)
        labels = np.zeros((31, 24, 3), np.uint8)
        labels[8:20, 6:18] = 1
        for c in range(len(names)):
            image = rng.integers(0, 4096, labels.shape).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), raw / "imagesTr" / f"n{case}_{c:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), raw / "labelsTr" / f"n{case}.nii.gz")
    description = {
        "channel_names": {str(c): name for c, name in enumerate(names)},
        "labels": {"background": 0, "box": 1},
    }
    (raw / "dataset.json").write_text(json.dumps({**description, "numTraining": cases, "file_ending": ".nii.gz"}))
    return prepare(open_source(str(raw)), folder / "data", PrepareSettings((32, 32), workers=1))


@pytest.mark.parametrize("form", ["png", "npy", "nifti"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_channel_comes_back_to_one_level(tmp_path: Path, count: int, form: str) -> None:
    dataset = of_channels(tmp_path, NAMES[count])
    rows = dataset.split("test")
    requests = requests_from_dataset(dataset, rows, dataset.schema.states(), paired=True)
    write_sample_set(RealImages(dataset), requests, tmp_path / "s", image_format=form)  # type: ignore[arg-type]
    samples = SampleSet.open(tmp_path / "s")
    real = dataset.load(rows).images.numpy()
    level = 2 / 65535 if form == "png" else 2 / 4000 if form == "nifti" else 0
    assert samples.images().shape == (len(rows), count, 32, 32) and samples.header.channels == NAMES[count]
    assert np.abs(samples.images() - real).max() <= level / 2 + 1e-6
    assert np.abs(samples.real_image(samples.entries[0]) - real[0]).max() <= level / 2 + 1e-6
    if form == "png":
        pixels = np.asarray(Image.open(tmp_path / "s" / samples.entries[0].file))
        assert pixels.dtype == np.uint16 and pixels.shape == (32 * count, 32)
        assert np.allclose(pixels.reshape(count, 32, 32) / 65535 * 2 - 1, real[0], atol=level)
    assert not [f for f in check_samples(tmp_path / "s").findings if f.severity == "error"]


def test_similar_images_of_two_channels(tmp_path: Path) -> None:
    dataset = of_channels(tmp_path, NAMES[2])
    similar = requests_from_dataset(
        dataset, dataset.split("test")[:1], dataset.schema.states(), similarities=(0.25, 0.75)
    )
    samples = write_sample_set(RealImages(dataset), similar, tmp_path / "s")
    assert samples.images().shape == (2, 2, 32, 32) and samples.header.request.similarities == (0.25, 0.75)


def test_dicom_holds_one_channel(tmp_path: Path) -> None:
    dataset = of_channels(tmp_path, NAMES[2])
    requests = requests_from_dataset(dataset, dataset.split("test"), dataset.schema.states())
    with pytest.raises(SettingsError, match="2 channels cannot be written as dicom. Choose --format npy, nifti"):
        write_sample_set(RealImages(dataset), requests, tmp_path / "s", image_format="dicom")  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_pictures_show_each_channel() -> None:
    image = np.stack([np.full((4, 5), -1.0), np.full((4, 5), 1.0)])
    shown = figures.gray(image)
    assert shown.shape == (4, 10, 3) and (shown[:, :5] == 0).all() and (shown[:, 5:] == 1).all()
    labels = np.zeros((4, 5), np.int64)
    labels[1:3, 1:4] = 1
    from anatogen.labels import LabelSchema

    outlined = figures.outlined(image, labels, LabelSchema.from_names(["a"]))
    coloured = (outlined != np.kron(shown, np.ones((3, 3, 1)))).any(axis=2)
    assert outlined.shape == (12, 30, 3) and np.array_equal(coloured[:, :15], coloured[:, 15:]) and coloured.any()


def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    from anatogen.training.config import build_settings
    from anatogen.training.train import train

    dataset = of_channels(tmp_path, NAMES[2])
    run = train(dataset, tmp_path / "run", build_settings(values=SMALL), device="cpu")
    base: tuple[Any, ...] = (run, "--masks", dataset.folder, "--count", 2, "--device", "cpu")
    for command, more in (("sample", ("--paired",)), ("interpolate", ("--similarity", 0.5))):
        code, said, err = cli(command, *base, *more, "--out", tmp_path / command)
        assert code == 0, err
        assert SampleSet.open(tmp_path / command).images().shape == (2, 2, 32, 32)
        overview = Image.open(io.BytesIO((tmp_path / command / "overview.png").read_bytes()))
        assert overview.width > 0 and "overview.png" in said
        assert cli("check", tmp_path / command)[0] == 0
    code, _, err = cli("sample", *base, "--out", tmp_path / "d", "--format", "dicom")
    assert code == 2 and len(err.strip().splitlines()) == 1 and "npy, nifti" in err
