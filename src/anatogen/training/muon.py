"""Muon: steps of hidden weights that are orthogonal matrices; the other parameters by AdamW.

`torch.optim.Muon` takes matrices only, and computes in bfloat16, which few CPUs are quick at; here the kernel of a
convolution is a matrix with a row for each output channel, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_RMS = 0.4
"""Root mean square of an update with a rate of 1: twice that of Liu et al. 2025. The two were not compared."""


_WIDE = 3
"""With so many times as many columns as rows, the iteration is cheaper on the matrix of products of rows."""


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrices (..., m, n) of which all singular values are 1, to about 30 %, by a Newton-Schulz iteration.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": their quintic polynomial pushes all
    singular values to between 0.7 and 1.2. A zero matrix stays zero.
    """
    x = matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    x = (_iterated_by_rows if x.shape[-1] >= _WIDE * x.shape[-2] else _iterated)(x, iterations)
    return x.mT if tall else x


def _iterated(x: Tensor, iterations: int) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x


def _iterated_by_rows(x: Tensor, iterations: int) -> Tensor:
    """The same to rounding: each iterate is p(S) x, with a polynomial p of the first S = x x^T (m, m). Kernels of
    convolutions in 3D, which have 27 times as many columns as rows, take a quarter of the time.
    """
    a, b, c = _COEFFICIENTS
    square = x @ x.mT
    identity = torch.eye(x.shape[-2], device=x.device)
    product = identity
    for left in reversed(range(iterations)):
        polynomial = a * identity + b * square + c * (square @ square)
        product = polynomial @ product
        if left:
            square = polynomial @ square @ polynomial
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `matrices=True`, AdamW for the others.

    The momentum of a matrix (m, n) is made orthogonal and scaled by 0.4 sqrt(max(m, n)), so that the updates of
    all parameters have a size that one rate fits (Liu et al. 2025, "Muon is Scalable for LLM Training", Eq. 4).

    Args:
        groups: Parameters with their options; tensors of more than two axes are matrices of their first axis.
        lr: The rate of both.
        momentum: Of the matrices (Nesterov's).
        betas: Of AdamW.
        weight_decay: Decoupled, of both.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "matrices": False}
        super().__init__(groups, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in moving:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if not group["matrices"]:
                for parameter in moving:
                    self._adam_step(parameter, group)
                continue
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in moving:
                by_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
            for alike in by_shape.values():
                self._orthogonal_step(alike, group)

    def _orthogonal_step(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        """Of matrices of one shape, together: a GPU then waits for few kernels."""
        ahead = torch.stack([self._ahead(parameter, group["momentum"]).flatten(1) for parameter in alike])
        scale = -group["lr"] * _RMS * math.sqrt(max(ahead.shape[1:]))
        for parameter, update in zip(alike, orthogonal(ahead), strict=True):
            parameter.add_(update.reshape(parameter.shape).to(parameter.dtype), alpha=scale)

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """The gradient after Nesterov's momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)

    def _adam_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        steps, (one, two) = float(state["step"]), group["betas"]
        state["first"].lerp_(gradient, 1 - one)
        state["second"].mul_(two).addcmul_(gradient, gradient, value=1 - two)
        scale = (state["second"] / (1 - two**steps)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"] / (1 - one**steps), scale, value=-group["lr"])
