import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from anatogen.diffusion.loss import denoising_loss, numbers_for_times, training_times
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.path import DDPMPath, FlowPath, Grid, Path, add_noise
from anatogen.diffusion.target import loss_weight, to_x0
from anatogen.seeds import Draws, evenly_spread

PATHS = [FlowPath(), DDPMPath()]


def test_ddpm_is_diffusers_schedule() -> None:
    path, scheduler = DDPMPath(), DDPMScheduler(1000, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    assert torch.allclose(path.alpha(t) ** 2, scheduler.alphas_cumprod.double(), atol=1e-6)
    x0, eps = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([0, 10, 500, 999])
    ours = add_noise(path, x0, eps, (steps + 1) / 1000)
    assert torch.allclose(ours, scheduler.add_noise(x0, eps, steps), atol=1e-5)


@pytest.mark.parametrize("grid", ["polynomial", "leading"])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_ends(path: Path, grid: Grid) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(path.alpha(ends), torch.tensor([1.0, 0.0], dtype=torch.float64), atol=0.01)
    assert torch.allclose(path.sigma(ends), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-4)
    times = path.times(10, grid)
    assert len(times) == 11 and times[-1] == 0 and 0.9 < times[0] <= 1 and (times.diff() < 0).all()


def test_a_bent_grid_has_the_same_noise_on_every_path() -> None:
    flow, ddpm = FlowPath(), DDPMPath()
    t, s = flow.times(16), ddpm.times(16)
    assert t[8].item() == pytest.approx(0.5**1.5)
    most = float(ddpm.sigma(s[0]) / ddpm.alpha(s[0]))
    assert s[0].item() == pytest.approx(1, abs=1e-4) and most == pytest.approx(157, abs=1)
    begins_there = t * most / (1 + most)
    ratios = [path.sigma(times) / path.alpha(times) for path, times in ((flow, begins_there), (ddpm, s))]
    assert torch.allclose(*ratios, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_time_of_is_the_inverse_of_the_ratio(path: Path) -> None:
    t = torch.tensor([0.0005, 0.001, 0.1, 0.2405, 0.77, 0.995], dtype=torch.float64)
    assert torch.allclose(path.time_of(path.sigma(t) / path.alpha(t)), t, atol=1e-7)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("shape", [(5, 2, 4, 4), (5, 1, 4, 4, 4)])
def test_every_target_implies_the_same_image(path: Path, shape: tuple[int, ...]) -> None:
    x0, eps = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)
    x_t = add_noise(path, x0, eps, t)
    of_x0, of_eps = (v.reshape(5, *(1,) * (len(shape) - 1)) for v in path.velocity(t))
    for target, truth in (("x0", x0), ("eps", eps), ("v", of_x0 * x0 + of_eps * eps)):
        assert torch.allclose(to_x0(target, path, x_t, truth, t), x0, atol=1e-6), target  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_an_edm_network_that_says_nothing_guesses_linearly(path: Path) -> None:
    """For a prediction of 0, x0 is the least-squares estimate for images of standard deviation 0.5; the residual has
    the variance that the target scales by (Karras et al. 2022, Appendix B.6).
    """
    generator = torch.Generator().manual_seed(0)
    for time in (0.05, 0.4, 0.9):
        x0, eps = torch.randn(2, 1, 1, 300, 300, generator=generator, dtype=torch.float64) * torch.tensor(
            [0.5, 1.0]
        ).reshape(2, 1, 1, 1, 1)
        t = torch.tensor([time], dtype=torch.float64)
        x_t = add_noise(path, x0, eps, t)
        guess = to_x0("edm", path, x_t, torch.zeros_like(x_t), t)
        best = (x_t * x0).mean() / x_t.square().mean()
        assert torch.allclose(guess, best * x_t, atol=0.02)
        missing = to_x0("edm", path, x_t, torch.ones_like(x_t), t) - guess
        assert missing.mean().item() == pytest.approx((x0 - guess).std().item(), rel=0.02)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_loss_is_the_squared_error_of_its_quantity(path: Path, target: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps, guess = torch.randn(3, 6, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    of_x0, of_eps = (v.reshape(6, 1, 1, 1) for v in path.velocity(t))
    truth = {"eps": eps, "x0": x0, "v": of_x0 * x0 + of_eps * eps}[target]

    def denoise(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return to_x0(target, path, x_t, guess, time)  # type: ignore[arg-type]

    loss = denoising_loss(denoise, path, x0, eps, t, weighting=target)  # type: ignore[arg-type]
    assert loss.mean().item() == pytest.approx((guess - truth).square().mean().item(), rel=1e-4)


def test_ignored_pixels_have_no_say_in_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps, guess = torch.randn(3, 4, 2, 6, 6, generator=generator)
    ignored = torch.rand(4, 6, 6, generator=generator) < 0.4
    ignored[0], ignored[1] = False, True
    t = torch.full((4,), 0.5)

    def loss(truth: torch.Tensor, ignored: torch.Tensor | None) -> torch.Tensor:
        return denoising_loss(lambda *_: guess, FlowPath(), truth, eps, t, weighting="x0", ignored=ignored)

    plain, masked = loss(x0, None), loss(x0, ignored)
    other = torch.where(ignored[:, None], 100.0, x0)
    assert torch.equal(loss(other, ignored), masked)  # whatever is there
    assert masked[0].item() == pytest.approx(plain[0].item(), rel=1e-6) and masked[1] == 0
    there = ~ignored[2].expand(2, 6, 6)
    assert masked[2].item() == pytest.approx((guess - x0)[2][there].square().mean().item(), rel=1e-5)


def test_weights_stay_finite_near_the_clean_image() -> None:
    assert torch.isfinite(loss_weight("v", FlowPath(), torch.tensor([0.0, 1e-6]), 0.05)).all()


def test_times_of_training() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = training_times("uniform", torch.rand(200_000, generator=generator), DDPMPath()) * 1000
    assert torch.equal(steps.round().unique(), torch.arange(1.0, 1001))
    t = training_times("logit_normal", torch.randn(100_000, generator=generator), FlowPath(), mean=-0.5, spread=1.2)
    logit = torch.logit(t.double())
    assert logit.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert logit.std().item() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("path", [FlowPath(), DDPMPath()])
def test_the_same_noise_is_trained_on_every_path(path: Path) -> None:
    normal = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    t = training_times("logit_normal", normal, path, mean=-0.5, spread=1.2).double()
    assert t.min() > 0 and t.max() <= 1
    ratio = (path.sigma(t) / path.alpha(t)).log()
    assert ratio.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert ratio.std().item() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("path", [FlowPath(), DDPMPath()])
def test_a_share_of_the_times_is_for_texture(path: Path) -> None:
    """Even over the logarithm of the ratio from 0.02 to 0.37; the others are normal, as without it."""
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    t = training_times("logit_normal", normal, path, mean=0.1, spread=1.1, low_noise_share=0.2, least_noise=0.02)
    log = (path.sigma(t.double()) / path.alpha(t.double())).log()
    of_texture = log[torch.special.ndtr(normal) < 0.2]
    others = log[torch.special.ndtr(normal) >= 0.2]
    assert len(of_texture) / len(log) == pytest.approx(0.2, abs=0.005)
    low = math.log(0.02)
    assert low - 0.01 < of_texture.min() < low + 0.1 and of_texture.max() == pytest.approx(-1, abs=0.01)
    assert of_texture.mean().item() == pytest.approx((low - 1) / 2, abs=0.02)
    assert of_texture.std().item() == pytest.approx((-1 - low) / 12**0.5, abs=0.02)
    assert others.mean().item() == pytest.approx(0.1, abs=0.02) and others.std().item() == pytest.approx(1.1, abs=0.02)
    same = training_times("logit_normal", normal, path, mean=0.1, spread=1.1)
    assert torch.equal(training_times("logit_normal", normal, path, mean=0.1, spread=1.1, least_noise=0.3), same)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_stratified_times_have_the_same_distribution(distribution: str) -> None:
    """And every batch of eight spans it: independent draws often do not."""
    found = []
    for step in range(500):
        even = [evenly_spread(8 * step + place, 77) for place in range(8)]
        drawn = numbers_for_times(distribution, Draws(range(8), even=even), stratified=True)  # type: ignore[arg-type]
        t = training_times(distribution, drawn, FlowPath())  # type: ignore[arg-type]
        assert t.min() < 0.45 < 0.55 < t.max()
        found.append(t)
    plain = numbers_for_times(distribution, Draws(range(4000)), stratified=False)  # type: ignore[arg-type]
    expected = training_times(distribution, plain, FlowPath())  # type: ignore[arg-type]
    quantiles = torch.linspace(0.05, 0.95, 10)
    assert torch.allclose(torch.cat(found).quantile(quantiles), expected.quantile(quantiles), atol=0.03)


def test_noise_belongs_to_the_sample() -> None:
    ahead, now = (SampleNoise([5, 6], (1, 8, 8), ahead=ahead) for ahead in (True, False))
    for _ in range(3):
        assert torch.equal(ahead(), now())
    together, alone = SampleNoise([5, 6, 7], (1, 8, 8)), SampleNoise([6], (1, 8, 8))
    for _ in range(3):
        assert torch.equal(together()[1:2], alone())


def test_leading_grid_is_diffusers_where_the_steps_divide_the_thousand() -> None:
    for steps in (n for n in range(1, 1001) if 1000 % n == 0):
        scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="leading")
        scheduler.set_timesteps(steps)
        old = torch.cat([(scheduler.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])
        assert torch.equal(DDPMPath().times(steps, "leading"), old), steps


def test_leading_grid_always_starts_in_the_noise() -> None:
    """Within one stride of the end for any number of steps (400 steps once started at 0.4), at whole, equal steps."""
    for steps in range(1, 1001):
        k = DDPMPath().times(steps, "leading")[:-1] * 1000 - 1
        assert torch.equal(k, k.round()) and k[-1] == 0 and len(k) == steps
        assert k[0] >= 999 - 1000 / steps
        strides = k[:-1] - k[1:]
        assert ((strides - 1000 / steps).abs() < 1).all() and (strides >= 1).all()
