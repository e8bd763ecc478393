"""Medical images that follow a given anatomy: `from anatogen import PreparedDataset, train, Generator, evaluate`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Generator", "PreparedDataset", "evaluate", "train"]

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.engine import Generator
    from anatogen.training.train import train
    from anatogen.workflows.public import evaluate

_HOMES = {
    "PreparedDataset": "anatogen.data.store",
    "evaluate": "anatogen.workflows.public",
    "Generator": "anatogen.generation.engine",
    "train": "anatogen.training.train",
}


def __getattr__(name: str) -> Any:
    """Heavy modules are imported when they are first used, so that `anatogen --help` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anatogen' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
