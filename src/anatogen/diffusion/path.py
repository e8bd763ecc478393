"""Paths from image to noise: x_t = alpha(t) x0 + sigma(t) eps, with t in [0, 1], 0 the image and 1 the noise."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

PathName = Literal["ddpm", "flow"]
Grid = Literal["polynomial", "leading"]

_EXPONENT = 1.5


def match_dims(values: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one, so that `values` (B,) broadcasts against `like` (B, C, *spatial)."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    """float64 CPU `values` in the dtype and on the device of `tensor`, cast before they are moved."""
    return values.to(tensor.dtype).to(tensor.device)


class Path(Protocol):
    """alpha(t) and sigma(t) for a float tensor t of any shape, in [0, 1]."""

    name: PathName

    def alpha(self, t: Tensor) -> Tensor:
        """The coefficient of the image in x_t."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """The coefficient of the noise in x_t."""
        ...

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, s) of the v-target, v = a x0 + s eps."""
        ...

    def time_of(self, ratio: Tensor) -> Tensor:
        """The t at which sigma(t) / alpha(t) equals `ratio`."""
        ...

    def times(self, steps: int, grid: Grid = "polynomial") -> Tensor:
        """The time grid of a solver.

        Args:
            steps: Number of steps.
            grid: `polynomial`: steps get shorter towards the image, where texture is formed: (n / steps)^1.5 on the
                flow path, and the times of equal noise on other paths. A last step that starts from much noise would
                leave an image as smooth as the mean of all images compatible with the noise. `leading`: equal steps of
                t.

        Returns:
            float64 (steps + 1,), falling from (about) 1 to 0.
        """
        ...


class FlowPath:
    """The straight path: alpha = 1 - t, sigma = t (Lipman et al. 2023, "Flow Matching"; Liu et al. 2023)."""

    name: PathName = "flow"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def time_of(self, ratio: Tensor) -> Tensor:
        return ratio / (1 + ratio)

    def times(self, steps: int, grid: Grid = "polynomial") -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** (_EXPONENT if grid == "polynomial" else 1)


class DDPMPath:
    """The variance-preserving path of Ho et al. 2020: `count` steps with beta linear from 1e-4 to 0.02.

    Step k = 0..count-1 of the paper (and of diffusers) is at t = (k + 1) / count; t = 0 is the clean image. Between
    steps log(alpha) is interpolated linearly, in float64 on the CPU.
    """

    name: PathName = "ddpm"

    def __init__(self, count: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        self.count = count
        beta = torch.linspace(beta_start, beta_end, count, dtype=torch.float32).double()
        log_alpha = 0.5 * torch.cumsum(torch.log1p(-beta), dim=0)
        self._log_alpha = torch.cat([torch.zeros(1, dtype=torch.float64), log_alpha])  # (count + 1,)

    def _log_alpha_at(self, t: Tensor) -> Tensor:
        """float64 on the CPU, on whatever device `t` is: Apple GPUs have no float64."""
        position = t.cpu().double().clamp(0, 1) * self.count
        below = position.floor().long().clamp(max=self.count - 1)
        return torch.lerp(self._log_alpha[below], self._log_alpha[below + 1], position - below)

    def alpha(self, t: Tensor) -> Tensor:
        return _like(t, self._log_alpha_at(t).exp())

    def sigma(self, t: Tensor) -> Tensor:
        return _like(t, (-torch.expm1(2 * self._log_alpha_at(t))).sqrt())

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """v = alpha eps - sigma x0 (Salimans and Ho 2022, "Progressive Distillation", Appendix D)."""
        return -self.sigma(t), self.alpha(t)

    def time_of(self, ratio: Tensor) -> Tensor:
        table, log_alpha = self._log_alpha, -0.5 * torch.log1p(ratio.cpu().double() ** 2)
        below = (torch.searchsorted(-table, -log_alpha) - 1).clamp(0, self.count - 1)
        part = (log_alpha - table[below]) / (table[below + 1] - table[below])
        return _like(ratio, (below + part.clamp(0, 1)) / self.count)

    def times(self, steps: int, grid: Grid = "polynomial") -> Tensor:
        """As `Path.times`; leading: k = (steps - 1) r, ..., r, 0 with r = count / steps, each k rounded to an integer.

        Where `steps` divides `count` this is diffusers' "leading" spacing, the paper's. Elsewhere diffusers' r = count
        // steps starts in the middle of the noise (at 400 of 1000 for 400 steps); with r not rounded the grid always
        starts within one stride of pure noise.
        """
        if grid == "polynomial":
            most = torch.exp(-self._log_alpha[-1])  # noise-to-image ratio, at t = 1
            straight = FlowPath().times(steps) * most / (1 + most)
            return self.time_of(straight / (1 - straight))
        k = (torch.arange(steps - 1, -1, -1, dtype=torch.float64) * self.count / steps).round()
        return torch.cat([(k + 1) / self.count, torch.zeros(1, dtype=torch.float64)])


PATHS: dict[PathName, type[FlowPath] | type[DDPMPath]] = {"flow": FlowPath, "ddpm": DDPMPath}


def add_noise(path: Path, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """x_t = alpha(t) x0 + sigma(t) eps for x0, eps (B, C, *spatial) and t (B,)."""
    return match_dims(path.alpha(t), x0) * x0 + match_dims(path.sigma(t), x0) * eps
