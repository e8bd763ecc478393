"""Regions of an image in which classes are left free, given everywhere else: a box, a brush mask, or what is near a
structure.

A region is described by a text, "box 10,12..40,50" or "near bladder 8mm" (see `parse_region`), or by a mask that
somebody drew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import SettingsError

FORMS = '"box 10,12..40,50" (first and last pixel along each axis) or "near CLASS 8mm" (or 8px)'


class Region(Protocol):
    """A part of each label map.

    Attributes:
        text: Describes it, the same text the same region.
    """

    @property
    def text(self) -> str:
        """See above."""
        ...

    def inside(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where the region is in a label map (*spatial)."""
        ...


@dataclass(frozen=True)
class Box:
    """A box, the same in every map.

    Attributes:
        first, last: Pixels along each axis, both inside.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def text(self) -> str:
        """As it is parsed."""
        return f"box {','.join(map(str, self.first))}..{','.join(map(str, self.last))}"

    def inside(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Region`."""
        found = np.zeros(labels.shape, dtype=bool)
        found[tuple(slice(a, b + 1) for a, b in zip(self.first, self.last, strict=True))] = True
        return found


@dataclass(frozen=True)
class Near:
    """All that lies within a distance of a class, the class itself included; nothing where a map lacks it.

    Attributes:
        name, index: Of the class.
        distance: In mm, or in pixels where spacing is None.
        spacing_mm: Of the pixels.
    """

    name: str
    index: int
    distance: float
    spacing_mm: tuple[float, ...] | None = None

    @property
    def text(self) -> str:
        """As it is parsed."""
        return f"near {self.name} {self.distance:g}{'px' if self.spacing_mm is None else 'mm'}"

    def inside(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Region`."""
        here = labels == self.index
        if not here.any():
            return here
        return np.asarray(ndimage.distance_transform_edt(~here, sampling=self.spacing_mm) <= self.distance)


@dataclass(frozen=True, eq=False)
class Brush:
    """A mask that somebody drew, the same for every map.

    Attributes:
        text: Its file and a digest of it.
        mask: bool (*spatial).
    """

    text: str
    mask: NDArray[np.bool_]

    def inside(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Region`. Raises SettingsError where the map has another size."""
        if labels.shape != self.mask.shape:
            shapes = (" x ".join(map(str, each)) for each in (self.mask.shape, labels.shape))
            raise SettingsError(
                "the mask has {} pixels, the label maps have {}".format(*shapes), hint="Draw it on a label map"
            )
        return self.mask


_NUMBERS = r"(\d+(?:,\d+)*)"
_BOX = re.compile(rf"box\s+{_NUMBERS}\s*\.\.\s*{_NUMBERS}")
_NEAR = re.compile(r"near\s+(\S+)\s+(\d+(?:\.\d+)?)\s*(mm|px)")


def parse_region(
    text: str,
    size: Sequence[int],
    index_of: Callable[[str], int],
    spacing_mm: tuple[float, ...] | None = None,
) -> Region:
    """The region that a text describes.

    Args:
        text: "box 10,12..40,50" or "near bladder 8mm".
        size: Of the label maps.
        index_of: The index of a class by its name; raises SettingsError for an unknown one.
        spacing_mm: Of the pixels; None where unknown.

    Raises:
        SettingsError: It is neither, does not fit the size, or is in mm where the pixels' size is not known.
    """
    text = text.strip()
    if box := _BOX.fullmatch(text):
        first, last = (tuple(map(int, part.split(","))) for part in box.groups())
        if len(first) != len(size) or len(last) != len(size):
            raise SettingsError(
                f"the box '{text}' needs {len(size)} numbers at each end, one for each axis",
                hint=f"The whole image is box {','.join('0' * len(size))}..{','.join(str(n - 1) for n in size)}",
            )
        if any(a > b or b >= side for a, b, side in zip(first, last, size, strict=True)):
            shown = " x ".join(map(str, size))
            raise SettingsError(f"the box '{text}' is empty or reaches beyond {shown}", hint=f"Write it as {FORMS}")
        return Box(first, last)
    if near := _NEAR.fullmatch(text):
        name, distance, unit = near.groups()
        if unit == "mm" and spacing_mm is None:
            raise SettingsError(
                f"the distance of '{text}' is in mm, and the model's pixel size is not known", hint="Give it in px"
            )
        return Near(name, index_of(name), float(distance), spacing_mm if unit == "mm" else None)
    raise SettingsError(f"'{text}' describes no region", hint=f"Write it as {FORMS}, or name a mask's file")
