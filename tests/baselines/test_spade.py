"""SPADE: its losses by hand, what of the label map reaches the image, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from anatogen.baselines.adversarial import feature_loss, hinge
from anatogen.baselines.discriminators import Discriminators
from anatogen.baselines.perceptual import PerceptualLoss
from anatogen.baselines.spade.model import SpadeModel
from anatogen.baselines.spade.network import (
    SpadeConfig,
    SpadeGenerator,
    SpadeNetworkSettings,
    level_channels,
    levels_of,
)
from anatogen.baselines.spade.task import SpadeTask
from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.generation.kinds import load_model
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.model import Query
from anatogen.seeds import Draws
from anatogen.workflows.train import TrainRequest, settings_for, train
from by_brightness import ByBrightness

TINY = SpadeNetworkSettings(width=4, hidden=4, code=8)


def config(size: tuple[int, ...], *, encoder: bool = False, encoding: str = "onehot") -> SpadeConfig:
    network = TINY.model_copy(update={"encoder": encoder})
    classes = (("a", "#ff0000"), ("b", "#00ff00"))
    return SpadeConfig(image_channels=2, size=size, classes=classes, encoding=encoding, network=network)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["onehot", "index"])
@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (61, 97), (16, 24, 20)])
def test_any_size_is_given_back(size: tuple[int, ...], encoder: bool, encoding: str) -> None:
    network = SpadeGenerator(config(size, encoder=encoder, encoding=encoding)).eval()
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    planes = network.planes_of(Condition.of(labels, torch.ones(2, 2, dtype=torch.bool)))
    code = torch.zeros(2, 8) if encoder else None
    made = network.padding.crop(network(planes, code))
    assert made.shape == (2, 2, *size) and made.abs().max() <= 1
    if encoder:
        assert network.encoder is not None
        assert [part.shape for part in network.encoder(network.padding.pad(made))] == [(2, 8)] * 2


def test_the_original_network_at_256() -> None:
    assert levels_of((256, 256)) == 6 and levels_of((64, 64)) == 4 and levels_of((4, 4)) == 1
    assert level_channels(64, 6) == [64, 128, 256, 512, 1024, 1024, 1024]


def test_one_pixel_of_the_map_reaches_the_image() -> None:
    """MONAI's SPADENet sees the map at half of the resolution at most, and normalises it away."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SpadeGenerator(config((32, 32))).eval()
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[1, 9, 9] = 1  # of the 2 x 2 pixels of a cell, the one that halving drops
    planes = network.planes_of(Condition.of(labels, torch.ones(2, 2, dtype=torch.bool)))
    with torch.no_grad():
        made = network(planes)
    changed = (made[0] - made[1]).abs().amax(0)
    far = changed[20:].mean()  # instance norm spreads a little of it everywhere
    assert changed[9, 9] > 1e-4 and changed[9, 9] > 10 * far


def test_averaged_spectral_norms_are_those_of_the_averaged_weights() -> None:
    """Averaged singular vectors are too short and of other weights: images had too much contrast, more so the longer
    the training.
    """
    network = SpadeGenerator(config((16, 16))).eval()
    generator = torch.Generator().manual_seed(0)
    for name, vector in network.state_dict().items():
        if name.endswith(("._u", "._v")):
            vector.mul_(0.3).add_(0.05 * torch.randn(vector.shape, generator=generator))
    norms = [torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2) for conv in convolutions_of(network)]
    assert min(norms) > 2
    SpadeModel.around(network, settings_for("spade"), "cpu")
    for conv in convolutions_of(network):
        norm = torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2)
        assert norm == pytest.approx(1, abs=0.02) and not conv.training


def convolutions_of(network: SpadeGenerator) -> list[nn.Module]:
    """Those with spectral normalisation."""
    return [layer for layer in network.modules() if parametrize.is_parametrized(layer, "weight")]


def test_discriminators_of_small_and_large_images() -> None:
    for size in ((16, 16), (64, 64), (256, 256), (16, 16, 16)):
        found = Discriminators(len(size), 3, size, width=4, scales=2, layers=4)
        scores = found(torch.zeros(1, 1, *size), torch.zeros(1, 2, *size))
        assert len(scores) == 2 and all(min(scale[-1].shape[2:]) >= 1 for scale in scores), size


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([[-2.0, 0.0], [1.0, -1.0]])
    # max(0, 1 - real) and max(0, 1 + fake), each the mean over patches
    assert hinge(real, fake).tolist() == [0.25 + 0.5, 1.0 + 1.0]
    a, b, c = torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), 3.0)
    # Scores, which come last, do not count.
    assert feature_loss([[a, a, a]], [[a, a, c]]).tolist() == [0, 0]
    assert feature_loss([[b, c, a], [b, a]], [[a, a, a], [a, a]]).tolist() == [2.5, 2.5]


def small(dataset: PreparedDataset, *more: str) -> SpadeTask:
    values = ["spade.width=4", "spade.hidden=4", "spade.discriminator_width=4", "spade.code=8", *more]
    return SpadeTask(dataset, settings_for("spade", values=values), torch.device("cpu"))  # type: ignore[arg-type]


def test_each_phase_trains_its_own_network(dataset: PreparedDataset) -> None:
    task, batch = small(dataset, "spade.encoder=true"), dataset.load(dataset.split("train")[:4])
    for phase, other in (task.phases, task.phases[::-1]):
        for each in task.phases:
            each.optimizer.zero_grad(set_to_none=True)
        loss, measures = task.loss(phase, batch, Draws(range(4)))
        loss.backward()
        assert all(p.grad is not None for p in phase.module.parameters())
        assert all(p.grad is None for p in other.module.parameters()), phase.name
        assert all(torch.isfinite(value).all() for value in measures.values())
    assert all(p.requires_grad for p in task.discriminators.parameters())
    assert [phase.learning_rate for phase in task.phases] == [1e-4, 4e-4]  # the two time scales
    assert {"loss", "adversarial", "features", "code"} == task.loss(task.phases[0], batch, Draws(range(4)))[1].keys()


def test_the_same_draws_give_the_same_loss(dataset: PreparedDataset) -> None:
    task, batch = small(dataset, "spade.encoder=true"), dataset.load(dataset.split("train")[:4])
    task.generator.eval(), task.discriminators.eval()
    first, second, other = (float(task.loss(task.phases[0], batch, Draws(seeds))[0].detach()) for seeds in ([1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]))  # fmt: skip
    assert first == second != other


def test_ignored_voxels_do_not_count(dataset: PreparedDataset) -> None:
    task, batch = small(dataset), dataset.load(dataset.split("train")[:2])
    task.generator.eval(), task.discriminators.eval()
    ignored = torch.zeros_like(batch.labels, dtype=torch.bool)
    ignored[:, 8:16, 8:16] = True
    losses = []
    for value in (0.0, 1.0):
        images = batch.images.clone()
        images[:, :, 8:16, 8:16] = value
        changed = type(batch)(images, batch.labels, batch.annotated, batch.rows, ignored)
        losses.append([float(task.loss(phase, changed, Draws(range(2)))[0].detach()) for phase in task.phases])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_it_learns_to_follow_the_map(dataset_folder: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    values = ["spade.width=8", "spade.hidden=16", "spade.discriminator_width=8", "training.batch_size=8"]
    values += ["training.learning_rate=5e-4", "live.previews=false"]
    how = settings_for("spade", values=values, sections={"training": {"steps": 150}})
    train(TrainRequest(dataset_folder, tmp_path / "run", how, "cpu", model="spade"))
    rows = dataset.split("test")
    batch, judge, model = dataset.load(rows), ByBrightness(dataset), load_model(tmp_path / "run", device="cpu")

    def dice(images: np.ndarray) -> float:
        patients = np.array([row.patient for row in rows])
        return float(
            class_means(dice_by_group(judge(images), batch.labels.numpy(), patients, dataset.schema.count).ravel(), 0)
        )

    asked = [Query(labels, dataset.schema.states(), 0) for labels in batch.labels.numpy()]
    made = np.stack([image for _, image in model.generate(asked)])
    shuffled = np.roll(made, len(made) // 2, axis=0)
    assert dice(made) > 0.6 > dice(shuffled) + 0.2
    assert not model.spec.seeds_vary


def vgg(path: Path, seed: int = 0) -> Path:
    """Weights of VGG-19's shape, narrow in nothing: the file that a user would bring."""
    generator = torch.Generator().manual_seed(seed)
    tensors, place, channels = {}, 0, 3
    for layer in (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512):
        if isinstance(layer, int):
            scale = (2 / (9 * channels)) ** 0.5
            tensors[f"features.{place}.weight"] = scale * torch.randn(layer, channels, 3, 3, generator=generator)
            tensors[f"features.{place}.bias"] = torch.zeros(layer)
            channels, place = layer, place + 2
        else:
            place += 1
    tensors["classifier.0.weight"] = torch.zeros(2, 2)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["vgg19.safetensors", "vgg19.pth"])
def test_perceptual_loss(tmp_path: Path, name: str, dataset: PreparedDataset) -> None:
    loss = PerceptualLoss(vgg(tmp_path / name))
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert loss(images, images).tolist() == [0, 0]
    near, far = loss(images + 0.01, images), loss(-images, images)
    assert (near > 0).all() and (near < far).all()
    if name.endswith("safetensors"):
        task = small(dataset, f"spade.perceptual={tmp_path / name}")
        batch = dataset.load(dataset.split("train")[:1])
        assert "perceptual" in task.loss(task.phases[0], batch, Draws(range(1)))[1]


def test_perceptual_weights_that_are_none(tmp_path: Path, dataset: PreparedDataset) -> None:
    (tmp_path / "vgg.pth").write_bytes(b"no weights")
    torch.save({"features.0.weight": nn.Conv2d(3, 8, 3).weight.detach()}, tmp_path / "other.pth")
    for name, reason in (
        ("gone.pth", "does not exist"),
        ("vgg.pth", "holds no weights"),
        ("other.pth", "holds no weights"),
    ):
        with pytest.raises(SettingsError, match=reason) as caught:
            small(dataset, f"spade.perceptual={tmp_path / name}")
        assert "vgg19" in caught.value.hint
