"""Sampling: the settings of a walk from noise to image, and the walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_args

import torch
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, field_validator, model_serializer
from torch import Tensor

from anatogen.device import Precision
from anatogen.diffusion.interpolate import NoisedStart, RealStart, from_noised, interpolate
from anatogen.diffusion.path import Grid, Path
from anatogen.diffusion.solvers import SOLVERS, Callback, Denoise, SolverName
from anatogen.errors import SettingsError, nearest
from anatogen.settings import Settings, explain, setting_names

_GRIDS_OF_OLD = {"bent": "polynomial", "even": "leading"}


class SamplingSettings(Settings):
    """The solver that the run's samples are made with unless told otherwise. clip: bound of |x0| at every step.

    grid: where along the path the steps lie; see `Path.times`. tile: see an image in overlapping tiles of that size,
    with the memory of one; by default only a model trained on crops does, in theirs.
    """

    solver: SolverName = "dpmpp_2m"
    steps: int = Field(16, ge=1, le=1000)
    grid: Grid = "polynomial"
    eta: float = Field(1.0, ge=0, le=1)
    clip: float | None = Field(1.05, gt=0)
    precision: Precision = "float32"
    tile: tuple[Annotated[int, Field(ge=4)], ...] | None = None

    @model_serializer(mode="wrap")
    def _without_tile(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Documents of before there were tiles stay what they were."""
        values: dict[str, Any] = handler(self)
        if values.get("tile") is None:
            values.pop("tile", None)
        return values

    @field_validator("grid", mode="before")
    @classmethod
    def _grid_of_old(cls, value: object) -> object:
        """The names that version 0.1 wrote are read as those of today."""
        return _GRIDS_OF_OLD.get(value, value) if isinstance(value, str) else value

    def changed(self, **changes: Any) -> SamplingSettings:
        """These settings with `changes`. Raises SettingsError for an unknown solver or a value out of range."""
        solvers = get_args(SolverName)
        if "solver" in changes and changes["solver"] not in solvers:
            raise SettingsError(f"there is no solver '{changes['solver']}'", hint=nearest(changes["solver"], solvers))
        try:
            return SamplingSettings.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            raise explain(error, setting_names(SamplingSettings)) from error


@torch.no_grad()
def sample(
    denoise: Denoise,
    path: Path,
    settings: SamplingSettings,
    noise: Callable[[], Tensor],
    *,
    start: RealStart | NoisedStart | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Images (B, C, *spatial), walked along `path` from noise with `denoise`.

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0, with its condition bound.
        noise: Draws standard normal noise (B, C, *spatial); the first draw is where the walk starts.
        start: Real images to be similar to, or noised ones to start from; None starts from noise alone.
        callback: Called after each step; see `anatogen.diffusion.solvers`.
    """
    times = path.times(settings.steps, settings.grid)
    solver = SOLVERS[settings.solver]

    def walk(x: Tensor, along: Tensor) -> Tensor:
        return solver(denoise, x, along, path, eta=settings.eta, noise=noise, clip=settings.clip, callback=callback)

    first = noise()
    if isinstance(start, NoisedStart):
        return from_noised(walk, first, times, path, start)
    x = first * float(path.sigma(times[0]))
    return walk(x, times) if start is None else interpolate(walk, x, times, path, start)
