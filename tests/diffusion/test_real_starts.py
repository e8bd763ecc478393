"""Sampling from a noised real image, and around a part of it that is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anatogen.diffusion.interpolate import NoisedStart
from anatogen.diffusion.known import keeping
from anatogen.diffusion.path import PATHS, Path, match_dims
from anatogen.diffusion.solvers import SOLVERS, Denoise, SolverName
from anatogen.sampling import SamplingSettings, sample

MEAN, STD = 0.3, 0.2


def gaussian(path: Path) -> Denoise:
    """The optimal denoiser of independent N(MEAN, STD^2) pixels."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = match_dims(path.alpha(t), x), match_dims(path.sigma(t), x)
        gain = alpha * STD**2 / ((alpha * STD) ** 2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return denoise


def noise_like(*shape: int, seed: int = 0) -> object:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path_name", PATHS)
@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
def test_the_kept_part_is_the_real_image(solver: SolverName, path_name: str, size: tuple[int, ...]) -> None:
    path = PATHS[path_name]()  # type: ignore[index]
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    kept = torch.zeros(2, *size)
    kept[0, 0], kept[1, -1] = 1.0, 1.0
    settings = SamplingSettings(solver=solver, steps=6, eta=1.0)
    draw = noise_like(2, 1, *size)
    made = sample(keeping(gaussian(path), images, kept), path, settings, draw)  # type: ignore[arg-type]
    assert torch.equal(made[kept[:, None] == 1], images[kept[:, None] == 1])
    alone = sample(gaussian(path), path, settings, noise_like(2, 1, *size))  # type: ignore[arg-type]
    assert torch.equal(made[kept[:, None] == 0], alone[kept[:, None] == 0])  # pixels are independent here


def test_values_between_blend_at_every_step() -> None:
    path = PATHS["flow"]()
    images, kept = torch.ones(1, 1, 4, 4), torch.full((1, 4, 4), 0.25)
    x, t = torch.randn(1, 1, 4, 4), torch.tensor([0.4])
    expected = 0.25 * images + 0.75 * gaussian(path)(x, t)
    assert torch.allclose(keeping(gaussian(path), images, kept)(x, t), expected)


def test_what_is_made_fits_what_is_kept() -> None:
    """Two pixels that are always equal: the one that is made takes the value of the one that is kept."""
    path = PATHS["flow"]()

    def twins(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = match_dims(path.alpha(t), x), match_dims(path.sigma(t), x)
        gain = alpha * STD**2 / (2 * (alpha * STD) ** 2 + sigma**2)
        return (MEAN + gain * (x - alpha * MEAN).sum(dim=-1, keepdim=True)).expand_as(x)

    values = torch.tensor([0.0, 0.2, 0.5, 0.7]).repeat(200).reshape(-1, 1, 1)
    images = values[..., None].expand(-1, 1, 1, 2).clone()
    kept = torch.tensor([1.0, 0.0]).expand(len(images), 1, 2).clone()
    settings = SamplingSettings(steps=40)
    made = sample(keeping(twins, images, kept), path, settings, noise_like(len(images), 1, 1, 2))  # type: ignore[arg-type]
    other = made[:, 0, 0, 1].reshape(-1, 4).mean(dim=0)
    assert torch.corrcoef(torch.stack([other, values[:4, 0, 0]]))[0, 1] > 0.99
    assert (other[-1] - other[0]) / 0.7 > 0.6  # all of it would be 1; noise hides the kept pixel at first


@pytest.mark.parametrize("path_name", PATHS)
@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_a_noised_start_keeps_less_the_noisier_it_is(path_name: str, size: tuple[int, ...]) -> None:
    path = PATHS[path_name]()  # type: ignore[index]
    images = MEAN + STD * torch.randn(64, 1, *size, generator=torch.Generator().manual_seed(5))
    paper = PATHS["ddpm"]()
    for step in (20, 300, 900):
        draw = noise_like(64, 1, *size, seed=step)
        settings = SamplingSettings(solver="ddim", steps=50, eta=0.0, clip=None)
        made = sample(gaussian(path), path, settings, draw, start=NoisedStart(images, step))  # type: ignore[arg-type]
        assert made.mean() == pytest.approx(MEAN, abs=0.02) and made.std() == pytest.approx(STD, rel=0.12)
        found = float(torch.corrcoef(torch.stack([made.flatten(), images.flatten()]))[0, 1])
        time = torch.tensor(step / 1000)  # the flow keeps the order of a pixel's values: the correlation is that of x_t
        ratio = float(paper.sigma(time) / paper.alpha(time)) / STD
        assert found == pytest.approx((1 + ratio**2) ** -0.5, abs=0.02)
