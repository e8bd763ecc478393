"""Completing label maps with a model and a segmenter whose answers are known: the core is there in some samples."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, SettingsError
from anatogen.generation.completion import COMPLETED, CompletedLine, CompletedMaps, read_map
from anatogen.generation.ledger import read_lines
from anatogen.generation.map_summaries import MAPS, MapLine
from anatogen.generation.sample_set import SampleSet
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.workflows.complete import complete
from anatogen.workflows.complete_real import CompleteRealRequest, complete_real
from anatogen.workflows.export import ExportRequest, export
from conftest import write_nnunet
from sometimes_a_core import asked, put_in

pytestmark = pytest.mark.usefixtures("small_judges")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_overview(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles take seconds to draw; test_slices draws them."""
    if request.node.name != "test_slices":
        monkeypatch.setattr("anatogen.workflows.completed_set.overview", lambda *_: b"")
        monkeypatch.setattr("anatogen.workflows.complete_real.overview", lambda *_: b"")


def shares_of(samples: SampleSet) -> dict[str, list[int]]:
    """By label map, whether each sample shows the core."""
    found: dict[str, list[int]] = {}
    for line in samples.entries:
        found.setdefault(line.label_map, []).append(1 - line.seed % 2)
    return found


def test_slices(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, segmenter = put_in(monkeypatch, dataset)
    monkeypatch.setattr("anatogen.workflows.completed_set.OVERVIEW_ROWS", 1)
    result = complete(asked(dataset, tmp_path / "out"))
    samples, found = SampleSet.open(tmp_path / "out"), result.completion
    maps, shares = CompletedMaps(samples), shares_of(samples)
    assert (found.label_maps, found.images, found.free) == (6, 24, ("core",)) and len(model.made) == 24
    for line in samples.entries:  # the ball as it was given, the core where the image shows it
        labels = samples.label_map(line)
        assert np.array_equal(maps(line), np.where(labels == 2, 0 if line.seed % 2 else 2, labels))
        assert maps.lines[line.id].voxels == {"core": int((maps(line) == 2).sum())}
    for line in read_lines(tmp_path / "out" / MAPS, MapLine):
        labels = samples.label_map(next(each for each in samples.entries if each.id == line.images[0]))
        frequency = np.load(tmp_path / "out" / line.frequency["core"])
        share = np.mean(shares[line.label_map])
        assert frequency.dtype == np.float32 and np.allclose(frequency, share * (labels == 2))
        std = np.load(tmp_path / "out" / line.std)
        low, high = segmenter.means[[0, 2]]
        wanted = np.std(np.where(shares[line.label_map], high, low), ddof=1)
        assert np.allclose(std[0], wanted * (labels == 2), atol=1e-4)
        assert (tmp_path / "out" / str(line.picture)).stat().st_size > 500
    measured = found.measured
    assert measured is not None and measured.dice_mean is not None and measured.dice_best is not None
    assert {"dice_mean", "dice_real", "energy_distance", "coverage"} <= measured.model_fields_set
    assert measured.nominal_coverage == pytest.approx(0.6)
    # A sample has the core as it is annotated, or none: its Dice is 1 or 0, and the mean the share of samples.
    patients: dict[str, list[tuple[float, float]]] = {}
    for line in samples.entries[::4]:
        if (samples.label_map(line) == 2).any():
            share = shares[line.label_map]
            patients.setdefault(line.patient_or_map, []).append((float(np.mean(share)), max(share)))
    means, bests = np.mean([np.mean(each, axis=0) for each in patients.values()], axis=0)
    assert measured.dice_mean.per_class["core"] == pytest.approx(means) and 0 < means < 1
    assert measured.dice_best.per_class["core"] == pytest.approx(bests)
    error = found.calibration["core"].sampled
    assert error is not None and error.pixels == 6 * 32 * 32  # underconfident: what is sampled is always there
    assert all(row.observed.value == 1 for row in error.reliability if row.low > 0)
    assert (tmp_path / "out" / "overview.png").is_file() and (tmp_path / "out" / "calibration.png").is_file()


def test_frequencies_are_calibrated_on_other_patients(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in(monkeypatch, dataset)
    found = complete(asked(dataset, tmp_path / "out", calibrate=6)).completion.calibration["core"]
    assert found.recalibration is not None and found.sampled is not None and found.calibrated is not None
    fitted_on = {line.patient for line in SampleSet.open(tmp_path / "out" / "calibration").entries}
    assert not fitted_on & {line.patient for line in SampleSet.open(tmp_path / "out").entries}
    assert found.recalibration.label_maps == 6 and found.recalibration.split == "val"
    before, after = found.sampled.error_uncertain.value, found.calibrated.error_uncertain.value
    assert before is not None and after is not None and before > 0.2 and after == pytest.approx(0)
    line = read_lines(tmp_path / "out" / MAPS, MapLine)[2]
    frequency, calibrated = (np.load(tmp_path / "out" / each["core"]) for each in (line.frequency, line.calibrated))
    assert np.allclose(calibrated, frequency > 0, atol=1e-6)
    with pytest.raises(SettingsError, match="the one that is completed"):
        complete(asked(dataset, tmp_path / "other", calibrate=2, split="val"))


def test_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(str(write_nnunet(tmp_path / "raw")))
    dataset = prepare(source, tmp_path / "data", PrepareSettings(size=(12, 24, 20), axis="axial", fit="crop"))
    put_in(monkeypatch, dataset)
    assert len(dataset.size) == 3
    result = complete(asked(dataset, tmp_path / "out", count=None))
    samples = SampleSet.open(tmp_path / "out")
    maps = CompletedMaps(samples)
    for line in samples.entries:
        labels = samples.label_map(line)
        assert np.array_equal(maps(line) == 1, labels == 1)
        assert np.array_equal(maps(line), np.where(labels == 2, 0 if line.seed % 2 else 2, labels))
    [line, *_] = read_lines(tmp_path / "out" / MAPS, MapLine)
    frequency = nibabel.load(tmp_path / "out" / line.frequency["core"])
    full = nibabel.load(tmp_path / "out" / maps.lines[line.images[0]].file)
    assert np.allclose(frequency.affine, full.affine) and frequency.shape == full.shape
    assert float(np.asarray(frequency.dataobj).max()) <= 1
    assert result.completion.scale == "the scan's units"
    mean = np.asarray(nibabel.load(tmp_path / "out" / line.mean).dataobj)
    assert mean.max() > 300  # the scan's units, not [-1, 1]


def test_what_is_there_is_kept(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, segmenter = put_in(monkeypatch, dataset)
    out = tmp_path / "out"
    first = complete(asked(dataset, out)).completion
    whole = {line.id: (out / line.file).read_bytes() for line in read_lines(out / COMPLETED, CompletedLine)}
    lines = (out / COMPLETED).read_text().splitlines(keepends=True)
    (out / COMPLETED).write_text("".join(lines[:20]) + lines[20][:30])  # killed while it wrote a line
    (out / json.loads(lines[3])["file"]).unlink()
    made, seen = len(model.made), segmenter.seen
    again = complete(asked(dataset, out)).completion
    assert len(model.made) == made
    assert segmenter.seen - seen == 5 + 6  # the missing images, and the six real ones to compare with
    assert {line.id: (out / line.file).read_bytes() for line in read_lines(out / COMPLETED, CompletedLine)} == whole
    assert again == first
    more = complete(asked(dataset, out, per_mask=5, count=30)).completion
    assert more.images == 30 and len(model.made) == made + 6


def partly_annotated(folder: Path, out: Path, splits: Sequence[str]) -> PreparedDataset:
    """A copy in which the core was annotated in none of `splits`."""
    shutil.copytree(folder, out)
    rows = list(csv.DictReader((out / "index.csv").open(newline="")))
    with (out / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**r, "annotated": '["ball"]' if r["split"] in splits else r["annotated"]} for r in rows)
    return PreparedDataset.open(out)


def test_classes_that_were_not_annotated(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = partly_annotated(dataset_folder, tmp_path / "data", ["test"])
    put_in(monkeypatch, dataset)
    found = complete(asked(dataset, tmp_path / "out", free=None)).completion
    assert found.free == ("core",) and found.measured is None and found.calibration == {}
    assert all(line.free == ("core",) for line in SampleSet.open(tmp_path / "out").entries)


def test_real_images(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = partly_annotated(dataset_folder, tmp_path / "data", ["test"])
    _, segmenter = put_in(monkeypatch, dataset)
    out = tmp_path / "out"
    result = complete_real(CompleteRealRequest(dataset.folder, out, device="cpu"))
    rows = dataset.split("test")
    lines = read_lines(out / COMPLETED, CompletedLine)
    assert result.completion.of == "real" and [line.id for line in lines] == [row.id for row in rows]
    for row, line in zip(rows, lines, strict=True):
        full, given = read_map(out / line.file, "axial"), dataset.load([row]).labels[0].numpy()
        assert np.array_equal(full == 1, given == 1) and line.free == ("core",)
    measured = result.completion.measured  # on the training patients, whom the segmenter did not see
    assert measured is not None and measured.dice_real is not None and measured.dice_mean is None
    assert set(measured.dice_real.per_class) == {"core"} and (measured.dice_real.mean or 0) > 0.9
    assert "private" in result.notes[0]
    before = segmenter.seen
    again = complete_real(CompleteRealRequest(dataset.folder, out, device="cpu"))
    assert again.completion == result.completion and segmenter.seen - before < before
    with pytest.raises(SettingsError, match="lacks a class"):
        complete_real(CompleteRealRequest(dataset.folder, tmp_path / "b", "train", device="cpu"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("")
    with pytest.raises(SettingsError, match="already exists"):
        complete_real(CompleteRealRequest(dataset.folder, tmp_path / "c", device="cpu"))


def test_export_of_completed_maps(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, dataset)
    out = tmp_path / "out"
    complete(asked(dataset, out, count=8))
    samples = SampleSet.open(out)
    with pytest.raises(AnatogenError, match="left free.*--labels completed"):
        export(ExportRequest(out, tmp_path / "asked", "nnunet"))
    export(ExportRequest(out, tmp_path / "full", "nnunet", labels="completed"))
    maps = CompletedMaps(samples)
    for line in samples.entries:
        exported = np.asarray(nibabel.load(tmp_path / "full" / "labelsTr" / f"{line.id}.nii.gz").dataobj)
        assert (
            np.bincount(exported.astype(int).ravel(), minlength=3).tolist()
            == np.bincount(maps(line).ravel(), minlength=3).tolist()
        )
    (out / COMPLETED).unlink()
    with pytest.raises(AnatogenError, match="no completed label maps of 8"):
        export(ExportRequest(out, tmp_path / "none", "nnunet", labels="completed"))
    with pytest.raises(SettingsError, match="no label maps 'complete'"):
        ExportRequest(out, tmp_path / "none", "nnunet", labels="complete")


def test_refusals(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = partly_annotated(dataset_folder, tmp_path / "data", ["heldout"])
    model, _ = put_in(monkeypatch, dataset)
    out = tmp_path / "out"
    for maps, problem in (
        ({"free": None}, "no class is free"),
        ({"free": ("ball", "core")}, "no class is given in any label map"),
        ({"free": ("corr",)}, "unknown class 'corr'. Did you mean 'core'"),
        ({"free": None, "given": ("core",), "split": "heldout"}, "no class is given in any label map"),
        ({}, "no held-out patient was annotated for class 'core'"),
    ):
        with pytest.raises(SettingsError, match=problem):
            complete(asked(dataset, out, **maps))
    whole = PreparedDataset.open(dataset_folder)
    model.spec = replace(model.spec, takes_free=False)
    with pytest.raises(SettingsError, match="without mask ablation"):
        complete(asked(whole, out))
    model.spec = replace(model.spec, takes_free=True)
    model.about = model.about.model_copy(update={"trained_on": "another split"})
    with pytest.raises(SettingsError, match="in another way"):
        complete(replace(asked(whole, out), judge=dataset_folder))
    assert not out.exists()


@pytest.mark.slow
def test_from_the_command_line_with_a_trained_run(
    cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(dataset_folder, tmp_path / "data")
    quick = SegmenterSettings(steps=20, batch_size=4, learning_rate=5e-3, validations=2)
    monkeypatch.setattr("anatogen.judges.segmenter.default_segmenter", lambda _: quick)
    monkeypatch.setattr("anatogen.judges.of_dataset.default_segmenter", lambda _: quick)
    words = ("complete", run_folder, "--masks", data, "--free", "core", "--per-mask", 3, "--count", 6, "--steps", 3)
    code, out, err = cli(*words, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0, err
    assert "6 images of 2 label maps, core completed" in out and "Dice of completed classes" in out
    samples = SampleSet.open(tmp_path / "out")
    maps = CompletedMaps(samples)
    for line in samples.entries:
        assert np.array_equal(maps(line) == 1, samples.label_map(line) == 1)
    code, out, err = cli("complete", "--of-real", data, "--free", "core", "--out", tmp_path / "real", "--count", 4)
    assert code == 0 and "Dice of the segmenter on the real image" in out, err
    for wrong, said in (
        (("--out", tmp_path / "x"), "there is nothing to complete"),
        ((run_folder, "--of-real", data, "--out", tmp_path / "x"), "it takes no run"),
        ((run_folder, "--masks", data, "--out", tmp_path / "x"), "no class is free"),
    ):
        code, _, err = cli("complete", *wrong)
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1
