"""The kinds of models, and the one function that loads a run of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from anatogen.baselines.retrieval import RETRIEVAL, NearestMap
from anatogen.errors import ModelError, SettingsError, nearest
from anatogen.generation.engine import Generator
from anatogen.model import DENOISER, ImageModel, read_run

KINDS: dict[str, Callable[..., ImageModel]] = {DENOISER: Generator.load, RETRIEVAL: NearestMap.load}
"""How a run of each kind is loaded: (run, device=...)."""


def load_model(run: str | Path, *, device: str = "auto") -> ImageModel:
    """The model in a run folder, of whatever kind. Raises ModelError where there is none or its kind is not known."""
    run = Path(run)
    kind = read_run(run).kind
    if kind not in KINDS:
        raise ModelError(
            f"holds a model of the kind '{kind}', this version knows {', '.join(KINDS)}",
            path=run,
            hint="Upgrade anatogen",
        )
    return KINDS[kind](run, device=device)


def require_kind(kind: str) -> None:
    """Raises SettingsError where there is no such kind."""
    if kind not in KINDS:
        raise SettingsError(f"there is no model '{kind}'", hint=nearest(kind, KINDS))


A = TypeVar("A")


def require_ability(model: ImageModel, ability: type[A], what: str, path: Path) -> A:
    """`model` as something that has `ability`.

    Raises SettingsError, saying that `what` is not applicable, where it lacks.
    """
    if not isinstance(model, ability):
        raise SettingsError(f"{what} is not applicable to this kind of model", path=path, hint="Leave it out")
    return model
