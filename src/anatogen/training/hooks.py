"""Hooks that run at intervals during training: previews, Dice on fixed label maps, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from anatogen.errors import SettingsError


@dataclass(frozen=True)
class Moment:
    """What a hook receives.

    Attributes:
        step: Completed steps.
        share: Completed share of the training in [0, 1].
        model: Builds a model with the averaged weights (`Task.model`).
        memory: The hook's own state, to read and change; saved in checkpoints. Strings, numbers, tensors, lists and
            dicts.
    """

    step: int
    share: float
    model: Callable[[], Any]
    memory: dict[str, Any]


Answer = Mapping[str, float] | Literal["stop", "finish"] | None


@dataclass
class Hook:
    """Calls `call` after every `every` steps.

    `call` returns metrics, which go to metrics.jsonl; "finish", which begins the decay of the learning rate, after
    which the training ends; "stop", which ends it as if it were complete; or None. It must not draw from global random
    state, so that the training is the same with and without it.

    Attributes:
        name: Unique in a training; names the memory in checkpoints.
        every: Steps between two calls, at least 1.
        call: The function.
        memory: State of `call`, for instance the best score so far.
        last: Also call it after the last step, whatever `every` is.
        remembered: Whether checkpoints keep the memory, and a resume needs the hook again. A hook that only looks does
            not.
    """

    name: str
    every: int
    call: Callable[[Moment], Answer]
    memory: dict[str, Any] = field(default_factory=dict)
    remembered: bool = True
    last: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise SettingsError(f"hook '{self.name}' needs every >= 1, got {self.every}")

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return self.memory

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self.memory.clear()
        self.memory.update(state)
