"""What is done now and then while a model trains: previews, a Dice on fixed maps, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from anatogen.errors import SettingsError


@dataclass(frozen=True)
class Moment:
    """What a hook is told.

    Attributes:
        step: Steps done.
        share: Share of the training that is done, in [0, 1].
        model: Makes what generates images, with the averaged weights (`Task.model`).
        memory: The hook's own, to read and to change; checkpoints keep it. Strings, numbers, tensors, lists and dicts.
    """

    step: int
    share: float
    model: Callable[[], Any]
    memory: dict[str, Any]


Answer = Mapping[str, float] | Literal["stop"] | None


@dataclass
class Hook:
    """Calls `call` after every `every` steps.

    `call` answers with metrics, which go to metrics.jsonl, with "stop", which ends the training as if it were done, or with
    nothing. It takes no random numbers from global state: then the training is the same with and without it.

    Attributes:
        name: Of its own in a training; checkpoints keep the memory under it.
        memory: What `call` remembers: the best score so far, patience.
    """

    name: str
    every: int
    call: Callable[[Moment], Answer]
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SettingsError(f"hook '{self.name}' must run every 1 or more steps, got {self.every}")

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        return self.memory

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state` over."""
        self.memory.clear()
        self.memory.update(state)
