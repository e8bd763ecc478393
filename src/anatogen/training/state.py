"""What a training carries from step to step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average of a module's weights (EMA), in float32.

    decay rises with the steps, min(decay, (1 + n) / (10 + n)), so that a short training is averaged too.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the weights of `module`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        targets = list(module.state_dict().values())
        torch._foreach_lerp_(list(self.weights.values()), targets, 1 - decay)


class TrainingState:
    """Network, moving average, optimizer and step, in one place: whatever is resumed later is named here."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, ema: MovingAverage) -> None:
        self.module, self.optimizer, self.ema = module, optimizer, ema
        self.step = 0
        self.seconds = 0.0

    def summary(self, batch_size: int) -> dict[str, Any]:
        """How far the training is."""
        return {"steps": self.step, "images": self.step * batch_size, "seconds": round(self.seconds, 1)}
