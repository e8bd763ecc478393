"""Known answers: Gaussian data, whose optimal denoiser is closed-form, and diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.path import DDPMPath, FlowPath, Path
from anatogen.diffusion.solvers import SOLVERS, Denoise, ddim
from anatogen.diffusion.target import to_x0

MEAN, STD = 0.3, 0.4


def optimal_denoiser(path: Path) -> Denoise:
    """E[x0 | x_t] for x0 ~ N(MEAN, STD^2) in every pixel."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (path.alpha(t), path.sigma(t)))
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    return denoise


# Ancestral sampling without its noise is no sampler: `ddpm` is left out at eta = 0.
CHOICES = [(name, eta) for name in SOLVERS for eta in (0.0, 1.0) if (name, eta) != ("ddpm", 0.0)]


@pytest.mark.parametrize("shape", [(1, 48, 48), (1, 12, 12, 16)], ids=["2D", "3D"])
@pytest.mark.parametrize("path", [FlowPath(), DDPMPath()], ids=lambda p: p.name)
@pytest.mark.parametrize(("name", "eta"), CHOICES)
def test_mean_and_variance_of_a_gaussian(name: str, path: Path, shape: tuple[int, ...], eta: float) -> None:
    noise = SampleNoise(range(10), shape)
    times = path.times(1000)
    x = SOLVERS[name](optimal_denoiser(path), noise(), times, path, eta=eta, noise=noise)  # type: ignore[index]
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(STD, rel=0.015)


@pytest.mark.parametrize("path", [FlowPath(), DDPMPath()], ids=lambda p: p.name)
def test_the_second_order_solver_needs_fewer_steps(path: Path) -> None:
    """Forty steps of each against two thousand."""
    eps = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = SOLVERS["ddim"](optimal_denoiser(path), eps, torch.linspace(1, 0, 2001, dtype=torch.float64), path)

    def error(name: str) -> float:
        times = torch.linspace(1, 0, 41, dtype=torch.float64)
        x = SOLVERS[name](optimal_denoiser(path), eps, times, path)  # type: ignore[index]
        return float((x - exact).square().mean().sqrt())

    assert error("dpmpp_2m") < 0.6 * error("ddim")
    assert error("heun") < 0.6 * error("ddim")


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_diffusers_ddim(eta: float) -> None:
    """On its own ("leading") spacing, clipping included, with a network that is not linear."""
    scheduler = DDIMScheduler(1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02, clip_sample=True)
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 1, 16, 16, generator=generator)
    drawn = [torch.randn(start.shape, generator=generator) for _ in range(50)]

    def predict_noise(x: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(x) + 0.1 * torch.sin(5 * x) * (k / 1000)

    theirs = start
    for k, z in zip(scheduler.timesteps, drawn, strict=True):
        theirs = scheduler.step(predict_noise(theirs, k), k, theirs, eta=eta, variance_noise=z).prev_sample

    path, left = DDPMPath(), iter(drawn)
    ours = ddim(
        lambda x, t: to_x0("eps", path, x, predict_noise(x, t[0] * 1000 - 1), t),
        start,
        path.times(50, "leading"),
        path,
        eta=eta,
        noise=lambda: next(left),
        clip=1.0,
    )
    assert (ours - theirs).abs().max().item() < 1e-5


def test_ddpm_is_diffusers_ddpm() -> None:
    """At its full 1000 steps, with clipping, diffusers' posterior variance and mean."""
    scheduler = DDPMScheduler(1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02, clip_sample=True)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 1, 8, 8, generator=generator)
    path, drawn = DDPMPath(), [torch.randn(start.shape, generator=generator) for _ in range(1000)]

    def predict_noise(x: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(x) + 0.1 * torch.sin(5 * x) * (k / 1000)

    theirs = start
    for k, z in zip(scheduler.timesteps, drawn, strict=True):
        shrunk = scheduler.step(predict_noise(theirs, k), k, theirs, generator=torch.Generator().manual_seed(0))
        variance = scheduler._get_variance(k) if k > 0 else torch.zeros(())
        ownnoise = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))
        mean = shrunk.prev_sample - (variance.sqrt() * ownnoise if k > 0 else 0)
        theirs = mean + variance.sqrt() * z
    left = iter(drawn)
    ours = SOLVERS["ddpm"](
        lambda x, t: to_x0("eps", path, x, predict_noise(x, t[0] * 1000 - 1), t),
        start,
        path.times(1000, "leading"),
        path,
        eta=1.0,
        noise=lambda: next(left),
        clip=1.0,
    )
    assert (ours - theirs).abs().max().item() < 1e-3


def test_callback_sees_every_step() -> None:
    path, seen = FlowPath(), []
    ddim(
        optimal_denoiser(path),
        torch.zeros(1, 1, 4, 4),
        path.times(5),
        path,
        callback=lambda i, n, x, x0: seen.append((i, n)),
    )
    assert seen == [(i, 5) for i in range(5)]
