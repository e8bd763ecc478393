"""Which images are asked for: absent classes, every combination, pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anatogen.conditioning.edit import erase
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_alike, requests_combined, requests_from_dataset
from anatogen.generation.request import Requests
from anatogen.generation.sample_set import write_sample_set
from anatogen.labels import LabelSchema
from anatogen.reporting.overview import overview


def test_an_erased_part_becomes_what_surrounds_it() -> None:
    labels = np.zeros((12, 12), dtype=np.int64)
    labels[1:9, 1:9] = 1
    labels[3:6, 3:6] = 2  # inside 1
    labels[10:12, 10:12] = 2  # free in the background
    without = erase(labels, {2})
    assert (without[1:9, 1:9] == 1).all() and (without == 1).sum() == 64 and not (without == 2).any()
    assert (erase(labels, {1, 2}) == 0).all()
    assert (erase(np.full((4, 4), 1), {1}) == 0).all()  # nothing around it


def test_absent_classes_are_given_and_nowhere(dataset: PreparedDataset) -> None:
    rows = dataset.split("test")[:3]
    states = dataset.schema.states(given=["ball"], absent=["core"])
    requests = requests_from_dataset(dataset, rows, states, absent=["core"])
    for request, whole in zip(requests, dataset.load(rows).labels.numpy(), strict=True):
        assert request.states.given == (True, True) and request.origin.absent == ("core",)
        assert np.array_equal(request.labels, np.where(whole == 2, 1, whole))
    with pytest.raises(SettingsError, match="'core' is both absent and free"):
        dataset.schema.states(free=["core"], absent=["core"])


def test_every_combination_once_with_one_seed() -> None:
    schema = LabelSchema.from_names(["a", "b", "c"])
    plain = Requests(2, lambda i: _request(i, schema))
    made = requests_combined(plain, schema, ["a", "c"])
    assert [r.states.free_names(schema) for r in made] == 2 * [[], ["c"], ["a"], ["a", "c"]]
    assert len({r.id for r in made}) == 8 and {r.seed for r in made[:4]} == {0}
    with pytest.raises(SettingsError, match="512 combinations"):
        names = [f"c{i}" for i in range(9)]
        requests_combined(plain, LabelSchema.from_names(names), names)
    with pytest.raises(SettingsError, match="no class 'd'"):
        requests_combined(plain, schema, ["d"])


def _request(number: int, schema: LabelSchema):  # type: ignore[no-untyped-def]
    from anatogen.generation.request import Request

    return Request(f"r{number}", np.zeros((8, 8), dtype=np.int64), schema.states(), seed=number)


def test_requests_are_a_sequence(dataset: PreparedDataset) -> None:
    made = requests_from_dataset(dataset, dataset.split("test")[:4], dataset.schema.states())
    assert [r.id for r in made[1:3]] == [made[1].id, made[2].id] and made[-1].id == made[3].id
    with pytest.raises(IndexError):
        made[4]
    alike = requests_alike(dataset, made, [0.2, 0.2, 0.4])
    assert len(alike) == 8  # one and the same similarity is made once
    with pytest.raises(SettingsError, match="outside"):
        requests_alike(dataset, made, [1.0])


@pytest.mark.parametrize("form", ["png", "npy", "nifti"])
def test_pairs_hold_the_real_image(longer_run: Path, dataset: PreparedDataset, tmp_path: Path, form: str) -> None:
    generator, rows = Generator.load(longer_run, device="cpu"), dataset.split("test")[:2]
    requests = requests_from_dataset(dataset, rows, dataset.schema.states(given=["ball"]), paired=True)
    made = write_sample_set(generator, requests, tmp_path / "pairs", image_format=form)
    real = dataset.load(rows).images.numpy()
    for entry, image in zip(made.entries, real, strict=True):
        assert (tmp_path / "pairs" / entry.real).exists() and entry.free == ("core",)
        assert np.abs(made.real_image(entry) - image).max() < 2e-3
        assert np.abs(made.real_image(entry) - made.image(entry)).max() > 0.05


def test_pairs_are_never_written_as_synthetic_dicom(longer_run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    requests = requests_from_dataset(dataset, dataset.split("test")[:1], dataset.schema.states(), paired=True)
    with pytest.raises(SettingsError, match="pass for a synthetic"):
        write_sample_set(Generator.load(longer_run, device="cpu"), requests, tmp_path / "o", image_format="dicom")
    assert not (tmp_path / "o").exists()


def test_from_the_command_line(cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = ("sample", run_folder, "--masks", dataset_folder, "--count", 2, "--device", "cpu")
    code, out, err = cli(*base, "--combine", "all", "--out", tmp_path / "every")
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "every" / "manifest.jsonl").read_text().splitlines()]
    assert [line["free"] for line in lines[:4]] == [[], ["core"], ["ball"], ["ball", "core"]] and len(lines) == 8
    assert (tmp_path / "every" / "overview.png").is_file() and "overview.png" in out
    assert cli(*base, "--combine", "all", "--out", tmp_path / "every")[0] == 0  # nothing left to make

    code, _, err = cli(*base, "--given", "ball", "--paired", "--out", tmp_path / "pairs")
    assert code == 0, err
    assert len(list((tmp_path / "pairs" / "real").iterdir())) == 2
    assert cli("check", tmp_path / "pairs")[0] == 0
    code, _, err = cli(*base, "--absent", "core", "--out", tmp_path / "coreless")
    assert code == 0, err

    for more, message in (
        (("--absent", "core", "--free", "core"), "'core' is both absent and free"),
        (("--given", "ball", "--free", "ball"), "'ball' is both given and free"),
        (("--absent", "cor"), "no class 'cor'"),
        (("--combine", "bal"), "no class 'bal'"),
        (("--paired", "--format", "dicom"), "cannot be written as dicom"),
    ):
        code, _, err = cli(*base, *more, "--out", tmp_path / "bad")
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1
        assert not (tmp_path / "bad").exists()


def test_the_overview_draws_every_kind_of_set(longer_run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    generator = Generator.load(longer_run, device="cpu")
    plain = requests_from_dataset(dataset, dataset.split("test")[:2], dataset.schema.states(), paired=True)
    combined = write_sample_set(generator, requests_combined(plain, dataset.schema, ["ball"]), tmp_path / "a")
    alike = write_sample_set(generator, requests_alike(dataset, plain, [0.0, 0.5]), tmp_path / "b")
    for samples in (combined, alike):
        assert overview(samples).startswith(b"\x89PNG")
