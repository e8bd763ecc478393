"""The floors, and the ceiling of an autoencoder, on images whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.evaluation import evaluate as evaluate_module
from anatogen.evaluation.evaluate import run_sections, subject_of
from anatogen.evaluation.sections.floors import Floors
from anatogen.evaluation.sections.reconstruction import Reconstruction, decibels
from anatogen.evaluation.subject import SampleSets, Subject
from anatogen.model import AboutModel, ImageModel, ModelSpec
from anatogen.reporting.answers import answers, generator_tables
from anatogen.reporting.results import FaithfulnessResult, Report
from anatogen.reporting.summary import summary_lines
from by_brightness import judge_by_brightness
from cohorts import many_patients, sample_set


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return many_patients(tmp_path_factory.mktemp("cohort"))


class ByMoments:
    """An encoder that needs no training: means and deviations of the image and of its four quarters, many times."""

    digest = "by moments"

    def __call__(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        x = np.asarray(images)[:, 0]
        h, w = x.shape[1] // 2, x.shape[2] // 2
        parts = [x, x[:, :h, :w], x[:, :h, w:], x[:, h:, :w], x[:, h:, w:], np.diff(x, axis=1), np.diff(x, axis=2)]
        return np.stack([f(p.reshape(len(x), -1), axis=1) for p in parts for f in (np.mean, np.std)], axis=1)


def judged(
    dataset: PreparedDataset, images: np.ndarray, folder: Path, monkeypatch: pytest.MonkeyPatch, **abilities: Any
) -> Report:
    judge_by_brightness(monkeypatch)
    monkeypatch.setattr(evaluate_module, "SECTIONS", (Floors, Reconstruction))
    monkeypatch.setattr(Subject, "encoder", ByMoments())
    subject = subject_of(SampleSets(sample_set(folder / "samples", dataset, images)), dataset, work=folder)
    about = AboutModel(steps=10)
    spec = ModelSpec(dataset.schema, dataset.size, channels=dataset.channels)
    known = {"describe": lambda: about, "spec": spec, **abilities}
    generator = cast(ImageModel, SimpleNamespace(**known))
    subject = replace(subject, sets=replace(subject.sets, generator=generator))
    return run_sections(subject, only=("faithfulness",)).report


@pytest.fixture
def real(cohort: PreparedDataset) -> np.ndarray:
    return cohort.load(cohort.split("test")).images.numpy()


def test_a_perfect_model_beats_both(
    cohort: PreparedDataset, real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(cohort, real, tmp_path, monkeypatch)
    found = report.floors
    assert found is not None and found.sentences == () and found.images == len(real)
    assert found.difference is not None and found.difference > 0.05
    assert found.difference_ci95 is not None and (found.difference_ci95[0] or 0) > 0
    assert found.fid is not None and found.fid_painting is not None and found.fid < found.fid_painting
    [table] = generator_tables(report)
    assert len(table.rows) == 2 and table.rows[0].cells[0].startswith(f"{found.dice.mean:.3f}")  # type: ignore[union-attr]


def test_a_model_that_does_not_follow_is_told(
    cohort: PreparedDataset, real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(cohort, np.roll(real, len(real) // 2, axis=0), tmp_path, monkeypatch)
    assert report.floors is not None and len(report.floors.sentences) == 1
    assert "follows the label maps less than" in report.floors.sentences[0] and report.floors.sentences[0] in list(
        summary_lines(report)
    )


def test_a_model_of_noise_is_told_twice(
    cohort: PreparedDataset, real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, real.shape).astype(np.float32)
    found = judged(cohort, noise, tmp_path, monkeypatch).floors
    assert found is not None and len(found.sentences) == 2 and "painted" in found.sentences[1]


def test_of_one_patient_nothing_is_claimed(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test patient: neither an interval nor a distance, so it is said that these patients cannot tell."""
    one = dataset.load(dataset.split("test")[:1]).images.numpy()
    found = judged(dataset, one, tmp_path, monkeypatch).floors
    assert found is not None and found.fid is None and found.difference_ci95 is None
    assert all("as far as these patients can tell" in sentence for sentence in found.sentences)


def test_what_learns_nothing_is_not_compared_with_itself(
    cohort: PreparedDataset, real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(cohort, real, tmp_path, monkeypatch, describe=lambda: AboutModel(steps=0))
    assert report.floors is None and report.reconstruction is None and report.not_applicable == {}


def test_the_ceiling_of_an_autoencoder(
    cohort: PreparedDataset, real: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = judged(cohort, real, tmp_path / "a", monkeypatch, reconstruct=lambda images: images).reconstruction
    flat = judged(cohort, real, tmp_path / "b", monkeypatch, reconstruct=np.zeros_like).reconstruction
    dimmer = judged(cohort, real, tmp_path / "c", monkeypatch, reconstruct=lambda images: images - 0.02)
    near = dimmer.reconstruction
    assert perfect is not None and flat is not None and near is not None and near.dice is not None
    assert (
        perfect.dice is not None and perfect.dice.mean is not None and perfect.dice.mean > 0.9 and perfect.psnr is None
    )
    assert near.psnr == pytest.approx(10 * np.log10(4 / 0.02**2)) and (flat.psnr or 99) < 20
    assert flat.dice is not None and (flat.dice.mean or 0) < 0.3
    # It stands with the answer on faithfulness.
    whole = dimmer.model_copy(update={"faithfulness": FaithfulnessResult(dice_gen_map=near.dice)})
    [table] = [t for t in answers(whole, cohort.schema.names)[0].tables if "autoencoder" in t.caption]
    assert table.rows[0].cells[1] == f"{near.psnr:.1f} dB"


def test_decibels() -> None:
    real = np.zeros((3, 1, 4, 4), np.float32)
    made = real + np.array([0.0, 0.2, 2.0], np.float32).reshape(3, 1, 1, 1)
    assert decibels(made, real).tolist() == pytest.approx([np.inf, 20.0, 0.0])
