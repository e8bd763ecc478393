"""The run of a sample set is found without its path being kept: beside the set, or where the user says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.errors import ModelError, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import write_sample_set
from anatogen.workflows.evaluate import generator_of
from cohorts import RealImages


def test_beside_the_set_or_where_the_user_says(run_folder: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    project = tmp_path / "home" / "project"
    run = Path(shutil.copytree(run_folder, project / "runs" / "balls"))
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states())
    samples = write_sample_set(Generator.load(run, device="cpu"), requests, project / "report" / "samples")
    assert str(tmp_path) not in (samples.folder / "samples.json").read_text()
    generator, found = generator_of(samples, "cpu", None)
    assert generator is not None and found is not None and found.resolve() == run.resolve()
    away = Path(shutil.move(run, tmp_path / "another"))
    assert generator_of(samples, "cpu", None) == (None, None)
    generator, found = generator_of(samples, "cpu", away)
    assert generator is not None and found == away
    # Another model of the same name beside the set is passed over; one that the user names is refused.
    shutil.copytree(away, run)
    weights = bytearray((run / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model.safetensors").write_bytes(weights)
    assert generator_of(samples, "cpu", None) == (None, None)
    other = write_sample_set(RealImages(dataset), requests, tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is not the run that made the images"):
        generator_of(other, "cpu", away)
    with pytest.raises(ModelError):
        generator_of(other, "cpu", tmp_path / "nowhere")
