"""The state that a training carries from step to step; `Checkpoints` saves and restores each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average (EMA) of a module's weights, in float32.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that a short training is averaged as well.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the average with the weights of `module`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        targets = list(module.state_dict().values())
        torch._foreach_lerp_(list(self.weights.values()), targets, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The weights and the number of updates."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`, in place."""
        self.updates = state["updates"]
        for name, tensor in self.weights.items():
            tensor.copy_(state["weights"][name])


class OptimizerState:
    """The state of an optimizer, restored in the memory format of its parameters.

    torch's `load_state_dict` keeps the memory format of the file; a fused optimizer would then pair a channels-last
    weight with the moments of other weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Moments and step counts by parameter, and the settings of each group."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self.optimizer.load_state_dict(dict(state))
        for parameter, moments in self.optimizer.state.items():
            for name, tensor in moments.items():
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape and tensor.ndim:
                    moments[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


@dataclass
class TrainingState:
    """The progress of a training.

    Attributes:
        step: Completed steps.
        images: Images seen.
        seconds: Training time, without lost steps and without the pause before a resume.
        attempt: How often training returned to a checkpoint; each attempt has its own random numbers.
        rate_scale: Factor of the learning rate; halved by each return.
        skipped: Steps skipped because of a non-finite gradient.
        skipped_in_a_row: The number of latest steps in a row that were skipped.
        finished: The training is complete, or a hook has ended it.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    attempt: int = 0
    rate_scale: float = 1.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    finished: bool = False

    def state_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        for name, value in state.items():
            setattr(self, name, value)
