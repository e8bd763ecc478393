"""Known answers: for Gaussians of equal variance the guided denoiser, and what it samples, are closed-form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anatogen.conditioning.encode import Condition
from anatogen.diffusion.guidance import EVERYWHERE, Interval, guided, guided_from, noise_share
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.path import DDPMPath, FlowPath, Path
from anatogen.diffusion.solvers import SOLVERS, Denoise
from anatogen.errors import SettingsError
from anatogen.labels import LabelSchema
from anatogen.sampling import SamplingSettings, denoiser_under

MEAN, OTHER, STD = 0.3, 0.1, 0.4
PATHS: list[Path] = [FlowPath(), DDPMPath()]
SHAPES = [(1, 24, 24), (2, 8, 9, 10)]
# Ancestral sampling without its noise is no sampler: `ddpm` is left out at eta = 0.
CHOICES = [(name, eta) for name in SOLVERS for eta in (0.0, 1.0) if (name, eta) != ("ddpm", 0.0)]


def optimal(path: Path, mean: float | Tensor) -> Denoise:
    """E[x0 | x_t] for x0 ~ N(mean, STD^2) in every pixel; mean: one number, or one for each sample (B, 1, ...)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (path.alpha(t), path.sigma(t)))
        return mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)

    return denoise


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(x, t)


def mean_of_samples(weight: float, interval: Interval, eta: float) -> float:
    """With r = sigma / alpha, y = x / alpha and the guided mean m(r), the ODE is d(y / v) = -m(r) r / v^3 dr with v =
    sqrt(STD^2 + r^2); with all noise put back d(y / v^2) = -2 m(r) r / v^4 dr. m differs from MEAN in the interval.
    """
    low, high = (r / (1 - r) if r < 1 else float("inf") for r in interval)
    power = 0.5 + eta / 2
    inside = (STD**2 / (STD**2 + low**2)) ** power - (STD**2 / (STD**2 + high**2)) ** power
    return MEAN + (weight - 1) * (MEAN - OTHER) * inside


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_equal_variances_shift_the_mean(path: Path, shape: tuple[int, ...]) -> None:
    """The guided denoiser of N(MEAN, s) away from N(OTHER, s) is that of N(OTHER + w (MEAN - OTHER), s)."""
    x, t = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 1.0])
    for weight in (0.0, 0.5, 2.0, 3.5):
        found = guided(optimal(path, MEAN), optimal(path, OTHER), weight, path)(x, t)
        assert torch.allclose(found, optimal(path, OTHER + weight * (MEAN - OTHER))(x, t), atol=1e-5)


@pytest.mark.parametrize("interval", [EVERYWHERE, (0.2, 0.6)], ids=str)
@pytest.mark.parametrize(("path", "shape"), list(zip(PATHS, SHAPES, strict=True)), ids=["flow, 2D", "ddpm, 3D"])
@pytest.mark.parametrize(("name", "eta"), CHOICES)
def test_mean_and_variance_of_samples(
    name: str, path: Path, shape: tuple[int, ...], eta: float, interval: Interval
) -> None:
    noise, times = SampleNoise(range(12), shape), path.times(200)
    denoise = guided(optimal(path, MEAN), optimal(path, OTHER), 3.0, path, interval)
    x = SOLVERS[name](denoise, noise(), times, path, eta=eta, noise=noise)  # type: ignore[index]
    expected = mean_of_samples(3.0, interval, eta)
    assert abs(expected - MEAN) > 0.05  # guidance does make a difference
    assert x.mean().item() == pytest.approx(expected, abs=0.015)
    assert x.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("weight", [1.0, torch.ones(4)], ids=["a number", "for each sample"])
def test_a_weight_of_one_is_off(weight: float | Tensor) -> None:
    path, without = FlowPath(), Counted(optimal(FlowPath(), OTHER))
    denoise = optimal(path, MEAN)
    assert guided(denoise, without, weight, path) is denoise and without.calls == 0


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_outside_the_interval_nothing_changes_and_the_second_call_is_saved(path: Path) -> None:
    interval = (0.25, 0.75)
    denoise, without = Counted(optimal(path, MEAN)), Counted(optimal(path, OTHER))
    both = guided(denoise, without, 2.0, path, interval)
    times, x = path.times(40), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for time in times[:-1]:
        t, before = time.float().expand(2), without.calls
        inside = bool(interval[0] < float(path.sigma(time) / (path.alpha(time) + path.sigma(time))) <= interval[1])
        same = torch.equal(both(x, t), optimal(path, MEAN)(x, t))
        assert same != inside and without.calls - before == inside
    assert denoise.calls == 40 and 10 < without.calls < 30


def test_the_low_end_is_outside_and_the_high_end_inside() -> None:
    path, x = FlowPath(), torch.zeros(1, 1, 2, 2)
    without = Counted(optimal(path, OTHER))
    both = guided(optimal(path, MEAN), without, 2.0, path, (0.25, 0.5))
    for t, calls in ((0.25, 0), (0.375, 1), (0.5, 2), (0.625, 2)):
        both(x, torch.tensor([t]))
        assert without.calls == calls


def test_every_sample_has_its_weight_and_its_time() -> None:
    path, weights, t = DDPMPath(), torch.tensor([1.0, 2.0, 0.5, 3.0]), torch.tensor([0.3, 0.3, 0.3, 0.01])
    x = torch.randn(4, 1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    means = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1, 1, 1)
    found = guided(optimal(path, means), optimal(path, OTHER), weights, path, (0.1, 0.9))(x, t)
    for i in range(4):
        alone = guided(optimal(path, means[i]), optimal(path, OTHER), float(weights[i]), path, (0.1, 0.9))
        assert torch.equal(found[i : i + 1], alone(x[i : i + 1], t[i : i + 1]))
    plain = optimal(path, means)(x, t)
    assert [torch.equal(a, b) for a, b in zip(found, plain, strict=True)] == [True, False, False, True]


def test_the_share_of_noise() -> None:
    t = torch.linspace(0, 1, 9)
    assert torch.allclose(noise_share(FlowPath(), t), t)
    ratio = torch.tensor([0.28, 1.0, 2.9], dtype=torch.float64)
    for path in PATHS:
        assert torch.allclose(noise_share(path, path.time_of(ratio)), ratio / (1 + ratio), atol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 5)])
def test_pushes_of_several_kinds_add_up(size: tuple[int, ...]) -> None:
    """Map and attributes: each pushes away from the same without it; what is off costs no call."""
    path, calls = FlowPath(), list[str]()

    def saying(name: str, value: float) -> Denoise:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            calls.append(name)
            return torch.full_like(x, value)

        return denoise

    pushes = [(saying("map", 1.0), 2.0), (saying("attributes", 4.0), 1.5), (saying("off", 9.0), 1.0)]
    x, t = torch.zeros(2, 1, *size), torch.tensor([0.5, 0.5])
    made = guided_from(saying("whole", 3.0), pushes, path, (0.2, 0.8))
    assert torch.equal(made(x, t), torch.full_like(x, 3.0 + (3.0 - 1.0) + 0.5 * (3.0 - 4.0)))
    assert calls == ["whole", "map", "attributes"]
    calls.clear()
    assert torch.equal(made(x, torch.tensor([0.9, 0.9])), torch.full_like(x, 3.0)) and calls == ["whole"]


def test_attributes_are_guided_away_from_unknown_ones() -> None:
    schema = LabelSchema.from_names(["a"])
    vector = torch.tensor([[1.0, 0.0, 1.0]])
    condition = Condition.of(torch.ones(1, 4, 4, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool), vector=vector)

    def under(told: Condition) -> Denoise:
        assert told.vector is not None
        value = float(told.vector.sum()) + 10 * float(told.states.float().mean())
        return lambda x, t: torch.full_like(x, value)

    def made(**changes: Any) -> float:
        settings = SamplingSettings().changed(**changes)
        denoise = denoiser_under(under, condition, FlowPath(), settings, schema)
        return float(denoise(torch.zeros(1, 1, 4, 4), torch.tensor([0.5])).mean())

    assert made() == 12
    assert made(attribute_guidance=2.0) == 12 + (12 - 10)
    assert made(guidance=2.0) == 12 + (12 - 2)
    assert made(attribute_guidance=2.0, guidance=2.0) == 12 + 2 + 10
    assert "attribute_guidance" not in SamplingSettings().model_dump(mode="json")
    kept = SamplingSettings().changed(attribute_guidance=2.0, guidance_interval=(0.1, 0.9))
    assert SamplingSettings.model_validate(kept.model_dump(mode="json")) == kept
    assert kept.guidance_in_words == "attribute guidance 2 at noise 0.1 to 0.9"
    with pytest.raises(SettingsError, match="takes no attributes"):
        kept.check_guidance(schema, takes_free=True)
    kept.check_guidance(schema, takes_free=False, takes_attributes=True)
