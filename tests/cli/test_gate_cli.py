"""`sample` with gates, and `export` that refuses copies, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.evaluation.copies import read_privacy
from anatogen.generation.sample_set import SampleSet
from anatogen.judges import of_dataset
from anatogen.judges.segmenter import SegmenterSettings
from cohorts import copies, many_patients, sample_set
from conftest import write_nnunet

pytestmark = pytest.mark.usefixtures("small_judges")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def finds_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds every third pixel of each class whatever the image, so that its Dice is above 0."""

    def judge(images: np.ndarray) -> np.ndarray:
        count, _, height, width = images.shape
        return np.tile(np.arange(height * width).reshape(height, width) % 3, (count, 1, 1)).astype(np.int64)

    monkeypatch.setattr(of_dataset, "segmenter_for", lambda dataset, settings, *, device: judge)


@pytest.fixture
def quick_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SegmenterSettings(steps=4, batch_size=2, validations=1)
    trained = of_dataset.segmenter_for
    monkeypatch.setattr(of_dataset, "segmenter_for", lambda dataset, _, **more: trained(dataset, settings, **more))


@pytest.fixture
def data(dataset_folder: Path, tmp_path: Path) -> Path:
    """A copy that segmenters and distances may be kept in."""
    return Path(shutil.copytree(dataset_folder, tmp_path / "data"))


def error_of(outcome: tuple[int, str, str]) -> str:
    code, _, err = outcome
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err
    return lines[0]


SAMPLE = ("--count", 5, "--steps", 2, "--device", "cpu")


def test_images_that_pass(cli: Cli, run_folder: Path, data: Path, tmp_path: Path, finds_something: None) -> None:
    out = tmp_path / "s"
    command = ("sample", run_folder, "--masks", data, "--out", out, *SAMPLE, "--min-dice", 0.0001, "--reject-copies")
    code, said, _ = cli(*command)
    samples = SampleSet.open(out)
    assert code == 0
    summary = f"{out}: {len(samples.entries)} images; {samples.selection.rejected} images rejected, "
    assert said.startswith(summary + f"{len(samples.rejected)} requests without an image")
    assert len(samples.entries) + len(samples.rejected) == 5
    train = {row.id for row in PreparedDataset.open(data).split("train")}
    assert all(0 < e.dice <= 1 and e.nearest.row in train for e in samples.entries)
    assert samples.header.gate.retries == 3 and samples.header.gate.min_dice == 0.0001
    assert samples.header.gate.judge.fingerprint
    before = (out / "manifest.jsonl").read_bytes()
    assert cli(*command)[0] == 0 and (out / "manifest.jsonl").read_bytes() == before
    assert "retries 3, not 1" in error_of(cli(*command, "--retries", 1))
    assert cli("check", out)[0] == 0 and cli("info", out)[0] == 0


def test_where_nothing_passes(cli: Cli, run_folder: Path, data: Path, tmp_path: Path, quick_segmenter: None) -> None:
    out = tmp_path / "s"
    options = (*SAMPLE, "--min-dice", 1, "--retries", 1)
    said = error_of(cli("sample", run_folder, "--masks", data, "--out", out, *options))
    best = max(
        t["dice"] for line in (out / "rejected.jsonl").read_text().splitlines() for t in json.loads(line)["tries"]
    )
    assert list(data.glob("segmenter-*.safetensors"))  # kept for the next time
    assert f"all 10 images made for 5 requests were rejected; of the best, Dice {best:.4f} is below 1" in said
    assert "train the model for longer" in said


def test_a_judge_of_its_own(cli: Cli, run_folder: Path, data: Path, tmp_path: Path, finds_something: None) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    labels = PreparedDataset.open(data).load(PreparedDataset.open(data).split("test")[5:7]).labels.numpy()
    for name, one in zip("ab", labels, strict=True):
        np.save(maps / f"{name}.npy", one)
    options = ("--out", tmp_path / "s", "--steps", 2, "--device", "cpu", "--min-dice", 0.0001)
    assert "--judge DATASET" in error_of(cli("sample", run_folder, "--masks", maps, *options))
    assert not (tmp_path / "s").exists()
    code, said, _ = cli("sample", run_folder, "--masks", maps, *options, "--judge", data, "--retries", 0)
    assert code == 0 and "images rejected" in said


def test_bad_gates(cli: Cli, run_folder: Path, data: Path, tmp_path: Path, finds_something: None) -> None:
    sample = ("sample", run_folder, "--masks", data, "--out", tmp_path / "s", *SAMPLE)
    for more, message in (
        (("--min-dice", 1.5), "--min-dice must be in (0, 1], got 1.5"),
        (("--min-dice", 0), "--min-dice must be in (0, 1], got 0"),
        (("--retries", 2), "Add --min-dice 0.8 or --reject-copies"),
        (("--judge", data), "--judge is for images that are rejected"),
        (("--reject-copies", "--judge", tmp_path / "nowhere"), "does not exist"),
    ):
        assert message in error_of(cli(*sample, *more))
    # Other patients of the same kind may judge the anatomy, but copies are not theirs.
    raw = write_nnunet(tmp_path / "raw", cases=9)
    other = prepare(open_source(str(raw)), tmp_path / "other", PrepareSettings((32, 32), workers=1)).folder
    assert "does not hold what the model was trained on" in error_of(cli(*sample, "--reject-copies", "--judge", other))
    elsewhere = ("sample", run_folder, "--masks", other, "--out", tmp_path / "s", *SAMPLE)
    assert "--judge DATASET" in error_of(cli(*elsewhere, "--min-dice", 0.5))
    assert cli(*elsewhere, "--min-dice", 0.0001, "--judge", other)[0] == 0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return many_patients(tmp_path_factory.mktemp("cohort"))


def test_copies_are_not_exported(cli: Cli, cohort: PreparedDataset, tmp_path: Path) -> None:
    samples = sample_set(tmp_path / "s", cohort, copies(cohort))
    export = ("export", samples.folder, tmp_path / "out", "--to", "nnunet")
    said = error_of(cli(*export, "--dataset", cohort.folder))
    assert "Flagged for copying" in said and "--accept-copies" in said and not (tmp_path / "out").exists()
    known = read_privacy(samples)
    assert known is not None and known.above_chance
    assert "Flagged for copying" in error_of(cli(*export))  # known now, without the data set
    code, said, _ = cli(*export, "--accept-copies", "--dataset", cohort.folder)
    assert code == 0 and "Flagged for copying" in said and f"{len(samples.entries)} cases" in said
    assert "already exists" in error_of(cli(*export, "--dataset", cohort.folder))
    shutil.rmtree(tmp_path / "out")
    (samples.folder / "privacy.json").unlink()
    assert "--dataset DATASET" in error_of(cli(*export))  # of a set that does not say where its images lie


def test_healthy_images_are_exported(cli: Cli, cohort: PreparedDataset, tmp_path: Path) -> None:
    real = cohort.load(cohort.split("test")).images.numpy()
    samples = sample_set(tmp_path / "s", cohort, real)
    code, said, _ = cli("export", samples.folder, tmp_path / "out", "--to", "nnunet", "--dataset", cohort.folder)
    assert code == 0 and "No copying found" in said and (tmp_path / "out" / "dataset.json").is_file()
    few = sample_set(tmp_path / "few", cohort, real[:3])  # one patient
    code, said, _ = cli("export", few.folder, tmp_path / "few-out", "--to", "nnunet", "--dataset", cohort.folder)
    assert code == 0 and "Undecided" in said


def test_paired_sets_export_what_was_generated(cli: Cli, run_folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert cli("sample", run_folder, "--masks", data, "--out", out, *SAMPLE, "--paired")[0] == 0
    code, said, _ = cli("export", out, tmp_path / "out", "--to", "nnunet")
    assert "warning: copies of training patients were not looked for: give --dataset" in said
    ids = {entry.id for entry in SampleSet.open(out).entries}
    assert code == 0 and {p.name for p in (tmp_path / "out" / "imagesTr").iterdir()} == {
        f"{i}_0000.nii.gz" for i in ids
    }
