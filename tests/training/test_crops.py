"""Training on crops of volumes that are too large, and sampling them in tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anatogen.conditioning.encode import Condition
from anatogen.data.loader import Loader
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.data.store_writer import Entry, StoreWriter
from anatogen.distributed import Shard
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.model import Denoiser, DenoiserConfig
from anatogen.networks.hourglass import HourglassConfig
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.train import train

SIZE, CROP = (12, 24, 20), (8, 12, 12)
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def volumes(dataset_folder: Path) -> PreparedDataset:
    """The balls as volumes."""
    out = dataset_folder.parent / "volumes"
    source = open_source(str(dataset_folder.parent / "raw"))
    return prepare(source, out, PrepareSettings(size=SIZE, fit="crop"), version="test")


def how(*values: str, steps: int = 4) -> RunSettings:
    return build_settings(
        values=["network.width=8", "network.blocks=1", "sampling.steps=3", "training.crop=[8,12,12]",
                "training.warmup_steps=2", "live.previews=false", *values],
        training={"steps": steps},
    )  # fmt: skip


def test_crops_are_parts_of_the_volume_and_say_where(volumes: PreparedDataset) -> None:
    rows = volumes.split("train")
    loader = Loader(PreparedDataset.open(volumes.folder), rows, 3, seed=0, crop=CROP)
    whole = {row.id: volumes.load([row]) for row in rows}
    seen = set()
    for number in range(30):
        batch = loader.batch(number)
        assert batch.origins is not None
        for place, row in enumerate(batch.rows):
            crop = tuple(slice(int(o), int(o) + part) for o, part in zip(batch.origins[place], CROP, strict=True))
            assert torch.equal(batch.images[place], whole[row.id].images[(0, slice(None), *crop)])
            assert torch.equal(batch.labels[place], whole[row.id].labels[(0, *crop)])
            seen.add(tuple(batch.origins[place].tolist()))
    origins = np.array(sorted(seen))
    assert (origins.min(0) == 0).all() and (origins.max(0) == np.array(SIZE) - CROP).all()  # borders are met
    alone = PreparedDataset.open(volumes.folder)  # not held in memory: read from its chunks
    assert torch.equal(alone.load(batch.rows[:1], [crop]).images[0], volumes.load(batch.rows[:1], [crop]).images[0])
    halves = [loader.batch(7, shard=Shard(rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat([h.images for h in halves]), loader.batch(7).images)
    again, other = loader.batch(7), loader.batch(7, attempt=1)
    assert torch.equal(again.origins, loader.batch(7).origins) and not torch.equal(again.origins, other.origins)  # type: ignore[arg-type]


def test_the_network_is_told_where_a_crop_lies() -> None:
    config = DenoiserConfig(
        image_channels=1, size=SIZE, window=CROP, classes=(("a", "#ff0000"),), encoding="embedding",
        network=HourglassConfig(width=8, blocks=1),
    )  # fmt: skip
    denoiser = Denoiser(config)
    whole = denoiser._coordinates(Condition.of(torch.zeros(1, *SIZE).long(), torch.ones(1, 1, dtype=torch.bool)))
    origin = torch.tensor([[2, 5, 8]])
    part = denoiser._coordinates(
        Condition.of(torch.zeros(1, *CROP).long(), torch.ones(1, 1, dtype=torch.bool), origin=origin)
    )
    assert whole is not None and part is not None
    assert torch.allclose(part, whole[:, :, 2:10, 5:17, 8:20], atol=1e-6)
    assert whole[0, :, 0, 0, 0].tolist() == pytest.approx([1 / side - 1 for side in SIZE])
    assert whole[0, :, -1, -1, -1].tolist() == pytest.approx([1 - 1 / side for side in SIZE])


def test_a_model_of_crops_makes_whole_volumes(volumes: PreparedDataset, tmp_path: Path) -> None:
    """They depend on their seed alone, and a killed training goes on as if it had not been."""
    run = train(volumes, tmp_path / "run", how(), device="cpu")
    generator = Generator.load(run, device="cpu")
    assert generator.denoiser.config.window == CROP and generator.spec.size == SIZE
    labels = volumes.load(volumes.split("test")[:1]).labels[0].numpy()
    together = generator.sample(labels, seeds=(1, 2, 3))
    assert together.shape == (3, 1, *SIZE) and np.isfinite(together).all()
    assert np.allclose(generator.sample(labels, seeds=(2,), batch_size=1)[0], together[1], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1

    class Killed(BaseException):
        pass

    def kill(share: float, text: str) -> None:
        if share > 0.6:
            raise Killed

    again = how("training.checkpoint_every=2")
    with pytest.raises(Killed):
        train(volumes, tmp_path / "killed", again, device="cpu", progress=kill)
    train(volumes, tmp_path / "killed", again, device="cpu", resume=True)
    one, two = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["training.crop=[16,12,12]"], "crops of 16 x 12 x 12 do not fit into images of 12 x 24 x 20"),
        (["training.crop=[12,12]"], "crops of 12 x 12 do not fit"),
        (["augment.flip_left_right=true"], "flip_left_right would move a crop"),
        (["network.name=paper_unet"], "paper_unet"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    volumes: PreparedDataset, tmp_path: Path, values: list[str], words: str
) -> None:
    settings = build_settings(values=["training.crop=[8,12,12]", *values], training={"steps": 2})
    with pytest.raises(SettingsError, match=words):
        train(volumes, tmp_path / "run", settings, device="cpu")
    assert not (tmp_path / "run").exists()


def test_tiles_on_the_command_line(cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    arguments = ("sample", run_folder, "--masks", dataset_folder, "--count", 2, "--device", "cpu")
    code, _, err = cli(*arguments, "--out", tmp_path / "tiles", "--tile", "16x24")
    assert code == 0, err
    code, _, err = cli(*arguments, "--out", tmp_path / "whole", "--tile", "64")  # at most the image: no tiles
    assert code == 0, err
    for size, words in (("16x16x16", "2 sides"), ("two", "2 sides"), ("1", "tile")):
        code, _, err = cli(*arguments, "--out", tmp_path / "bad", "--tile", size)
        assert code == 2 and words in err and not (tmp_path / "bad").exists(), err


def test_large_volumes_are_stored_in_cubes(tmp_path: Path) -> None:
    """So that a crop is read without the rest; small items stay whole."""
    generator = np.random.default_rng(0)
    volume = generator.integers(-1000, 1000, (1, 1, 130, 100, 170)).astype(np.int16)
    labels = generator.integers(0, 3, (1, 130, 100, 170)).astype(np.uint8)
    writer = StoreWriter.resume_or_create(tmp_path / "large", 1, (130, 100, 170), 2, {})
    entry = Entry("a", None, [0])
    writer.append(entry, volume, labels)
    images = blosc2.open(str(tmp_path / "large" / "data" / "images.b2nd"))
    assert images.chunks == (1, 1, 64, 64, 64)
    assert np.array_equal(images[0, :, 60:120, 3:70, 100:170], volume[0, :, 60:120, 3:70, 100:170])
    assert np.array_equal(images[:], volume)
    resumed = StoreWriter.resume_or_create(tmp_path / "large", 1, (130, 100, 170), 2, {})
    assert [each.case for each in resumed.entries] == ["a"]
    StoreWriter.resume_or_create(tmp_path / "small", 2, (64, 64), 2, {})
    assert blosc2.open(str(tmp_path / "small" / "data" / "images.b2nd")).chunks[1:] == (2, 64, 64)
