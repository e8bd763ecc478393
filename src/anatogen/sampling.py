"""Sampling: the settings of a walk from noise to image, and the walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self, get_args

import torch
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import Tensor

from anatogen.conditioning.encode import Condition
from anatogen.device import Precision
from anatogen.diffusion.guidance import EVERYWHERE, guided_from
from anatogen.diffusion.interpolate import NoisedStart, RealStart, from_noised, interpolate
from anatogen.diffusion.path import Grid, Path
from anatogen.diffusion.solvers import SOLVERS, Callback, Denoise, SolverName
from anatogen.errors import SettingsError, nearest
from anatogen.labels import LabelSchema
from anatogen.settings import Settings, explain, setting_names

Share = Annotated[float, Field(ge=0, le=1)]
_GRIDS_OF_OLD = {"bent": "polynomial", "even": "leading"}


class SamplingSettings(Settings):
    """The solver that the run's samples are made with unless told otherwise. clip: bound of |x0| at every step.

    grid: where along the path the steps lie; see `Path.times`. tile: see an image in overlapping tiles of that size,
    with the memory of one; by default only a model trained on crops does, in theirs.

    guidance: how much more closely than in the data the label map is followed; 1 is off. guidance_interval: where along
    the path, as shares of noise; see `anatogen.diffusion.guidance`. guidance_classes: the classes that are followed
    so, by default all that are given. attribute_guidance: the same as guidance for the attributes.
    """

    solver: SolverName = "dpmpp_2m"
    steps: int = Field(16, ge=1, le=1000)
    grid: Grid = "polynomial"
    eta: float = Field(1.0, ge=0, le=1)
    clip: float | None = Field(1.05, gt=0)
    precision: Precision = "float32"
    tile: tuple[Annotated[int, Field(ge=4)], ...] | None = None
    guidance: float = Field(1.0, ge=0, le=10)
    guidance_interval: tuple[Share, Share] = EVERYWHERE
    guidance_classes: tuple[str, ...] | None = Field(None, min_length=1)
    attribute_guidance: float = Field(1.0, ge=0, le=10)

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Documents of before there were tiles, and guidance, stay what they were."""
        values: dict[str, Any] = handler(self)
        off = [name for name in ("tile", "guidance_classes") if values.get(name) is None]
        off += [name for name in ("guidance", "attribute_guidance") if values.get(name) == 1]
        if self.guidance == 1:
            off.append("guidance_classes")
            off += ["guidance_interval"] if self.attribute_guidance == 1 else []
        return {name: value for name, value in values.items() if name not in off}

    @model_validator(mode="after")
    def _interval_with_an_inside(self) -> Self:
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval {low:g},{high:g} is empty: the first has to be the smaller one")
        return self

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

    @property
    def guidance_in_words(self) -> str:
        """For reports and cards: "guidance 2 at noise 0.2 to 0.75 by liver"; "" where it is off."""
        low, high = self.guidance_interval
        where = "" if self.guidance_interval == EVERYWHERE else f" at noise {low:g} to {high:g}"
        classes = "" if self.guidance_classes is None else f" by {', '.join(self.guidance_classes)}"
        parts = [f"guidance {self.guidance:g}{where}{classes}"] if self.guidance != 1 else []
        if self.attribute_guidance != 1:
            parts.append(f"attribute guidance {self.attribute_guidance:g}{where}")
        return ", ".join(parts)

    def check_guidance(self, schema: LabelSchema, *, takes_free: bool, takes_attributes: bool = False) -> None:
        """Raises SettingsError where a model cannot be guided so.

        Args:
            schema: Its classes.
            takes_free: Whether it was trained with classes left free.
            takes_attributes: Whether it takes attributes.
        """
        if self.attribute_guidance != 1 and not takes_attributes:
            raise SettingsError(
                "attribute guidance is not applicable to a model that takes no attributes",
                hint="Leave it out, or train with conditioning.attributes",
            )
        if self.guidance == 1:
            return
        if not takes_free:
            raise SettingsError(
                "guidance is not applicable to a model trained without mask ablation: it needs classes left free",
                hint="Leave it out, or train with --mask-ablation",
            )
        for name in self.guidance_classes or ():
            schema.index_of(name)


def denoiser_under(
    under: Callable[[Condition], Denoise],
    condition: Condition,
    path: Path,
    settings: SamplingSettings,
    schema: LabelSchema,
) -> Denoise:
    """The denoiser `under` a condition, guided as `settings` say: away from the same with the guided classes free, and
    with the attributes unknown.

    Raises SettingsError for a guided class that is not in `schema`.
    """
    pushes = []
    if settings.guidance != 1:
        names = settings.guidance_classes
        less = condition.leaving_free(None if names is None else [schema.index_of(name) for name in names])
        pushes.append((under(less), settings.guidance))
    if settings.attribute_guidance != 1 and condition.vector is not None:
        pushes.append((under(condition.without_attributes()), settings.attribute_guidance))
    return guided_from(under(condition), pushes, path, settings.guidance_interval)


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
