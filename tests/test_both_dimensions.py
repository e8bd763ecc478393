"""One code for slices and volumes: training, ablation, resume, seeds and batches, by every solver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anatogen.conditioning.regions import Near
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.solvers import SOLVERS
from anatogen.generation.engine import Generator
from anatogen.generation.plan import DatasetMaps, Plan
from anatogen.model import Known, Noised, Query, Similarity
from anatogen.seeds import Draws
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.train import train

SIZES = {2: (32, 32), 3: (12, 24, 20)}


@pytest.fixture(scope="module", params=SIZES, ids=["slices", "volumes"])
def data(
    request: pytest.FixtureRequest, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> PreparedDataset:
    if request.param == 2:
        return PreparedDataset.open(dataset_folder)
    source = open_source(str(dataset_folder.parent / "raw"))
    out = tmp_path_factory.mktemp("both") / "volumes"
    return prepare(source, out, PrepareSettings(size=SIZES[3], fit="crop"), version="test")


def how(*values: str, steps: int = 6) -> RunSettings:
    few = [
        "network.width=8",
        "network.blocks=1",
        "training.batch_size=3",
        "training.warmup_steps=2",
        "sampling.steps=3",
    ]
    ablating = ["conditioning.ablated_share=1", "conditioning.regional_share=0.5", "live.previews=false"]
    return build_settings(values=[*few, *ablating, *values], training={"steps": steps})


@pytest.fixture(scope="module")
def run(data: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("run") / "run", how(), device="cpu")


def test_a_killed_training_goes_on_bit_for_bit(data: PreparedDataset, run: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(share: float, text: str) -> None:
        if share > 0.7:
            raise Killed

    settings = how("training.checkpoint_every=2")
    with pytest.raises(Killed):
        train(data, tmp_path / "run", settings, device="cpu", progress=kill)
    train(data, tmp_path / "run", settings, device="cpu", resume=True)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "run"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_an_items_loss_depends_on_its_own_draws(data: PreparedDataset) -> None:
    """Times, noise, ablation and regions belong to the item, not to its batch."""
    task = DenoiserTask(data, how(), torch.device("cpu"))
    with torch.no_grad():
        task.denoiser.network.head.weight.normal_(std=0.05)  # type: ignore[union-attr, operator]
    batch = data.load(data.split("train")[:3])
    [phase] = task.phases
    _, together = task.loss(phase, batch, Draws([5, 6, 7]))
    for place in range(3):
        _, alone = task.loss(phase, batch.part(place, place + 1), Draws([5 + place]))
        assert alone["loss"][0] == pytest.approx(float(together["loss"][place]), rel=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_image_depends_on_its_query_alone(data: PreparedDataset, run: Path, solver: str) -> None:
    """Given and free, in regions, from noise and from real images; in a batch, in another order, and alone."""
    generator, schema = Generator.load(run, device="cpu"), data.schema
    item = data.load(data.split("test")[:1])
    labels, real = item.labels[0].numpy(), item.images[0].numpy()
    every, free = schema.states(), schema.states(free=["core"])
    region = Near("ball", 1, 2.0).inside(labels).astype(np.uint8)
    queries = [
        Query(labels, every, 1),
        Query(labels, every, 2),
        Query(labels, free, 1),
        Query(labels, free, 1, region=region, elsewhere=(every,)),
        Query(labels, every, 1, start=Similarity(real, 0.5)),
        Query(labels, every, 1, start=Noised(real, 500)),
        Query(labels, every, 1, start=Known(real, region.astype(np.float32))),
    ]
    settings = generator.with_settings(solver=solver, steps=3)
    together = [image for _, image in generator.generate(queries, settings)]
    assert all(image.shape == (1, *data.size) and np.isfinite(image).all() for image in together)
    backwards = [image for _, image in generator.generate(queries[::-1], settings, batch_size=2)][::-1]
    alone = [next(iter(generator.generate([query], settings)))[1] for query in queries]
    for one, two, three in zip(together, backwards, alone, strict=True):
        assert np.allclose(one, two, atol=1e-4) and np.allclose(one, three, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.05
    assert np.array_equal(together[6][:, region == 1], real[:, region == 1])


def test_a_class_is_free_in_a_region_of_any_map(data: PreparedDataset) -> None:
    plan = Plan(data.schema.states(free=["core"]), within=Near("core", 2, 3.0))
    for request in plan.requests(DatasetMaps(data, data.split("test")[:2])):
        assert request.region is not None and request.region.shape == data.size
        assert not (request.region[request.labels == 2]).any()  # the core lies in its own region
