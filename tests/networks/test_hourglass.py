import pytest
import torch

from anatogen.errors import ModelError, SettingsError
from anatogen.networks.blocks import depth_to_space, head_count, rms_normalised, space_to_depth
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.levels import level_channels
from anatogen.networks.paper_unet import PaperUNet, PaperUNetConfig


class Drawn:
    """Planes that repeat the labels `count` times: a plane maker without an encoding."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, labels: torch.Tensor, states: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
        return labels[:, None].float().expand(len(labels), self.count, *labels.shape[1:])


def condition(count: int, size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and states of `count` items."""
    return torch.ones(count, *size, dtype=torch.int64), torch.ones(count, 1, 1, dtype=torch.bool)


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 3, 4, 6, 8)])
def test_space_to_depth_loses_nothing(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    patch = (2,) * (len(shape) - 2)
    deep = space_to_depth(x, patch)
    assert deep.shape[1] == 3 * 2 ** (len(shape) - 2)
    assert torch.equal(depth_to_space(deep, patch), x)


def test_space_to_depth_keeps_patches_together() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert space_to_depth(x, (2, 2))[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_rms_norm() -> None:
    x = 7 * torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rms_normalised(x).square().mean(dim=1), torch.ones(2, 4, 4), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (16, 16, 16)])
@pytest.mark.parametrize("planes", [0, 4])
def test_shapes_and_a_quiet_start(size: tuple[int, ...], planes: int) -> None:
    network = Hourglass(HourglassConfig(width=16), 2, Drawn(planes), size)
    x = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    out = network(x, torch.tensor([0.1, 0.5, 0.9]), *condition(3, size))
    assert out.shape == x.shape
    assert not out.any()


def test_everything_learns() -> None:
    """After a few steps every parameter has a gradient: none is unused."""
    network = Hourglass(HourglassConfig(width=16), 1, Drawn(2), (32, 32))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):  # zero-initialised layers let the gradient through one after the other
        x, truth = torch.randn(2, 2, 1, 32, 32, generator=generator)
        planes = torch.rand(2, 2, 32, 32, generator=generator)
        loss = (network.predict(x, torch.tensor([0.2, 0.7]), planes) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_top_levels_are_thin_and_attention_is_at_the_bottom() -> None:
    assert [level_channels(64, side) for side in (128, 64, 32, 16, 8)] == [32, 48, 64, 128, 192]
    network = Hourglass(HourglassConfig(), 1, Drawn(4), (256, 256))
    assert [type(layer).__name__ for layer in network.attend] == ["Identity"] * 4 + ["Attention"]


@pytest.mark.parametrize(
    ("size", "multiples", "levels"),
    [((64, 64), 8, 3), ((256, 256), 32, 5), ((61, 97), 16, 4), ((28, 28), 4, 2), ((80, 200), 32, 5), ((7, 3), 2, 1)],
)  # fmt: skip
def test_what_sides_are_padded_to(size: tuple[int, ...], multiples: int, levels: int) -> None:
    network = Hourglass(HourglassConfig(width=8), 1, Drawn(1), size)
    assert network.multiples == (multiples, multiples) and len(network.down) == levels


@pytest.mark.parametrize("width", range(8, 257, 8))
def test_any_width_runs(width: int) -> None:
    """All levels, with attention at each, for any number of channels."""
    config = HourglassConfig(width=width, smallest=2, attention_up_to=64, blocks=1, patch=1)
    with torch.device("meta"):  # shapes alone
        network = Hourglass(config, 1, Drawn(1), (8, 8)).requires_grad_(False)
        x = torch.empty(1, 1, 8, 8)
        assert network(x, torch.tensor([0.5]), *condition(1, (8, 8))).shape == x.shape


@pytest.mark.parametrize("width", [8, 112, 152])
def test_any_width_runs_in_3d(width: int) -> None:
    network = Hourglass(HourglassConfig(width=width, blocks=1, smallest=2), 1, Drawn(1), (4, 8, 4)).requires_grad_(
        False
    )
    x = torch.randn(1, 1, 4, 8, 4, generator=torch.Generator().manual_seed(0))
    assert network(x, torch.tensor([0.5]), *condition(1, (4, 8, 4))).shape == x.shape


def test_heads_share_the_channels() -> None:
    """channels // 64 heads if they divide the channels, otherwise fewer; none has less than 64 channels."""
    for channels in range(8, 1200, 2):
        heads = head_count(channels, 64)
        assert channels % heads == 0 and (channels // heads >= 64 or heads == 1)
        if channels % max(1, channels // 64) == 0:
            assert heads == max(1, channels // 64)
    assert head_count(336, 64) == 3  # of 112, where 4 would have 84


def test_planes_need_no_attributes() -> None:
    network = Hourglass(HourglassConfig(width=8), 1, Drawn(1), (8, 8))
    with pytest.raises(ModelError, match="attributes"):
        network(torch.zeros(1, 1, 8, 8), torch.tensor([0.5]), *condition(1, (8, 8)), None, torch.zeros(1, 3))


def test_paper_unet_is_the_published_size() -> None:
    """113.7 M parameters (Konz et al. 2024 at 256 x 256, one image and one mask channel)."""
    with torch.device("meta"):
        network = PaperUNet(PaperUNetConfig(), 1, Drawn(1), (256, 256))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(113.7e6, rel=0.002)


def test_paper_unet_runs_small() -> None:
    network = PaperUNet(PaperUNetConfig(channels=(32, 32, 64)), 1, Drawn(1), (16, 16))
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert network(x, torch.tensor([0.001, 1.0]), *condition(2, (16, 16))).shape == x.shape
    assert PaperUNet(PaperUNetConfig(channels=(32, 32, 64)), 1, Drawn(1), (18, 18)).multiples == (4, 4)


@pytest.mark.parametrize(
    ("settings", "size", "words"),
    [
        ({"channels": (32, 40)}, (16, 16), "40 is not a multiple of 32"),
        ({"channels": (32, 64)}, (16, 16, 16), "16 x 16 x 16"),
        ({"channels": (32, 64), "options": {"down_block_types": ["DownBlock2D"]}}, (16, 16), "diffusers cannot build"),
    ],
)  # fmt: skip
def test_paper_unet_refuses(settings: dict[str, object], size: tuple[int, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        PaperUNet(PaperUNetConfig.model_validate(settings), 1, Drawn(1), size)
