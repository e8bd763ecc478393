"""Label maps of another data set as a model's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anatogen import evaluate
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.plan import ForeignMaps, Plan
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.model import ModelSpec
from by_brightness import judge_by_brightness
from conftest import write_nnunet


@pytest.fixture
def other(tmp_path: Path) -> PreparedDataset:
    """Balls again, of half the pixel size, in the other order, the core called otherwise, and with a class more."""
    raw = write_nnunet(tmp_path / "raw", labels={"background": 0, "Ball": 1, "kernel": 2, "wall": 3})
    settings = PrepareSettings((64, 64), spacing_mm=(0.5, 0.5, 2.5))
    return prepare(open_source(str(raw)), tmp_path / "other", settings)


def test_a_run_remembers_its_geometry(run_folder: Path, dataset: PreparedDataset, other: PreparedDataset) -> None:
    geometry = Generator.load(run_folder, device="cpu").spec
    assert geometry.axis == "axial" and geometry.size == (32, 32) and geometry.spacing_mm == pytest.approx((1, 1))
    assert geometry.is_that_of(dataset) and not geometry.is_that_of(other)


def test_maps_are_matched_and_brought(run_folder: Path, other: PreparedDataset) -> None:
    generator, rows = Generator.load(run_folder, device="cpu"), other.split("test")
    states = generator.schema.states()
    made = Plan(states).requests(ForeignMaps(other, rows, generator.spec, renames={"core": "kernel"}))
    for request in made:
        row = next(r for r in rows if (r.case, r.slice) == (request.origin.case, request.origin.slice))
        theirs = other.load([row]).labels[0].numpy()
        assert request.states.given == (True, True) and request.place is None
        assert (request.labels > 0).sum() == pytest.approx((theirs > 0).sum() / 4, rel=0.12, abs=3)
    only_ball = Plan(states, count=3).requests(ForeignMaps(other, rows, generator.spec))
    assert len(only_ball) == 3
    assert all(r.states.given == (True, False) and set(np.unique(r.labels)) <= {0, 1} for r in only_ball)
    with pytest.raises(SettingsError, match="no class 'corn'"):
        ForeignMaps(other, rows, generator.spec, renames={"core": "corn"})


def test_from_the_command_line_to_a_report(  # type: ignore[no-untyped-def]
    cli, longer_run: Path, dataset_folder: Path, other: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by_brightness(monkeypatch)
    base = ("sample", longer_run, "--masks", other.folder, "--device", "cpu", "--count", 6)
    code, out, err = cli(*base, "--rename", "core=kernel", "--out", tmp_path / "samples")
    assert code == 0, err
    assert "classes matched: ball (theirs: Ball), core (theirs: kernel)" in out and "wall" in out
    entries = SampleSet.open(tmp_path / "samples").entries
    assert len(entries) == 6 and all(entry.elsewhere for entry in entries)
    code, out, err = cli("sample", longer_run, "--masks", other.folder, "--out", tmp_path / "free", "--count", 2)
    assert code == 0 and "free, because the label maps lack them: core" in out

    results = evaluate(
        tmp_path / "samples",
        dataset_folder,
        tmp_path / "report",
        only=("faithfulness",),
        device="cpu",
        quick=True,
    )
    saved = json.loads((tmp_path / "report" / "report.json").read_text())
    assert saved["split"] == ["elsewhere"] and "dice_gen_real" not in saved["faithfulness"]
    assert (
        results["faithfulness"]["dice_gen_map"]["mean"] > 0.6
        and results["faithfulness"]["dice_real_map"]["mean"] > 0.99
    )

    for more, message in (
        (("--rename", "core=kern"), "no class 'kern'"),
        (("--rename", "core"), "expected OURS=THEIRS"),
        (("--paired",), "cannot be paired"),
        (("--fit", "padd"), "no --fit 'padd'"),
    ):
        code, _, err = cli(*base, *more, "--out", tmp_path / "bad")
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1, (more, err)


def test_what_does_not_fit_is_refused(run_folder: Path, tmp_path: Path) -> None:
    raw = write_nnunet(tmp_path / "raw2", labels={"background": 0, "ball": 1, "core": 2})
    generator = Generator.load(run_folder, device="cpu")
    flat = prepare(open_source(str(raw)), tmp_path / "sagittal", PrepareSettings((32, 32), axis="sagittal"))
    with pytest.raises(SettingsError, match="contains sagittal slices, but the model generates axial"):
        ForeignMaps(flat, flat.split("test"), generator.spec)
    small = ModelSpec(generator.schema, (8, 8), "axial", (1.0, 1.0))
    other = prepare(open_source(str(raw)), tmp_path / "axial", PrepareSettings((32, 32)))
    with pytest.raises(DataError, match=r"would be cut.*--fit pad"):
        ForeignMaps(other, other.split("test"), small)
    source = ForeignMaps(other, other.split("test"), small, fit="pad")
    padded = Plan(generator.schema.states()).requests(source)
    assert padded[0].labels.shape == (8, 8)


def test_another_models_samples_are_not_evaluated(longer_run: Path, other: PreparedDataset, tmp_path: Path) -> None:
    generator = Generator.load(longer_run, device="cpu")
    source = ForeignMaps(other, other.split("test"), generator.spec)
    made = Plan(generator.schema.states(), count=1).requests(source)
    write_sample_set(generator, made, tmp_path / "s")
    with pytest.raises(SettingsError, match="are not the data set's"):
        evaluate(tmp_path / "s", other, tmp_path / "r", device="cpu")
