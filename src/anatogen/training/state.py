"""What a training carries from step to step; each part gives its state to `Checkpoints` and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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

    def state_dict(self) -> dict[str, Any]:
        """Weights and the count of updates."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state` over, in place."""
        self.updates = state["updates"]
        for name, tensor in self.weights.items():
            tensor.copy_(state["weights"][name])


class OptimizerState:
    """The state of an optimizer, restored in the memory format of its parameters.

    torch's own `load_state_dict` keeps the format of the file, and a fused optimizer then pairs a weight that lies
    channels-last with the moments of other weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Moments and counts of steps by the parameter's number, and the settings of each group."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state` over."""
        self.optimizer.load_state_dict(dict(state))
        for parameter, moments in self.optimizer.state.items():
            for name, tensor in moments.items():
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape and tensor.ndim:
                    moments[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        step: Steps done.
        images: Images seen.
        seconds: Time trained, without what was lost and without waiting between a stop and its resume.
        attempt: How often the training went back to a checkpoint; every attempt has draws of its own.
        rate_scale: What the learning rate is multiplied with; halved by every going back.
        skipped: Steps that were not taken, because a gradient was not finite.
        skipped_in_a_row: Of them the last ones, without a step between them that was taken.
        finished: The training is done, or a hook has ended it.
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
        """All of it."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state` over."""
        for name, value in state.items():
            setattr(self, name, value)
