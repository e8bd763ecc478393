from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, DataError, Interrupted, OutputError, SettingsError
from anatogen.generation import sample_set
from anatogen.generation.engine import Generator
from anatogen.generation.plan import FolderMaps, Plan, requests_from_dataset
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.io.pictures import write_label_png, write_png
from anatogen.labels import ClassStates


@pytest.fixture
def generator(longer_run: Path) -> Generator:
    return Generator.load(longer_run, device="cpu")


@pytest.fixture
def requests(dataset: PreparedDataset) -> list[Request]:
    return requests_from_dataset(dataset, dataset.split("test")[:7], ClassStates.all_given(dataset.schema))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_an_image_does_not_depend_on_its_batch(
    generator: Generator, requests: list[Request], solver: str, eta: float
) -> None:
    settings = generator.with_settings(solver=solver, eta=eta, steps=6)
    by_size = {n: [image for _, image in generator.generate(requests, settings, batch_size=n)] for n in (1, 3, 7)}
    for n in (1, 3):
        assert max(np.abs(a - b).max() for a, b in zip(by_size[n], by_size[7], strict=True)) < 1e-4


def test_seeds_change_the_image_and_repeat_it(generator: Generator, dataset: PreparedDataset) -> None:
    labels = dataset.load(dataset.split("test")[:1]).labels[0].numpy()
    a, b, c = generator.sample(labels, seeds=[1, 2, 1], steps=4)
    assert np.array_equal(a, c) and np.abs(a - b).max() > 0.05


def test_more_images_leave_the_first_as_they_are(dataset: PreparedDataset) -> None:
    rows, states = dataset.split("test"), ClassStates.all_given(dataset.schema)
    one = {r.id: r.seed for r in requests_from_dataset(dataset, rows, states)}
    three = {r.id: r.seed for r in requests_from_dataset(dataset, rows, states, per_mask=3)}
    assert one.items() <= three.items() and len(three) == 3 * len(one) == len(set(three.values()))
    few = requests_from_dataset(dataset, rows, states, count=3)
    assert len(few) == 3 and {r.id for r in few} <= one.keys()
    assert len(requests_from_dataset(dataset, rows, states, count=len(rows) + 2)) == len(rows) + 2
    both = requests_from_dataset(dataset, rows, states, per_mask=3, count=8)  # of three maps, the last one two
    assert [r.origin.repeat for r in both] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert len({(r.origin.case, r.origin.slice) for r in both}) == 3 and {r.id for r in both} <= three.keys()


def test_a_sample_set_is_written_and_read_again(generator: Generator, requests: list[Request], tmp_path: Path) -> None:
    for image_format in ("png", "npy"):
        made = write_sample_set(generator, requests, tmp_path / image_format, image_format=image_format)
        again = SampleSet.open(tmp_path / image_format)
        direct = np.stack([image for _, image in generator.generate(requests)])
        assert np.abs(again.images() - direct).max() <= 1.01 / 65535 + 1e-5
        assert np.array_equal(again.labels(), np.stack([r.labels for r in requests]))
        assert again.given().all() and again.given().shape == (7, 2)
        assert [e.seed for e in made.entries] == [r.seed for r in requests]
        assert made.schema.names == ("ball", "core")


class DiskFull:
    """Lets `left` images be written and then behaves as a full disk does, in the middle of a file."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, image_path: Path, labels_path: Path, request: Request, image: np.ndarray, maker: object) -> None:
        write_label_png(labels_path, request.labels)
        if not self.left:
            image_path.write_bytes(b"half an im")
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1
        write_png(image_path, image)


def test_a_full_disk_keeps_what_was_written(
    generator: Generator, requests: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_sample_set(generator, requests, tmp_path / "whole")
    monkeypatch.setitem(sample_set.FORMATS, "png", replace(sample_set.FORMATS["png"], write=DiskFull(4)))
    with pytest.raises(OutputError, match=r"No space left.*the 4 of 7 images that were written stay valid"):
        write_sample_set(generator, requests, tmp_path / "out")
    assert len(SampleSet.open(tmp_path / "out").entries) == 4
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4
    monkeypatch.undo()

    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(manifest.read_text() + '{"id": "torn')
    written = [p.stat().st_mtime_ns for p in sorted((tmp_path / "out" / "images").iterdir())]
    resumed = write_sample_set(generator, requests, tmp_path / "out")
    assert np.abs(resumed.images() - whole.images()).max() < 1e-4 + 2 / 65535  # other batches, another rounding
    kept = [p.stat().st_mtime_ns for p in sorted((tmp_path / "out" / "images").iterdir())]
    assert set(written) <= set(kept)


def test_ctrl_c_keeps_what_was_written(generator: Generator, requests: list[Request], tmp_path: Path) -> None:
    def press(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the 2 of 7 images"):
        write_sample_set(generator, requests, tmp_path / "out", progress=press)
    assert len(SampleSet.open(tmp_path / "out").entries) == 2


def test_other_settings_do_not_mix(generator: Generator, requests: list[Request], tmp_path: Path) -> None:
    write_sample_set(generator, requests[:1], tmp_path / "out")
    with pytest.raises(SettingsError, match="made with steps 16, not 2"):
        write_sample_set(generator.sampling_with(generator.with_settings(steps=2)), requests, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is no sample set"):
        write_sample_set(generator, requests, tmp_path / "other")


def test_a_lost_image_is_noticed(generator: Generator, requests: list[Request], tmp_path: Path) -> None:
    made = write_sample_set(generator, requests[:2], tmp_path / "out")
    (tmp_path / "out" / made.entries[1].file).unlink()
    with pytest.raises(DataError, match="line 2, is missing"):
        SampleSet.open(tmp_path / "out")


def test_label_maps_from_a_folder(generator: Generator, tmp_path: Path) -> None:
    states = generator.schema.states(free=["core"])
    labels = np.zeros((32, 32), dtype=np.uint8)
    labels[8:20, 8:20] = 2
    Image.fromarray(labels).save(tmp_path / "b.png")
    palette = Image.fromarray(labels, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "a.png")  # colours are not labels, indices are
    np.save(tmp_path / "c.npy", labels.astype(np.int32))
    (tmp_path / ".DS_Store").write_text("junk")
    made = Plan(states, per_mask=2).requests(FolderMaps(tmp_path, generator.spec))
    assert [r.id for r in made] == ["a_00", "a_01", "b_00", "b_01", "c_00", "c_01"]
    assert all(np.array_equal(r.labels, labels) for r in made)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.npy", np.zeros((4, 16, 16), np.int64), "has shape"),
        ("a.npy", np.full((32, 32), 3), "holds label 3, the model knows 0 to 2"),
        ("a.npy", np.zeros((32, 32)), "float64"),
        ("a.npy", None, "cannot be read as NPY"),
        ("a.png", None, "cannot be read as PNG"),
        ("a.txt", None, "holds no label maps"),
    ],
)
def test_bad_label_maps(
    generator: Generator, tmp_path: Path, name: str, array: np.ndarray | None, message: str
) -> None:
    if array is None:
        (tmp_path / name).write_bytes(b"no such thing")
    else:
        np.save(tmp_path / name, array)
    with pytest.raises(AnatogenError, match=message):
        Plan(generator.schema.states()).requests(FolderMaps(tmp_path, generator.spec))


def test_the_manifest_says_what_an_image_is(generator: Generator, requests: list[Request], tmp_path: Path) -> None:
    write_sample_set(generator, requests[:1], tmp_path / "out", command="anatogen sample")
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert {"id", "file", "labels", "given", "free", "seed", "case", "patient", "slice", "split"} <= line.keys()
    header = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert header["model"] == generator.digest and header["sampling"]["solver"] == "dpmpp_2m"
