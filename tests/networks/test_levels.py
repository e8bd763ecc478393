"""Levels planned for grids of thick slices: their voxels become cubic, and no side vanishes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.errors import SettingsError
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.levels import cubic_levels, plan_levels, planned_channels


def test_cubic_voxels_are_halved_together() -> None:
    for size in ((64, 64), (48, 64, 48), (128, 128, 128), (256, 256, 256)):
        planned = plan_levels(size, (1.0,) * len(size))
        assert planned == cubic_levels(size, (2,) * len(size), 8), size


def test_thick_slices_wait() -> None:
    """256 x 256 x 20 at 0.8 x 0.8 x 5 mm: slices join once the pixels in the plane are as long."""
    found = plan_levels((20, 256, 256), (5.0, 0.8, 0.8))
    assert found.patch == (1, 2, 2)
    assert found.halvings == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert found.multiples == (4, 32, 32)  # 20 slices need no padding


def test_ten_slices_of_a_heart() -> None:
    found = plan_levels((10, 192, 160), (10.0, 1.4, 1.4))
    assert found.patch[0] == 1 and found.multiples[0] <= 4
    assert math.prod(found.multiples[1:]) == 32 * 32 or found.multiples[1:] == (16, 16)


sides = st.integers(1, 300)


@given(st.lists(st.tuples(sides, st.floats(0.2, 10)), min_size=2, max_size=3), st.sampled_from([1, 2, 4]))
@settings(max_examples=200, deadline=None)
def test_any_grid(axes: list[tuple[int, float]], patch: int) -> None:
    size, spacing = tuple(side for side, _ in axes), tuple(mm for _, mm in axes)
    found = plan_levels(size, spacing, patch=patch)
    assert found.sides[-1] <= 8 and len(found.sides) == len(found.halvings) + 1
    for side, multiple, per in zip(size, found.multiples, found.patch, strict=True):
        assert multiple == per or side / multiple > 0.5  # the coarsest level is not padding


def test_the_finest_level_keeps_twice_what_a_patch_has() -> None:
    for size, patch, channels in (((64, 64, 64), (4, 4, 4), 1), ((64, 64), (2, 2), 4), ((20, 256, 256), (1, 2, 2), 2)):
        for width in (8, 32, 128):
            found = planned_channels(cubic_levels(size, patch, 8), width, channels)
            assert found[0] >= 2 * channels * math.prod(patch) and all(n % 8 == 0 for n in found)


@pytest.mark.parametrize("size", [(20, 64, 48), (10, 33, 61), (3, 40, 40)])
def test_the_network_takes_thick_slices_and_gives_their_size_back(size: tuple[int, ...]) -> None:
    levels = plan_levels(size, (5.0, 0.8, 0.8))
    config = HourglassConfig(width=8, blocks=1, patch=levels.patch, halvings=levels.halvings)
    network = Hourglass(config, 1, None, size, classes=3)
    assert network.multiples == levels.multiples
    padded = tuple(-(-side // m) * m for side, m in zip(size, network.multiples, strict=True))
    labels = torch.zeros(2, *padded, dtype=torch.int64)
    out = network(torch.randn(2, 1, *padded), torch.tensor([0.1, 0.9]), labels, torch.ones(2, 1, 2, dtype=torch.bool))
    assert out.shape == (2, 1, *padded)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"patch": (2, 2, 2)}, "2 numbers"),
        ({"halvings": ((1, 2, 2),)}, "2 numbers"),
        ({"channels": (8, 16)}, "2 numbers for 4 levels"),
        ({"blocks": (1,)}, "1 numbers for 4 levels"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Hourglass(HourglassConfig.model_validate(values), 1, None, (128, 128), classes=3)


def test_activations_computed_again_give_the_same_gradients() -> None:
    gradients = []
    for wanted in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Hourglass(HourglassConfig(width=8, blocks=1), 1, None, (16, 16, 16), classes=3)
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        network.recompute(wanted)
        x = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
        labels = torch.ones(1, 16, 16, 16, dtype=torch.int64)
        network(x, torch.tensor([0.5]), labels, torch.ones(1, 1, 2, dtype=torch.bool)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None)
