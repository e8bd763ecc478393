from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.evaluation.copies import (
    copies_of,
    measure_copies,
    read_privacy,
    require_training_data,
    trained_on,
    write_privacy,
)
from anatogen.generation.engine import Generator
from anatogen.generation.gates import copy_gate, dice_gate, given_dice
from anatogen.generation.header import AboutModel, GateSettings
from anatogen.generation.manifest import Measures
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.rejection import generate_gated
from anatogen.generation.request import Request
from anatogen.judges import copy_search
from anatogen.judges.copy_search import CopySearch
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.labels import ClassStates, LabelSchema
from anatogen.metrics.neighbours import Neighbours, nearest_neighbours
from anatogen.reporting.verdicts import SELECTED_BY_COPIES
from cohorts import copies, many_patients, sample_set

pytestmark = pytest.mark.usefixtures("small_judges")

SCHEMA = LabelSchema.from_names(["a", "b"])


def label_map(a: int, b: int) -> np.ndarray:
    """(20, 20) with `a` pixels of class 1 and `b` of class 2."""
    flat = np.zeros(400, np.int64)
    flat[:a], flat[200 : 200 + b] = 1, 2
    return flat.reshape(20, 20)


BOTH, ONLY_A = (True, True), (True, False)


@pytest.mark.parametrize(
    ("found", "asked", "given", "dice"),
    [
        (label_map(50, 20), label_map(50, 20), BOTH, 1),
        (label_map(50, 0), label_map(100, 0), BOTH, 2 * 50 / 150),
        (label_map(50, 20), label_map(100, 20), BOTH, (2 * 50 / 150 + 1) / 2),  # the mean over classes
        (label_map(50, 0), label_map(50, 20), BOTH, 0.5),  # drawn and not found
        (label_map(50, 4), label_map(50, 0), BOTH, 1),  # absent, and but four pixels found
        (label_map(50, 5), label_map(50, 0), BOTH, 0.5),  # absent and found: Dice 0
        (label_map(0, 5), label_map(0, 0), BOTH, 0),
        (label_map(50, 90), label_map(50, 0), ONLY_A, 1),  # a free class may be anywhere
        (label_map(0, 0), label_map(0, 90), ONLY_A, np.nan),
        (label_map(3, 0), label_map(0, 0), BOTH, np.nan),
    ],
)
def test_dice_of_what_was_given(found: np.ndarray, asked: np.ndarray, given: tuple[bool, bool], dice: float) -> None:
    assert given_dice(found[None], asked[None], np.array([given]), 3) == pytest.approx([dice], nan_ok=True)


def test_stray_pixels_are_a_share_of_large_images() -> None:
    asked = np.zeros((1, 100, 100), np.int64)
    for count, dice in ((10, np.nan), (11, 0)):
        found = asked.copy()
        found.flat[:count] = 1
        assert given_dice(found, asked, np.array([[True]]), 2) == pytest.approx([dice], nan_ok=True)


def test_verdicts_of_the_dice_gate() -> None:
    maps = [label_map(50, 20), label_map(100, 20), label_map(0, 0)]
    requests = [Request(m, ClassStates(BOTH), i, id=str(i)) for i, m in enumerate(maps)]
    found = np.stack([label_map(50, 20), label_map(50, 20), label_map(0, 0)])
    gate = dice_gate(lambda images: images[:, 0].astype(np.int64), SCHEMA, 0.9)
    assert gate.settings == GateSettings(min_dice=0.9)
    good, bad, empty = gate(requests, found[:, None].astype(np.float32))
    assert (good.accepted, good.measures) == (True, Measures(dice=1.0))
    assert (bad.accepted, bad.measures, bad.reason) == (False, Measures(dice=0.8333), "Dice 0.8333 is below 0.9")
    assert empty.accepted and "no given class" in str(empty.measures.note)
    for wrong in (0, 1.01, float("nan")):
        with pytest.raises(SettingsError, match=r"must be in \(0, 1\]"):
            dice_gate(lambda images: images, SCHEMA, wrong)


def test_a_real_segmenter_keeps_what_follows_its_map(longer_run: Path, dataset_folder: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset.open(shutil.copytree(dataset_folder, tmp_path / "data"))
    segmenter = segmenter_for(
        dataset, SegmenterSettings(steps=100, batch_size=4, learning_rate=5e-3, validations=2), device="cpu"
    )
    rows = dataset.split("test")
    batch = dataset.load(rows)
    requests = list(requests_from_dataset(dataset, rows, ClassStates.all_given(dataset.schema)))
    gate = dice_gate(segmenter, dataset.schema, 0.3)
    real = gate(requests, batch.images.numpy())
    turned = gate(requests, np.roll(batch.images.numpy(), 16, axis=3))  # the balls at the border
    assert np.mean([v.accepted for v in real]) > 0.8 and not any(v.accepted for v in turned)
    assert [v.measures for v in gate(requests[:3], batch.images[:3].numpy())] == [v.measures for v in real[:3]]
    # A bound that the first tries miss and later ones reach: the kept are better, and some requests have several tries.
    generator = Generator.load(longer_run, device="cpu")
    some = requests[::3]
    first = [o.measures.dice for o in generate_gated(generator, some, gates=[dice_gate(segmenter, SCHEMA, 1e-9)])]
    bound = float(np.median(first))
    outcomes = list(generate_gated(generator, some, gates=[dice_gate(segmenter, SCHEMA, bound)], retries=2))
    assert [o.tries[0].verdict.measures.dice for o in outcomes] == pytest.approx(first, abs=2e-3)
    assert all(o.measures.dice >= round(bound, 4) for o in outcomes if o.image is not None)
    assert any(len(o.tries) > 1 for o in outcomes) and any(o.image is not None for o in outcomes)


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_patients(tmp_path_factory.mktemp("cohort")).folder


@pytest.fixture
def cohort(cohort_folder: Path) -> PreparedDataset:
    return PreparedDataset.open(cohort_folder)


def patients(dataset: PreparedDataset) -> np.ndarray:
    return np.array([row.patient for row in dataset.split("test")])


def same(a: Neighbours, b: Neighbours) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Neighbours))


def test_copies_are_told_from_new_patients(cohort: PreparedDataset) -> None:
    real = cohort.load(cohort.split("test")).images.numpy()
    found = measure_copies(cohort, copies(cohort), patients(cohort))
    assert found.rate.rate > 0.9 and found.rate.above_chance and found.rate.grouped
    nearest = [found.train_rows[i].id for i in found.generated.index]
    expected = [found.train_rows[i % len(found.train_rows)].id for i in range(len(real))]
    assert np.mean([a == b for a, b in zip(nearest, expected, strict=True)]) > 0.95
    assert {row.split for row in found.heldout_rows} == {"heldout", "val", "test"}
    # The distances themselves: those of the function of arrays.
    train = cohort.load(cohort.split("train")).images.numpy()
    some = cohort.load(found.heldout_rows[:40]).images.numpy()
    assert np.allclose(found.heldout.distance[:40], nearest_neighbours(some, train).distance, atol=1e-6)
    healthy = measure_copies(cohort, real, patients(cohort))
    assert not healthy.rate.above_chance and same(healthy.heldout, found.heldout)


def test_heldout_distances_are_kept_by_content(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PreparedDataset.open(
        shutil.copytree(cohort_folder, tmp_path / "data", ignore=shutil.ignore_patterns("copies-*"))
    )
    monkeypatch.setattr(copy_search, "UNSEEN", ("val",))  # fewer, for speed
    calls: list[tuple[int, int]] = []
    images = dataset.load(dataset.split("test")[:3]).images.numpy()
    search = CopySearch(dataset)
    assert search.kept() is None
    first = measure_copies(dataset, images, patients(dataset)[:3], progress=lambda *at: calls.append(at))
    total = len(search.heldout_rows) + 3
    assert calls[-1] == (total, total) and len(calls) > 1
    (kept,) = dataset.folder.glob("copies-*.npz")
    calls.clear()
    again = measure_copies(dataset, images, patients(dataset)[:3], progress=lambda *at: calls.append(at))
    assert calls == [(3, 3)] and same(again.heldout, first.heldout) and again.rate.rate == first.rate.rate
    kept.write_bytes(kept.read_bytes()[:500])  # torn
    assert same(CopySearch(dataset).heldout(), first.heldout) and CopySearch(dataset).kept() is not None
    # Other images, another digest.
    other = CopySearch(dataset)
    other._train[0] += 0.5
    assert other.digest != search.digest and other.kept() is None
    # Where nothing can be written, nothing is kept and nothing fails.
    kept.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert same(CopySearch(dataset).heldout(), first.heldout) and not list(dataset.folder.glob("copies-*"))


def test_memory_is_bounded_by_averaging(cohort: PreparedDataset) -> None:
    whole = 4 * len(cohort.split("train")) * 32 * 32
    assert [CopySearch(cohort, most_bytes=n).factor for n in (whole, whole - 1, whole // 4, whole // 5)] == [1, 2, 2, 3]
    pooled = CopySearch(cohort, most_bytes=whole // 5)._train
    batch = cohort.load(cohort.split("train")[:1]).images.numpy()
    assert pooled.shape[2:] == (10, 10) and pooled[0, 0, 1, 2] == pytest.approx(batch[0, 0, 3:6, 6:9].mean(), abs=1e-6)
    found = measure_copies(cohort, copies(cohort), patients(cohort), most_bytes=whole // 4)
    assert found.rate.rate > 0.9 and found.rate.above_chance


def test_the_copy_gate_names_the_row(cohort: PreparedDataset) -> None:
    gate = copy_gate(CopySearch(cohort))
    rows = cohort.split("test")
    requests = list(requests_from_dataset(cohort, rows, ClassStates.all_given(cohort.schema)))
    planted, real = copies(cohort), cohort.load(rows).images.numpy()
    verdicts = gate(requests, planted)
    assert np.mean([not v.accepted for v in verdicts]) > 0.9
    row, nearest = cohort.split("train")[0], verdicts[0].measures.nearest
    assert nearest is not None
    assert nearest.row == row.id and f"training image {row.id}" in verdicts[0].reason
    assert nearest.distance < nearest.threshold
    assert np.mean([v.accepted for v in gate(requests, real)]) > 0.9
    alone = [gate([r], image[None])[0].accepted for r, image in zip(requests[:5], planted[:5], strict=True)]
    assert alone == [v.accepted for v in verdicts[:5]]
    assert gate.settings == copy_gate(CopySearch(cohort)).settings
    assert GateSettings.model_validate_json(gate.settings.model_dump_json()) == gate.settings


def test_without_unseen_patients_nothing_can_be_told(cohort: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_search, "UNSEEN", ("nobody",))
    with pytest.raises(DataError, match=r"no patients outside the training split.*--split"):
        CopySearch(cohort)


def test_copies_of_a_sample_set(cohort: PreparedDataset, tmp_path: Path) -> None:
    samples = sample_set(tmp_path / "s", cohort, copies(cohort))
    found = copies_of(samples, cohort)
    direct = measure_copies(cohort, copies(cohort), patients(cohort))
    assert same(found.generated, direct.generated) and found.rate.p_value == direct.rate.p_value
    elsewhere = AboutModel.of({"dataset": {"name": "other", "fingerprint": "0"}})
    assert trained_on(AboutModel(), cohort) is None and trained_on(elsewhere, cohort) is False
    assert trained_on(samples.header.about_model, cohort) is True
    require_training_data(AboutModel(), cohort)
    with pytest.raises(SettingsError, match=r"does not hold what the model was trained on \(its split of other\)"):
        copies_of(sample_set(tmp_path / "o", cohort, copies(cohort)[:2], about_model=elsewhere.content()), cohort)
    small = sample_set(tmp_path / "small", cohort, copies(cohort)[:2, :, :16])
    with pytest.raises(DataError, match="cannot be compared"):
        copies_of(small, cohort)


def test_privacy_is_kept_beside_the_manifest(cohort: PreparedDataset, tmp_path: Path) -> None:
    samples = sample_set(tmp_path / "s", cohort, copies(cohort))
    assert read_privacy(samples) is None
    rate = copies_of(samples, cohort).rate
    written = write_privacy(samples, rate)
    assert read_privacy(samples) == written
    assert (written.copy_rate, written.ci95, written.above_chance, written.decided) == (
        rate.rate,
        rate.ci95,
        True,
        True,
    )
    file = json.loads((tmp_path / "s" / "privacy.json").read_text())
    assert {"model": "a model", "images": len(samples.entries), "copy_rate": rate.rate}.items() <= file.items()
    for change in ({"model": "another"}, {"images": 3}, {"above_chance": "no"}, {"ci95": 1}):
        (tmp_path / "s" / "privacy.json").write_text(json.dumps({**file, **change}))
        assert read_privacy(samples) is None
    (tmp_path / "s" / "privacy.json").write_text("{")
    assert read_privacy(samples) is None
    assert "selected by this very measure" not in written.verdict
    gate = {"retries": 3, "reject_copies": {"level": 0.01, "compared_with": "0123456789abcdef"}}
    gated = sample_set(tmp_path / "gated", cohort, copies(cohort), gate=gate)
    assert write_privacy(gated, rate).verdict == f"{written.verdict} {SELECTED_BY_COPIES}"
    few = sample_set(tmp_path / "few", cohort, copies(cohort)[:1])
    undecided = dataclasses.replace(rate, detectable=float("nan"), p_value=0.3, n_generated=1)
    found = write_privacy(few, undecided)
    assert not found.decided and not found.above_chance and found.verdict.startswith("Undecided")
    assert read_privacy(few) == found
