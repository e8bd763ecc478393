"""Power-function averages of the weights, whose length can be chosen after the training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2, arXiv 2312.02696),
section 3. A training tracks two averages and keeps snapshots of both; a linear combination of the snapshots then
approximates the average of any other length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TRACKED = (0.05, 0.10)  # the lengths of the paper
LONGEST = 12**-0.5  # the mean of all steps has this length


def exponent_of(length: float) -> float:
    """The exponent gamma of the profile tau^gamma whose standard deviation is `length` of the training (Eq. 3).

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) is a cubic equation; its largest root is the one above -1.
    """
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class Profile(NamedTuple):
    """How much each step counts in an average: p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) for 0 < tau <= t (Eq. 1).

    Attributes:
        step: t, the last step that counts.
        exponent: gamma.
    """

    step: int
    exponent: float


class PowerAverages:
    """Averages of a module's weights over all steps so far, one for each of `lengths`, in float32.

    Update t is average = beta average + (1 - beta) weights with beta = (1 - 1 / t)^(gamma + 1) (Eq. 2). This is exactly
    the integral of the profile over weights that are constant within a step.
    """

    def __init__(self, module: nn.Module, lengths: Sequence[float] = TRACKED) -> None:
        self.updates = 0
        self._exponents = [exponent_of(length) for length in lengths]
        self.weights: dict[float, dict[str, Tensor]] = {
            length: {name: value.detach().clone() for name, value in module.state_dict().items()} for length in lengths
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the averages with the weights of `module`."""
        self.updates += 1
        targets = list(module.state_dict().values())
        for exponent, weights in zip(self._exponents, self.weights.values(), strict=True):
            beta = (1 - 1 / self.updates) ** (exponent + 1)
            torch._foreach_lerp_(list(weights.values()), targets, 1 - beta)

    def state_dict(self) -> dict[str, Any]:
        """The weights and the number of updates."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`, in place."""
        self.updates = state["updates"]
        for length, weights in self.weights.items():
            for name, tensor in weights.items():
                tensor.copy_(state["weights"][length][name])


def combination(profiles: Sequence[Profile], wanted: Profile) -> tuple[NDArray[np.float64], float]:
    """The factors whose sum of `profiles` is nearest to `wanted`, by least squares (section 3.2 and appendix C).

    The factors add up to 1, which the paper does not demand: its networks do not depend on the scale of weights.

    Args:
        profiles: Of the snapshots, no two alike.
        wanted: Of the average that is to be approximated.

    Returns:
        A factor for each profile, and the L2 distance of their sum from `wanted`, relative to the norm of `wanted`.
    """
    count = len(profiles)
    system = np.ones((count + 1, count + 1))  # the last row and column: a Lagrange multiplier
    system[-1, -1] = 0
    system[:count, :count] = products = _products(profiles, profiles)
    right = np.ones(count + 1)
    right[:count] = towards = _products(profiles, [wanted])[:, 0]
    factors = np.asarray(np.linalg.solve(system, right)[:count], dtype=np.float64)
    norm = float(_products([wanted], [wanted])[0, 0])
    squared = float(factors @ products @ factors - 2 * factors @ towards) + norm
    return factors, math.sqrt(max(squared, 0.0) / norm)


def _products(rows: Sequence[Profile], columns: Sequence[Profile]) -> NDArray[np.float64]:
    """The integral of p(tau) q(tau) for each p of `rows` and q of `columns`.

    With t_p <= t_q it is (gamma_p + 1) (gamma_q + 1) / (gamma_p + gamma_q + 1) (t_p / t_q)^gamma_q / t_q.
    """
    (t, gamma), (u, delta) = (np.array(profiles, dtype=np.float64).T for profiles in (rows, columns))
    t, gamma = t[:, None], gamma[:, None]
    late, of_late = np.maximum(t, u), np.where(t > u, gamma, delta)
    return (gamma + 1) * (delta + 1) / (gamma + delta + 1) * (np.minimum(t, u) / late) ** of_late / late
