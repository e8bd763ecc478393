"""What the words of an edit mean for a map: amounts, directions, and the other maps to take structures from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from anatogen.conditioning.edit import LabelMap
from anatogen.errors import SettingsError, nearest
from anatogen.labels import LabelSchema

_TOWARDS = {
    "axial": (("anterior", "posterior"), ("right", "left")),
    "coronal": (("superior", "inferior"), ("right", "left")),
    "sagittal": (("superior", "inferior"), ("anterior", "posterior")),
    "volume": (("superior", "inferior"), ("anterior", "posterior"), ("right", "left")),
}
DIRECTIONS = ("left", "right", "anterior", "posterior", "superior", "inferior", "up", "down")


class Donors(Protocol):
    """Other label maps, to take structures from."""

    def draw(self, seed: int, classes: Sequence[int]) -> tuple[str, LabelMap] | None:
        """A map of another patient that shows one of `classes` (any map if there are none), and its name.

        None if none was found.
        """

    def named(self, name: str) -> LabelMap:
        """The map of that name. Raises SettingsError if there is none."""


@dataclass(frozen=True)
class Anatomy:
    """What the words of an edit mean for a map.

    Attributes:
        schema: The classes.
        dim: 2 or 3.
        axis: The slice direction or "volume"; unknown slices are taken as axial ones.
        spacing_mm: Pixel size along each axis of the array; None if it is unknown.
        donors: The maps to take structures from; None if there are none.
    """

    schema: LabelSchema
    dim: int
    axis: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    donors: Donors | None = None

    @property
    def towards(self) -> tuple[tuple[str, str], ...]:
        """For each axis of the array, the direction of lower and of higher indices."""
        return _TOWARDS["volume"] if self.dim == 3 else _TOWARDS[self.axis or "axial"]

    def direction(self, word: str) -> tuple[int, int]:
        """The axis of the array and the sign of a direction. Raises SettingsError if it is none of this map's."""
        ends = {name: (axis, sign) for axis, pair in enumerate(self.towards) for name, sign in zip(pair, (-1, 1))}
        if self.dim == 2:
            ends |= {"up": (0, -1), "down": (0, 1)}
        if word not in ends:
            what = "volumes" if self.dim == 3 else f"{self.axis or 'axial'} slices"
            raise SettingsError(f"there is no '{word}' in {what}", hint=nearest(word, ends))
        return ends[word]


@dataclass(frozen=True)
class Amount:
    """A number, or a range of which one is drawn. unit: "mm", "px", or "" for a share."""

    low: float
    high: float
    unit: str = ""

    @property
    def text(self) -> str:
        """As it is written in an edit."""
        return f"{self.low:.6g}{f'..{self.high:.6g}' if self.high > self.low else ''}{self.unit}"

    def drawn(self, random: np.random.Generator) -> Amount:
        """One number of the range, uniform, with the digits that its text shows."""
        if self.low == self.high:
            return self
        value = min(self.high, max(self.low, round(float(random.uniform(self.low, self.high)), 3 if self.unit else 4)))
        return replace(self, low=value, high=value)

    def spacing(self, anatomy: Anatomy) -> tuple[float, ...] | None:
        """The spacing in which this distance counts. Raises SettingsError for mm where the pixel size is unknown."""
        if self.unit == "px":
            return None
        if anatomy.spacing_mm is None:
            raise SettingsError(f"the pixel size is unknown, so {self.text} is no distance", hint="Use px for pixels")
        return anatomy.spacing_mm
