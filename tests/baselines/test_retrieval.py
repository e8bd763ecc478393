"""Nearest-map retrieval: known answers, and that real patients' images stay marked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.baselines.retrieval import NearestMap, make_retrieval, similarity_of_maps
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, ModelError, SettingsError
from anatogen.generation.kinds import load_model
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.model import HasDenoiser, HasSimilarity, HasSteps, Query


@pytest.fixture
def run(dataset: PreparedDataset, tmp_path: Path) -> Path:
    make_retrieval(dataset, tmp_path / "run")
    return tmp_path / "run"


def test_a_training_map_gives_its_own_image(run: Path, dataset: PreparedDataset) -> None:
    model, rows = load_model(run), dataset.split("train")
    requests = requests_from_dataset(dataset, rows, dataset.schema.states())
    real, maps = dataset.load(rows).images.numpy(), dataset.load(rows).labels.numpy()
    for (request, image), own, labels in zip(model.generate(requests, batch_size=5), real, maps, strict=True):
        same = [other for other, theirs in zip(real, maps, strict=True) if np.array_equal(theirs, labels)]
        assert np.array_equal(image, same[0]), request.id
        assert len(same) > 1 or np.array_equal(image, own)


def test_the_nearest_by_construction() -> None:
    def row(*classes: int) -> torch.Tensor:
        return torch.tensor(classes)

    wanted = torch.stack([row(1, 1, 2, 0), row(0, 0, 0, 0)])
    labels = torch.stack([row(1, 1, 0, 0), row(1, 0, 2, 0), row(0, 0, 0, 0), row(2, 2, 1, 0)])
    every = torch.ones(2, 2, dtype=torch.bool)
    scores = similarity_of_maps(wanted, labels, every)
    assert torch.allclose(scores[0], torch.tensor([0.5, (2 / 3 + 1) / 2, 0.0, 0.0], dtype=torch.float64))
    assert scores[1].tolist() == [0, 0, 1, 0]  # an empty map agrees with an empty one
    # Without class 2 the first map is a perfect match; with nothing given, all are equally near.
    assert similarity_of_maps(wanted, labels, torch.tensor([[True, False]] * 2))[0].tolist()[0] == 1
    assert similarity_of_maps(wanted, labels, ~every).unique().tolist() == [1]


def test_neither_seed_nor_batch_nor_block_matters(
    run: Path, dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset.split("test")[:5]
    queries = [
        Query(labels, dataset.schema.states(), seed) for seed, labels in enumerate(dataset.load(rows).labels.numpy())
    ]
    model = NearestMap.load(run)
    whole = model.nearest(queries)
    again = [model.nearest([Query(query.labels, query.states, 99)])[0] for query in queries]
    monkeypatch.setattr("anatogen.baselines.retrieval._BLOCK_PIXELS", 3 * 32 * 32)
    assert whole == again == model.nearest(queries)


def test_what_it_can_do(run: Path) -> None:
    model = load_model(run)
    assert model.spec.real_patients and not model.spec.seeds_vary and model.spec.sees_labels
    assert not isinstance(model, HasSteps | HasDenoiser | HasSimilarity)
    assert not list(run.glob("*.safetensors")) and len(list(run.iterdir())) == 1


def test_its_sets_are_marked_and_not_exported(cli, run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = ("sample", run, "--masks", dataset.folder, "--count", 3)
    code, out, err = cli(*base, "--out", tmp_path / "samples")
    assert code == 0 and "real patients" in out + err, err
    samples = SampleSet.open(tmp_path / "samples")
    assert samples.header.real_patients and samples.header.sampling is None and samples.entries[0].solver is None
    assert json.loads((tmp_path / "samples" / "samples.json").read_text())["real_patients"] is True
    code, _, err = cli("export", tmp_path / "samples", tmp_path / "out", "--to", "nnunet")
    assert code == 2 and "real patients" in err and not (tmp_path / "out").exists()
    for form in ("nifti", "dicom"):
        code, _, err = cli(*base, "--format", form, "--out", tmp_path / form)
        assert code == 2 and "real patients" in err and not (tmp_path / form).exists()
    for more in (("--steps", 4), ("--solver", "ddim")):
        code, _, err = cli(*base, *more, "--out", tmp_path / "stepped")
        assert code == 2 and f"{more[0]} is not applicable" in err
    code, _, err = cli("interpolate", run, "--masks", dataset.folder, "--out", tmp_path / "similar")
    assert code == 2 and "similarity to a real image is not applicable" in err
    code, _, err = cli("export", run, tmp_path / "unet", "--to", "diffusers")
    assert code == 2 and "retrieval" in err
    code, out, _ = cli("info", run)
    assert code == 0 and "retrieval" in out
    assert cli("info", tmp_path / "samples")[0] == 0


def test_made_by_the_command_line(cli, dataset: PreparedDataset, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = cli("train", dataset.folder, "--out", tmp_path / "run", "--model", "retrieval")
    assert code == 0 and "training images" in out, err
    assert cli("train", dataset.folder, "--out", tmp_path / "run", "--model", "retrieval")[0] == 2
    code, _, err = cli("train", dataset.folder, "--out", tmp_path / "b", "--model", "retrieval", "--steps", 5)
    assert code == 2 and "takes no training settings" in err
    code, _, err = cli("train", dataset.folder, "--out", tmp_path / "b", "--model", "retrival")
    assert code == 2 and "retrieval" in err and not (tmp_path / "b").exists()


def test_a_data_set_that_moved_or_changed(dataset: PreparedDataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.folder, tmp_path / "data")
    make_retrieval(PreparedDataset.open(tmp_path / "data"), tmp_path / "runs" / "near")
    load_model(tmp_path / "runs" / "near")
    index = tmp_path / "data" / "index.csv"
    index.write_text(index.read_text().replace(",test,", ",train,"))
    with pytest.raises(ModelError, match="another training split"):
        load_model(tmp_path / "runs" / "near")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(ModelError, match="cannot be opened"):
        load_model(tmp_path / "runs" / "near")


def test_kinds_from_the_future_are_refused(run: Path) -> None:
    content = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(content | {"kind": "holographic"}))
    with pytest.raises(ModelError, match="holographic.*denoiser.*retrieval"):
        load_model(run)


def test_scans_are_refused_from_python_too(run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states())
    with pytest.raises(SettingsError, match="real patients"):
        write_sample_set(load_model(run), requests, tmp_path / "out", image_format="nifti")
    with pytest.raises(DataError):
        SampleSet.open(tmp_path / "out")
