"""The wavelet that `benchmarks/wavelet.py` puts in the place of space-to-depth."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from anatogen.networks.blocks import space_to_depth
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from haar import analysed, haar_matrix, in_bands, synthesised

PATCHES = [(2, 2), (4, 4), (1, 2), (2, 2, 2), (1, 2, 2), (4, 2, 1)]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("patch", PATCHES)
def test_it_is_orthonormal_and_has_an_inverse(patch: tuple[int, ...]) -> None:
    matrix = haar_matrix(patch).double()
    assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), atol=1e-6)
    x = drawn(2, 3 * len(matrix), *(3 for _ in patch)).double()
    bands = analysed(x, matrix)
    assert bands.shape == x.shape and not torch.allclose(bands, x)
    assert torch.allclose(bands.square().sum(), x.square().sum())
    assert torch.allclose(synthesised(bands, matrix), x, atol=1e-6)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_constant_is_in_the_first_band_alone(patch: tuple[int, ...]) -> None:
    """Two channels, each with bands of its own."""
    values = torch.tensor([3.0, -1.0]).reshape(1, 2, *(1 for _ in patch))
    deep = space_to_depth(values.expand(1, 2, *(2 * side for side in patch)), patch)
    bands = analysed(deep, matrix := haar_matrix(patch)).unflatten(1, (2, -1))
    root = len(matrix) ** 0.5
    assert torch.allclose(bands[:, :, 0], values.expand(1, 2, *(2 for _ in patch)) * root, atol=1e-6)
    assert bands[:, :, 1:].abs().max() < 1e-6


def test_a_step_is_in_the_band_of_its_axis() -> None:
    rows = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    for image, band in ((rows, 2), (rows.T, 1), (rows * rows.T, 3)):
        bands = analysed(space_to_depth(image[None, None], (2, 2)), haar_matrix((2, 2))).flatten()
        assert torch.allclose(bands, 2 * torch.eye(4)[band], atol=1e-6)
    volume = rows[:, :, None].expand(2, 2, 2)  # along D
    bands = analysed(space_to_depth(volume[None, None], (2, 2, 2)), haar_matrix((2, 2, 2))).flatten()
    assert torch.allclose(bands, 8**0.5 * torch.eye(8)[4], atol=1e-6)
    line = torch.tensor([1.0, 1.0, -1.0, -1.0])[None]  # a coarse step and no fine one
    assert torch.allclose(haar_matrix((4,)) @ line[0], 2 * torch.eye(4)[1], atol=1e-6)


def test_other_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="powers of 2"):
        haar_matrix((2, 3))


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_both_networks_can_be_the_same_function(size: tuple[int, ...]) -> None:
    """With the weights of stem and head turned by the wavelet: what it changes is where training starts and how."""
    dim = len(size)
    plain, banded = (
        Hourglass(HourglassConfig(width=8, blocks=1, smallest=4), 2, None, size, classes=3) for _ in range(2)
    )
    torch.nn.init.normal_(plain.head.weight, generator=torch.Generator().manual_seed(1))
    banded.load_state_dict(plain.state_dict())
    x, t = drawn(2, 2, *size), torch.tensor([0.2, 0.7])
    labels, states = torch.ones(2, *size, dtype=torch.int64), torch.ones(2, 1, 2, dtype=torch.bool)
    with torch.no_grad():
        in_bands(banded)
        wanted = plain(x, t, labels, states)
        assert not torch.allclose(banded(x, t, labels, states), wanted, atol=1e-2)
        matrix = torch.block_diag(*[haar_matrix((2,) * dim)] * 2)
        banded.stem.weight.copy_(torch.einsum("ki,oi...->ok...", matrix, plain.stem.weight))
        banded.head.weight.copy_(torch.einsum("ki,ic...->kc...", matrix, plain.head.weight))
        banded.head.bias.copy_(matrix @ plain.head.bias)
        assert torch.allclose(banded(x, t, labels, states), wanted, atol=1e-3 * float(wanted.abs().max()))
