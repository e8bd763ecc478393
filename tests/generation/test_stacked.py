"""Slices stacked to volumes: one noise for all of them, and each as the slice model makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.kinds import load_model
from anatogen.model import Query

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def volumes(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    source = open_source(str(dataset_folder.parent / "raw"))
    out = tmp_path_factory.mktemp("stacked") / "volumes"
    return prepare(source, out, PrepareSettings(size=(12, 32, 32)), version="test")


def test_each_slice_is_that_of_the_slice_model(
    cli: Cli, volumes: PreparedDataset, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stacked"
    code, said, err = cli("train", volumes.folder, "--model", "stacked", "--from", run_folder, "--out", out)
    assert code == 0 and "stacked" in said, err
    model, slices = load_model(out, device="cpu"), Generator.load(run_folder, device="cpu")
    assert model.spec.size == (12, 32, 32) and model.spec.axis == "volume" and model.spec.is_that_of(volumes)
    states = volumes.schema.states()
    labels = volumes.load(volumes.split("test")[:1]).labels[0].numpy()
    flat = np.broadcast_to(labels[5], labels.shape).copy()  # the same map in every slice
    [(_, made), (_, same)] = list(model.generate([Query(labels, states, 3), Query(flat, states, 3)], batch_size=5))
    assert made.shape == (1, 12, 32, 32)
    for place in (0, 5, 11):
        assert np.allclose(made[:, place], slices.sample(labels[place], seeds=(3,))[0], atol=1e-5)
    assert np.allclose(same, same[:, :1], atol=1e-5)  # and the same noise
    code, _, err = cli("sample", out, "--masks", volumes.folder, "--out", tmp_path / "samples", "--steps", 2,
                       "--format", "nifti", "--device", "cpu")  # fmt: skip
    assert code == 0, err
    assert cli("check", tmp_path / "samples")[0] == 0
    assert "stacked" in cli("info", out)[1]


def test_what_is_refused(
    cli: Cli, volumes: PreparedDataset, run_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> str:
        code, _, err = cli("train", *arguments, "--model", "stacked", "--out", tmp_path / "out")
        assert code == 2 and "Traceback" not in err and not (tmp_path / "out" / "model.json").exists()
        return err

    assert "--from SLICE_RUN" in refused(volumes.folder)
    assert "data set of slices" in refused(dataset_folder, "--from", run_folder)
    source = open_source(str(dataset_folder.parent / "raw"))
    other = prepare(source, tmp_path / "other", PrepareSettings(size=(12, 24, 32)), version="test")
    assert "--size 24x32 --axis axial" in refused(other.folder, "--from", run_folder)
    assert "no training settings" in refused(volumes.folder, "--from", run_folder, "--steps", 3)
    assert "no such run" in refused(volumes.folder, "--from", tmp_path / "nowhere")
