"""What anatogen 0.1 wrote still opens, and gives the same splits and the same images (`fixtures/format1`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet
from anatogen.labels import ClassStates

OLD = Path(__file__).parent / "fixtures" / "format1"
SAMPLES = ("samples", "samples-png", "samples-paper", "interpolated")


@pytest.mark.parametrize("name", ["dataset", "run", "run-paper", *SAMPLES])
def test_info_says_what_it_is(name: str, cli: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = cli("info", OLD / name)
    assert code == 0, err
    assert "ball, core" in out or "ball" in out


def test_splits_and_values_are_the_same(tmp_path: Path) -> None:
    old = PreparedDataset.open(OLD / "dataset")
    raw = shutil.copytree(OLD / "raw", tmp_path / "Dataset001_Balls")
    new = prepare(open_source(str(raw)), tmp_path / "data", PrepareSettings(size=(32, 32), axis="axial", workers=1))
    # A row's place in the source is known by its content: names may become pseudonyms.
    for split in ("train", "heldout", "val", "test"):
        a, b = old.load(old.split(split)), new.load(new.split(split))
        assert sorted(x.numpy().tobytes() for x in a.images) == sorted(x.numpy().tobytes() for x in b.images)
        assert sorted(x.numpy().tobytes() for x in a.labels) == sorted(x.numpy().tobytes() for x in b.labels)


def made_again(run: str, samples: str) -> tuple[np.ndarray, np.ndarray]:
    """What the old run makes today of the requests that an old sample set holds, and that set's images."""
    generator = Generator.load(OLD / run, device="cpu")
    dataset, old = PreparedDataset.open(OLD / "dataset"), SampleSet.open(OLD / samples)
    states = generator.schema.states(given=old.header.request.given)
    requests = requests_from_dataset(dataset, dataset.split("test")[: len(old.entries)], states)
    if samples == "interpolated":
        every = ClassStates.all_given(generator.schema)
        requests = requests_from_dataset(dataset, dataset.split("test")[:2], every, similarities=(0.25, 0.75))
    images = np.stack([image for _, image in generator.generate(requests)])
    assert [r.seed for r in requests] == [entry.seed for entry in old.entries]
    return images, old.images()


@pytest.mark.parametrize(
    ("run", "samples"), [("run", "samples"), ("run-paper", "samples-paper"), ("run", "interpolated")]
)
def test_the_same_seed_gives_the_same_image(run: str, samples: str) -> None:
    # On the machine that wrote them the images are equal bit for bit; another processor rounds otherwise.
    made, old = made_again(run, samples)
    np.testing.assert_allclose(made, old, rtol=0, atol=2e-3)
