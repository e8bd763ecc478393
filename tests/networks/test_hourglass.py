import pytest
import torch

from anatogen.errors import SettingsError
from anatogen.networks.blocks import depth_to_space, rms_normalised, space_to_depth
from anatogen.networks.hourglass import Hourglass, HourglassConfig, level_channels
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 3, 4, 6, 8)])
def test_space_to_depth_loses_nothing(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    deep = space_to_depth(x, 2)
    assert deep.shape[1] == 3 * 2 ** (len(shape) - 2)
    assert torch.equal(depth_to_space(deep, 2), x)


def test_space_to_depth_keeps_patches_together() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert space_to_depth(x, 2)[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_rms_norm() -> None:
    x = 7 * torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rms_normalised(x).square().mean(dim=1), torch.ones(2, 4, 4), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (16, 16, 16)])
@pytest.mark.parametrize("planes", [0, 4])
def test_shapes_and_a_quiet_start(size: tuple[int, ...], planes: int) -> None:
    network = Hourglass(HourglassConfig(width=16), 2, planes, size)
    x = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    out = network(x, torch.tensor([0.1, 0.5, 0.9]), torch.ones(3, planes, *size))
    assert out.shape == x.shape
    assert not out.any()


def test_everything_learns() -> None:
    """After a few steps no parameter is without a gradient: nothing is built and not used."""
    network = Hourglass(HourglassConfig(width=16), 1, 2, (32, 32))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):  # zero-initialised layers let the gradient through one after the other
        x, truth = torch.randn(2, 2, 1, 32, 32, generator=generator)
        planes = torch.rand(2, 2, 32, 32, generator=generator)
        loss = (network(x, torch.tensor([0.2, 0.7]), planes) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_top_levels_are_thin_and_attention_is_at_the_bottom() -> None:
    assert [level_channels(64, side) for side in (128, 64, 32, 16, 8)] == [32, 48, 64, 128, 192]
    network = Hourglass(HourglassConfig(), 1, 4, (256, 256))
    assert [type(layer).__name__ for layer in network.attend] == ["Identity"] * 4 + ["Attention"]


def test_size_that_cannot_be_halved() -> None:
    with pytest.raises(SettingsError, match=r"60 x 60.*multiples of 8"):
        Hourglass(HourglassConfig(), 1, 4, (60, 60))


def test_paper_unet_is_the_published_size() -> None:
    """113.7 M parameters (Konz et al. 2024 at 256 x 256, one image and one mask channel)."""
    with torch.device("meta"):
        network = PaperUNet(PaperUNetConfig(), 1, 1, (256, 256))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(113.7e6, rel=0.002)


def test_paper_unet_runs_small() -> None:
    network = PaperUNet(PaperUNetConfig(channels=(32, 32, 64)), 1, 1, (16, 16))
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert network(x, torch.tensor([0.001, 1.0]), torch.zeros(2, 1, 16, 16)).shape == x.shape
    with pytest.raises(SettingsError, match="multiples of 4"):
        PaperUNet(PaperUNetConfig(channels=(32, 32, 64)), 1, 1, (18, 18))
