"""Which images are asked for: absent classes, every combination, pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.conditioning.edit import erase
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.manifest import Origin
from anatogen.generation.plan import DatasetMaps, MapItem, Plan, requests_from_dataset
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
    source = Maps(LabelSchema.from_names(["a", "b", "c"]))
    schema = source.schema
    made = Plan(schema.states(), combine=("a", "c")).requests(source)
    assert [r.states.free_names(schema) for r in made] == 2 * [[], ["c"], ["a"], ["a", "c"]]
    assert len({r.id for r in made}) == 8 and len({r.seed for r in made}) == 2 and len({r.seed for r in made[:4]}) == 1
    assert [made.id_of(i) for i in range(8)] == [r.id for r in made]
    with pytest.raises(SettingsError, match="512 combinations"):
        names = tuple(f"c{i}" for i in range(9))
        many = Maps(LabelSchema.from_names(names))
        Plan(many.schema.states(), combine=names).requests(many)
    with pytest.raises(SettingsError, match="unknown class 'd'"):
        Plan(schema.states(), combine=("d",)).requests(source)


class Maps:
    """Two empty label maps."""

    def __init__(self, schema: LabelSchema) -> None:
        self.schema, self.asked, self.read = schema, dict[str, Any](), list[int]()

    def __len__(self) -> int:
        return 2

    def name(self, number: int) -> str:
        return f"r{number}"

    def item(self, number: int) -> MapItem:
        self.read.append(number)
        return MapItem(np.zeros((8, 8), dtype=np.int64), self.schema.states(), Origin())


def test_names_are_found_without_reading_label_maps() -> None:
    source = Maps(LabelSchema.from_names(["a", "b"]))
    made = Plan(source.schema.states(), combine=("a",), per_mask=2).requests(source)
    assert made.id_of(3) == "r0_01_free1" and made[2:4].id_of(1) == "r0_01_free1" and source.read == []
    assert made[3].id == "r0_01_free1" and source.read == [0]


def test_similarity_needs_real_images() -> None:
    source = Maps(LabelSchema.from_names(["a"]))
    with pytest.raises(SettingsError, match="no real images"):
        Plan(source.schema.states(), similarities=(0.5,)).requests(source)[0]


def test_combinations_and_similarities_multiply(dataset: PreparedDataset) -> None:
    source = DatasetMaps(dataset, dataset.split("test")[:2])
    made = Plan(dataset.schema.states(), combine=("ball",), similarities=(0.0, 0.5)).requests(source)
    ends = ["free0_alike0", "free0_alike0.5", "free1_alike0", "free1_alike0.5"]
    assert [r.id.split("_00_")[1] for r in made] == 2 * ends and len({r.id for r in made}) == 8
    assert [r.start.similarity for r in made if r.start is not None] == 4 * [0.0, 0.5]


def test_requests_are_a_sequence(dataset: PreparedDataset) -> None:
    made = requests_from_dataset(dataset, dataset.split("test")[:4], dataset.schema.states())
    assert [r.id for r in made[1:3]] == [made[1].id, made[2].id] and made[-1].id == made[3].id
    with pytest.raises(IndexError):
        made[4]
    source = DatasetMaps(dataset, dataset.split("test")[:4])
    similar = Plan(dataset.schema.states(), similarities=(0.2, 0.2, 0.4)).requests(source)
    assert len(similar) == 8  # one and the same similarity is made once
    with pytest.raises(SettingsError, match="outside"):
        Plan(dataset.schema.states(), similarities=(1.0,)).requests(source)


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
        (("--absent", "cor"), "unknown class 'cor'"),
        (("--combine", "bal"), "unknown class 'bal'"),
        (("--paired", "--format", "dicom"), "cannot be written as dicom"),
    ):
        code, _, err = cli(*base, *more, "--out", tmp_path / "bad")
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1
        assert not (tmp_path / "bad").exists()


def test_the_overview_draws_every_kind_of_set(longer_run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    generator = Generator.load(longer_run, device="cpu")
    source, plan = DatasetMaps(dataset, dataset.split("test")[:2]), Plan(dataset.schema.states(), paired=True)
    combined = write_sample_set(generator, replace(plan, combine=("ball",)).requests(source), tmp_path / "a")
    similar = write_sample_set(generator, replace(plan, similarities=(0.0, 0.5)).requests(source), tmp_path / "b")
    for samples in (combined, similar):
        assert overview(samples).startswith(b"\x89PNG")
