"""Requests whose classes are free in a region only, or unknown at some pixels, and the images that are made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import kinds
from anatogen.conditioning.regions import Box
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import DatasetMaps, Plan
from anatogen.io.pictures import write_label_png
from anatogen.labels import ClassStates
from anatogen.model import Known, Noised, Query, condition_of


def test_free_inside_and_given_outside(dataset: PreparedDataset) -> None:
    schema, rows = dataset.schema, dataset.split("test")[:2]
    box = Box((0, 0), (31, 15))
    made = Plan(schema.states(free=["core"]), within=box).requests(DatasetMaps(dataset, rows))
    request = made[0]
    assert request.states == schema.states(free=["core"]) and request.elsewhere == (schema.states(),)
    assert request.region is not None and not request.region[:, :16].any() and request.region[:, 16:].all()
    assert request.origin.free_within == "box 0,0..31,15" == made.asked.within
    condition = condition_of(list(made))
    core = torch.from_numpy(np.stack([each.labels for each in made])) == 2
    assert torch.equal(condition.labels == 2, core & (torch.arange(32) >= 16))
    everywhere = Plan(schema.states(free=["core"])).requests(DatasetMaps(dataset, rows))
    assert everywhere[0].region is None and everywhere[0].seed == request.seed and everywhere.asked.within is None


def test_unknown_pixels_are_unknown_to_the_model(tmp_path: Path) -> None:
    shares = {"train": 2.0, "heldout": 2.0, "val": 1.0, "test": 1.0}
    settings = PrepareSettings((32, 32), shares=shares, workers=1, keep_names=True)
    data = prepare(open_source(str(kinds.regions_ignore(tmp_path / "raw"))), tmp_path / "data", settings)
    rows = [row for row in data.rows if row.case == "c5"]
    unknown = data.load(rows).ignored
    assert unknown is not None
    nobody = ClassStates((False,) * (data.schema.count - 1))
    for within, last in ((None, 1), (Box((0, 0), (3, 3)), 2)):
        made = Plan(data.schema.states(), within=within).requests(DatasetMaps(data, rows))
        for request, where in zip(made, unknown.numpy(), strict=True):
            if not where.any():
                continue
            assert request.region is not None and request.elsewhere[-1] == nobody
            assert np.array_equal(request.region == last, where)


def test_an_image_depends_on_its_own_regions_alone(dataset: PreparedDataset, run_folder: Path) -> None:
    """Queries of one, two and three regions, from noise and from real images, in one batch and alone."""
    generator, schema = Generator.load(run_folder, device="cpu"), dataset.schema
    batch = dataset.load(dataset.split("test")[:1])
    labels, real = batch.labels[0].numpy(), batch.images[0].numpy()
    every, free = schema.states(), schema.states(free=["core"])
    half = np.zeros(labels.shape, np.uint8)
    half[:16] = 1
    thirds = half.copy()
    thirds[:4] = 2
    queries = [
        Query(labels, every, 1),
        Query(labels, free, 1, region=half, elsewhere=(every,)),
        Query(labels, every, 1, region=thirds, elsewhere=(free, schema.states(given=[]))),
        Query(labels, every, 1, start=Noised(real, 300)),
        Query(labels, every, 1, start=Noised(real, 600)),
        Query(labels, every, 1, start=Known(real, half.astype(np.float32))),
    ]
    together = [image for _, image in generator.generate(queries)]
    for query, image in zip(queries, together, strict=True):
        [(_, alone)] = generator.generate([query])
        assert np.allclose(alone, image, atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    assert not np.allclose(together[3], together[4], atol=1e-3)
    assert np.array_equal(together[5][:, :16], real[:, :16])


def test_regions_from_the_command_line(
    cli: Callable[..., tuple[int, str, str]], dataset_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    asked = ("sample", run_folder, "--masks", dataset_folder, "--count", 2, "--steps", 2, "--out")
    code, out, _ = cli(*asked, tmp_path / "near", "--free", "core", "--within", "near ball 3px")
    assert code == 0 and "trained without regions" in out
    [line, _] = [json.loads(each) for each in (tmp_path / "near" / "manifest.jsonl").read_text().splitlines()]
    assert line["free"] == ["core"] and line["given"] == ["ball"] and line["free_within"] == "near ball 3px"
    code, _, said = cli(*asked, tmp_path / "near", "--free", "core", "--within", "near ball 4px")
    assert code == 2 and "near ball 3px" in said and "near ball 4px" in said  # another region is another set
    mask = np.zeros((32, 32), np.uint8)
    mask[4:9] = 255
    write_label_png(tmp_path / "brush.png", mask)
    assert cli(*asked, tmp_path / "brush", "--free", "core", "--within", tmp_path / "brush.png")[0] == 0
    assert "mask brush.png" in (tmp_path / "brush" / "manifest.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--within", "box 0,0..3,3"), "no class is free in the region"),
        (("--free", "core", "--within", "box 0,0..99,3"), "reaches beyond 32 x 32"),
        (("--free", "core", "--within", "near cor 3px"), "unknown class 'cor'"),
        (("--free", "core", "--within", "there.png"), "describes no region"),
    ],
)
def test_regions_that_are_refused(
    options: tuple[str, ...],
    said: str,
    cli: Callable[..., tuple[int, str, str]],
    dataset_folder: Path,
    run_folder: Path,
    tmp_path: Path,
) -> None:
    code, _, errors = cli("sample", run_folder, "--masks", dataset_folder, "--out", tmp_path / "o", *options)
    assert code == 2 and said in " ".join(errors.split()) and not (tmp_path / "o").exists()


def test_a_mask_of_another_size_is_refused(
    cli: Callable[..., tuple[int, str, str]], dataset_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    write_label_png(tmp_path / "brush.png", np.ones((16, 32), np.uint8))
    asked = ("sample", run_folder, "--masks", dataset_folder, "--out", tmp_path / "o", "--free", "core", "--within")
    code, _, errors = cli(*asked, tmp_path / "brush.png")
    assert code == 2 and "16 x 32 pixels" in " ".join(errors.split())
