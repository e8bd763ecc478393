"""Latent diffusion: codes and label maps meet, ignored voxels do not count, and both stages learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anatogen.baselines.latent.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    AutoencoderNetworkSettings,
    AutoencoderOptions,
    AutoencoderSettings,
    AutoencoderTask,
    AutoencoderTraining,
    load_autoencoder,
)
from anatogen.baselines.latent.model import LatentModel
from anatogen.baselines.latent.network import LatentConfig, LatentNetwork, LatentNetworkSettings
from anatogen.baselines.latent.task import LatentSettings, LatentTask, _of_autoencoder, code_statistics
from anatogen.conditioning.encode import Condition
from anatogen.data.loader import Loader
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.model import AboutModel, Query
from anatogen.sampling import SamplingSettings
from anatogen.seeds import Draws
from anatogen.training.config import training_of
from anatogen.training.fit import fit
from anatogen.training.task import stage_folder
from anatogen.workflows.train import TrainRequest, settings_for, train

CPU = torch.device("cpu")
AUTOENCODER = AutoencoderNetworkSettings(channels=(16, 16), code_channels=2)
OPTIONS = AutoencoderOptions(channels=(16, 16), discriminator_width=4)
NETWORK = LatentNetworkSettings(channels=(16, 16), blocks=1, control_channels=4)


def config(size: tuple[int, ...]) -> LatentConfig:
    classes = (("a", "#ff0000"), ("b", "#00ff00"))
    return LatentConfig(image_channels=1, size=size, classes=classes, autoencoder=AUTOENCODER, network=NETWORK,
                        code_mean=(0.0, 1.0), code_std=(1.0, 2.0))  # fmt: skip


@pytest.mark.parametrize("size", [(32, 32), (61, 97), (10, 12, 14)])
def test_any_size(size: tuple[int, ...]) -> None:
    network = LatentNetwork(config(size)).eval()
    shape = network.autoencoder.code_size
    assert shape == (2, *(-(-side // 2) for side in size))
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        denoise = network.denoiser.under(Condition.of(labels, torch.ones(2, 2, dtype=torch.bool)))
        codes = denoise(torch.randn(2, *shape), torch.tensor([0.5, 0.9]))
        assert codes.shape == (2, *shape)
        assert network.decode(codes).shape == (2, 1, *size)
        images = torch.rand(2, 1, *size) * 2 - 1
        assert network.reconstruct(images).shape == images.shape


def test_the_label_map_meets_the_code_where_it_is() -> None:
    network = LatentNetwork(config((61, 97))).eval()
    denoiser, entry = network.denoiser, network.denoiser.control.controlnet_cond_embedding
    torch.nn.init.normal_(entry.conv_out.conv.weight)  # it begins at zero
    labels = torch.zeros(2, 61, 97, dtype=torch.int64)
    labels[1, 40:44, 20:24] = 1
    bound = (
        Condition.of(labels, torch.ones(2, 2, dtype=torch.bool)).resized(denoiser.maps.pad).resized(denoiser.cells.pad)
    )
    with torch.no_grad():
        seen = entry(denoiser.planes(bound.labels, bound.states, bound.region))
    code = denoiser.codes.pad(torch.zeros(1, 2, 31, 49))
    assert seen.shape[2:] == code.shape[2:]
    changed = denoiser.codes.crop((seen[0] - seen[1]).abs().amax(0)[None])[0].nonzero()
    centre = (changed.amin(0) + changed.amax(0)) / 2  # of the cells that see rows 40 to 43, columns 20 to 23
    assert (centre - torch.tensor([20.5, 10.5])).abs().max() <= 1 and (changed.amax(0) - changed.amin(0)).max() <= 6


def test_the_control_branch_begins_at_zero() -> None:
    network = LatentNetwork(config((32, 32))).eval()
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[1, 8:16] = 1
    z = torch.zeros(2, 2, 16, 16)
    with torch.no_grad():
        made = network.denoiser.under(Condition.of(labels, torch.ones(2, 2, dtype=torch.bool)))(
            z, torch.tensor([0.5, 0.5])
        )
    assert torch.allclose(made[0], made[1])


def test_codes_are_standardised(dataset: PreparedDataset) -> None:
    autoencoder = Autoencoder(AutoencoderConfig(image_channels=1, size=dataset.size, network=AUTOENCODER)).eval()
    mean, std = code_statistics(autoencoder, dataset, CPU)
    with torch.no_grad():
        codes = autoencoder.encode(dataset.load(dataset.split("train")).images)[0]
    of_codes = codes.transpose(0, 1).flatten(1)
    assert torch.allclose(torch.tensor(mean), of_codes.mean(1), atol=1e-4)
    assert torch.allclose(torch.tensor(std), of_codes.std(1, unbiased=False), rtol=1e-3)


def test_the_length_is_shared() -> None:
    how = LatentSettings.model_validate({"training": {"steps": 1000}, "autoencoder_share": 0.25})
    assert training_of(how).steps == 750 and _of_autoencoder(how).training.steps == 250  # type: ignore[arg-type]
    timed = LatentSettings.model_validate({"training": {"steps": None, "max_time_s": 600.0}})
    assert training_of(timed).max_time_s == pytest.approx(420) and _of_autoencoder(
        timed
    ).training.max_time_s == pytest.approx(180)  # type: ignore[arg-type]


def test_ignored_voxels_do_not_count(dataset: PreparedDataset) -> None:
    how = settings_for("latent", values=["autoencoder.channels=[16,16]", "latent.channels=[16,16]", "latent.blocks=1"])
    task = LatentTask(dataset, how, CPU)  # type: ignore[arg-type]
    batch = dataset.load(dataset.split("train")[:2])
    everywhere = torch.ones_like(batch.labels, dtype=torch.bool)
    nothing = type(batch)(batch.images, batch.labels, batch.annotated, batch.rows, everywhere)
    assert float(task.loss(task.phases[0], nothing, Draws(range(2)))[0].detach()) == 0
    part = torch.zeros_like(everywhere)
    part[:, 3, 5] = True
    cells = task._ignored(type(batch)(batch.images, batch.labels, batch.annotated, batch.rows, part))
    assert cells is not None and cells.sum() == 2 and bool(cells[:, 1, 2].all())


@pytest.fixture(scope="module")
def run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained autoencoder in it."""
    dataset, out = PreparedDataset.open(dataset_folder), tmp_path_factory.mktemp("latent")
    training = AutoencoderTraining(steps=150, batch_size=4, learning_rate=2e-3)
    task = AutoencoderTask(dataset, AutoencoderSettings(autoencoder=OPTIONS, training=training), CPU)
    fit(task, Loader(dataset, dataset.split("train"), 4, 0), training, stage_folder(out, "autoencoder"))
    return out


def test_the_autoencoder_learns(run: Path, dataset: PreparedDataset) -> None:
    images = dataset.load(dataset.split("test")).images
    untrained = AutoencoderTask(dataset, AutoencoderSettings(autoencoder=OPTIONS), CPU).model()
    with torch.no_grad():
        before, after = (
            float((model.decode(model.encode(images)[0]) - images).abs().mean())  # type: ignore[operator]
            for model in (untrained, load_autoencoder(stage_folder(run, "autoencoder")))
        )
    assert after < 0.4 * before


@pytest.mark.slow
def test_the_denoiser_learns_to_use_the_map(run: Path, dataset: PreparedDataset) -> None:
    """With the same noise, the error under an image's own label map is below that under another image's."""
    values = ["autoencoder.channels=[16,16]", "latent.channels=[32]", "latent.blocks=1", "latent.control_channels=16",
              "training.batch_size=4", "training.learning_rate=2e-3", "conditioning.mask_ablation=false"]  # fmt: skip
    how = settings_for("latent", values=values, sections={"training": {"steps": 250}})
    task = LatentTask(dataset, how, CPU, run)  # type: ignore[arg-type]
    fit(task, Loader(dataset, dataset.split("train"), 4, 0), task.settings.own_training, run)
    task.network.denoiser.load_state_dict(task.average.weights)
    batch = dataset.load(dataset.split("test"))
    others = type(batch)(batch.images, batch.labels.roll(len(batch) // 2, 0), batch.annotated, batch.rows)
    with torch.no_grad():
        own, other = (float(task.loss(task.phases[0], each, Draws(range(len(each))))[0]) for each in (batch, others))
    assert own < 0.9 * other


@pytest.mark.parametrize("size", [(32, 32), (10, 12, 14)])
def test_guidance(size: tuple[int, ...]) -> None:
    network, random = LatentNetwork(config(size)).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():  # the control branch begins at zero
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    model = LatentModel(network, AboutModel(mask_ablation=True, sampling=SamplingSettings(steps=2)), device="cpu")
    labels = torch.randint(0, 3, size, generator=random).numpy()
    query = Query(labels, model.spec.schema.states(), 0)

    def made(**changes: object) -> torch.Tensor:
        [(_, image)] = model.sampling_with(model.with_settings(**changes)).generate([query])
        return torch.from_numpy(image)

    assert torch.equal(made(guidance=1.0), made()) and not torch.allclose(made(guidance=3.0), made(), atol=1e-4)
    assert not torch.allclose(made(guidance=3.0, guidance_classes=("a",)), made(guidance=3.0), atol=1e-4)
    with pytest.raises(SettingsError, match="unknown class 'c'"):
        made(guidance=2.0, guidance_classes=("c",))
    full_maps = LatentModel(network, AboutModel(), device="cpu")
    with pytest.raises(SettingsError, match="mask ablation"):
        full_maps.with_settings(guidance=2.0)
    full_maps = full_maps.sampling_with(SamplingSettings(guidance=2.0))
    with pytest.raises(SettingsError, match="mask ablation"):
        list(full_maps.generate([query]))


def test_another_autoencoder_is_refused_on_a_resume(dataset_folder: Path, tmp_path: Path) -> None:
    small = ["autoencoder.channels=[16,16]", "autoencoder.discriminator_width=4", "latent.channels=[16]", "latent.blocks=1",
             "latent.control_channels=4", "training.batch_size=4", "live.previews=false"]  # fmt: skip
    how = settings_for("latent", values=small, sections={"training": {"steps": 10}})
    train(TrainRequest(dataset_folder, tmp_path / "run", how, "cpu", model="latent"))
    other = settings_for("latent", values=[*small, "autoencoder.code_channels=2"], sections={"training": {"steps": 20}})
    with pytest.raises(SettingsError, match=r"autoencoder\.code_channels"):
        train(TrainRequest(dataset_folder, tmp_path / "run", other, "cpu", resume=True, model="latent"))
