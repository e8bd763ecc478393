"""Solvers: pure functions that walk a path from noise to image with a denoiser.

All share one signature, `solver(denoise, x, times, path, *, eta, noise, clip, callback)`:

denoise: (x_t (B, C, *spatial), t (B,)) -> x0, of the same shape as x_t.
x: the noise at times[0], (B, C, *spatial). times: falling, (steps + 1,), the last one 0.
eta: how much of the noise that a step takes away is put back: 0 deterministic, 1 as the stochastic process does.
noise: draws standard normal noise like x; needed where eta > 0. clip: bound of |x0|.
callback: called after each step as callback(step, steps, x_t, x0), for progress and previews.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from anatogen.diffusion.path import Path

SolverName = Literal["ddpm", "ddim", "dpmpp_2m", "heun"]
Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int, Tensor, Tensor], None]


class Solver(Protocol):
    """The shared signature; see the module's text."""

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        times: Tensor,
        path: Path,
        *,
        eta: float = 0.0,
        noise: Callable[[], Tensor] | None = None,
        clip: float | None = None,
        callback: Callback | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """One step along a path, from `time` to the next one.

    Attributes:
        alpha, sigma: At `time`.
        next_alpha, next_sigma: At the next time.
        shrink: e = (alpha next_sigma) / (sigma next_alpha) in [0, 1), the share of the noise-to-image ratio that is
            left.
    """

    number: int
    count: int
    time: Tensor
    alpha: float
    sigma: float
    next_alpha: float
    next_sigma: float

    @property
    def shrink(self) -> float:
        return (self.alpha * self.next_sigma) / (self.sigma * self.next_alpha)

    def report(self, callback: Callback | None, x: Tensor, x0: Tensor) -> None:
        """Tell `callback` what the step has reached."""
        if callback is not None:
            callback(self.number, self.count, x, x0)


def steps_along(path: Path, times: Tensor) -> Iterator[Step]:
    """The steps between neighbouring `times` (steps + 1,)."""
    alphas, sigmas = path.alpha(times), path.sigma(times)
    for i in range(len(times) - 1):
        ends = (float(v) for v in (alphas[i], sigmas[i], alphas[i + 1], sigmas[i + 1]))
        yield Step(i, len(times) - 1, times[i], *ends)


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    path: Path,
    *,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
    clip: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Song et al. 2021, "Denoising Diffusion Implicit Models", Eq. 12, for any path.

    x_s = alpha_s x0 + sqrt(sigma_s^2 - tau^2) eps + tau z, with the noise that is put back
    tau = eta sigma_s sqrt(1 - e^2), e = (alpha_t sigma_s) / (alpha_s sigma_t): their Eq. 16 without alpha^2 + sigma^2 =
    1. As in diffusers, `clip` bounds the image and leaves the direction eps as the network gave it.
    """
    for step in steps_along(path, times):
        x0 = denoise(x, _time_like(x, step.time))
        eps = (x - step.alpha * x0) / step.sigma
        x0 = _clipped(x0, clip)
        put_back = eta * step.next_sigma * (1 - step.shrink**2) ** 0.5
        x = step.next_alpha * x0 + max(0.0, step.next_sigma**2 - put_back**2) ** 0.5 * eps
        if put_back > 0:
            x = x + put_back * _draw(noise)
        step.report(callback, x, x0)
    return x


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    path: Path,
    *,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
    clip: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): Lu et al. 2022, "DPM-Solver++", Algorithm 2; with eta > 0 its stochastic form (section 4.2).

    A second-order multistep method in lambda = log(alpha / sigma), one call of the denoiser a step.
    With e = exp(-h), h = lambda_s - lambda_t, the step is
    x_s = sigma_s/sigma_t e^eta x_t + alpha_s (1 - e^(1 + eta)) x0* + sigma_s sqrt(1 - e^(2 eta)) z,
    x0* = x0 + (x0 - previous x0) / (2 r), r = h_previous / h. The ends of the path (alpha = 0, sigma = 0) are exact,
    because e is computed as a ratio; the steps next to them are of first order.
    """
    previous_x0: Tensor | None = None
    previous_h = float("inf")
    for step in steps_along(path, times):
        x0 = _clipped(denoise(x, _time_like(x, step.time)), clip)
        h = -math.log(step.shrink) if step.shrink > 0 else float("inf")
        extrapolated = x0
        if previous_x0 is not None and h < float("inf"):
            extrapolated = x0 + (x0 - previous_x0) * (0.5 * h / previous_h)
        kept = step.shrink**eta
        x = (step.next_sigma / step.sigma) * kept * x + step.next_alpha * (1 - step.shrink * kept) * extrapolated
        if eta > 0 and step.next_sigma > 0:
            x = x + step.next_sigma * (1 - kept**2) ** 0.5 * _draw(noise)
        previous_x0, previous_h = x0, h
        step.report(callback, x, x0)
    return x


def ddpm(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    path: Path,
    *,
    eta: float = 1.0,
    noise: Callable[[], Tensor] | None = None,
    clip: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling: Ho et al. 2020, Algorithm 2, on any grid and path.

    x_s is drawn from q(x_s | x_t, x0) (their Eq. 6 and 7, with the posterior variance). Unlike `ddim` at eta = 1, where
    `clip` leaves eps alone, the mean is taken with the bounded image, as diffusers' DDPMScheduler does. `eta` scales
    the noise that is drawn; its default is the algorithm's.
    """
    for step in steps_along(path, times):
        x0 = _clipped(denoise(x, _time_like(x, step.time)), clip)
        x = step.next_alpha * (1 - step.shrink**2) * x0 + step.shrink * step.next_sigma / step.sigma * x
        if eta > 0 and step.next_sigma > 0:
            x = x + eta * step.next_sigma * (1 - step.shrink**2) ** 0.5 * _draw(noise)
        step.report(callback, x, x0)
    return x


def heun(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    path: Path,
    *,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
    clip: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's method of second order, two calls of the denoiser a step (Karras et al. 2022, Algorithm 1), for any path.

    It walks y = x / alpha over r = sigma / alpha, where the flow is dy/dr = (y - x0) / r. A step that begins where
    alpha is 0, or ends where sigma is 0, is of first order. With eta > 0 a step goes down further, to where the noise
    that is put back (that of `ddim`) brings it up to the next time.
    """
    for step in steps_along(path, times):
        alpha, sigma, next_alpha, next_sigma = step.alpha, step.sigma, step.next_alpha, step.next_sigma
        put_back = eta * next_sigma * (1 - step.shrink**2) ** 0.5
        down = max(0.0, next_sigma**2 - put_back**2) ** 0.5  # the noise left before any is put back, beside next_alpha
        x0 = _clipped(denoise(x, _time_like(x, step.time)), clip)
        following = next_alpha * x0 + down / sigma * (x - alpha * x0)
        if alpha > 0 and down > 0:
            time = path.time_of(torch.tensor(down / next_alpha, dtype=torch.float64))
            scale = float(path.alpha(time)) / next_alpha
            ahead = _clipped(denoise(following * scale, _time_like(x, time)), clip)
            slope = (x / alpha - x0) / (sigma / alpha)
            slope_ahead = (following / next_alpha - ahead) / (down / next_alpha)
            following = next_alpha * (x / alpha + (down / next_alpha - sigma / alpha) * 0.5 * (slope + slope_ahead))
        x = following + put_back * _draw(noise) if put_back > 0 else following
        step.report(callback, x, x0)
    return x


SOLVERS: dict[SolverName, Solver] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}


def _time_like(x: Tensor, t: Tensor) -> Tensor:
    return t.to(x.dtype).to(x.device).expand(x.shape[0])  # rounded first: not every device has float64


def _clipped(x0: Tensor, clip: float | None) -> Tensor:
    return x0 if clip is None else x0.clamp(-clip, clip)


def _draw(noise: Callable[[], Tensor] | None) -> Tensor:
    if noise is None:
        raise ValueError("eta > 0 puts noise back: pass `noise`")
    return noise()
