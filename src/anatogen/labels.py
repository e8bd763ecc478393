"""The meaning of label values, and which classes an image has to follow."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anatogen.errors import SettingsError, nearest

# Okabe and Ito's colours for the first classes (distinct for the colour-blind), then golden-angle hues.
_FIRST_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#0072B2")


def default_colour(index: int) -> str:
    """The hexadecimal colour of class `index` (1, 2, ...)."""
    if index <= len(_FIRST_COLOURS):
        return _FIRST_COLOURS[index - 1]
    red, green, blue = colorsys.hsv_to_rgb((index * 0.618034) % 1.0, 0.65, 0.9)
    return f"#{int(red * 255):02X}{int(green * 255):02X}{int(blue * 255):02X}"


@dataclass(frozen=True)
class LabelClass:
    """One class of the label maps: its index, its name and its colour in figures ("#RRGGBB").

    Attributes:
        value: The label value in the source files, if it differs from `index`.
        regions: The nnU-Net regions that contain this class, from the largest to the smallest.
    """

    index: int
    name: str
    colour: str
    value: int | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSchema:
    """The classes of a data set: background 0, then 1..C-1 without gaps (C counts the background).

    Attributes:
        ignore: The label value of voxels of unknown class in the source files; None if there is none.
    """

    classes: tuple[LabelClass, ...]
    ignore: int | None = None

    def __post_init__(self) -> None:
        if [c.index for c in self.classes] != list(range(1, len(self.classes) + 1)):
            raise SettingsError("classes must be numbered 1, 2, ... without gaps")
        if len(set(self.names)) != len(self.classes):
            raise SettingsError("two classes have the same name", hint="Rename one of them")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelSchema:
        """Classes 1, 2, ... in the order of `names` (without the background), in the default colours."""
        return cls(tuple(LabelClass(i, name, default_colour(i)) for i, name in enumerate(names, start=1)))

    @property
    def count(self) -> int:
        """C, the number of classes including the background."""
        return len(self.classes) + 1

    @property
    def ignored(self) -> int | None:
        """The value of unknown voxels in loaded and prepared label maps: 255 (65535 if 255 is a class), or None."""
        if self.ignore is None:
            return None
        return 255 if self.count <= 255 else 65535

    @property
    def largest(self) -> int:
        """The largest value in the label maps, including that of unknown voxels."""
        return max(self.count - 1, self.ignored or 0)

    @property
    def values(self) -> tuple[int, ...]:
        """The label values of the classes 0..C-1 in the source files."""
        return (0, *(c.index if c.value is None else c.value for c in self.classes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes 1..C-1."""
        return tuple(c.name for c in self.classes)

    def index_of(self, name: str) -> int:
        """The index of the class called `name`.

        Raises:
            SettingsError: No class has this name; the hint suggests the nearest names.
        """
        for c in self.classes:
            if c.name == name:
                return c.index
        raise SettingsError(f"unknown class '{name}'", hint=nearest(name, self.names))

    def states(
        self,
        *,
        given: Sequence[str] | None = None,
        free: Sequence[str] | None = None,
        absent: Sequence[str] | None = None,
    ) -> ClassStates:
        """Class states from class names.

        Args:
            given: The classes to be given; the others are free. By default all classes but `free` are given.
            free: The classes to be left free.
            absent: Classes that are given in any case.

        Raises:
            SettingsError: A name is unknown, or a class is both free and given or absent.
        """
        for kind, names in (("given", given), ("absent", absent)):
            both = sorted(set(names or ()) & set(free or ()))
            if both:
                problem = f"class '{both[0]}' is both {kind} and free"
                raise SettingsError(problem, hint="Keep it in one of the two lists")
        bound = [*(self.names if given is None else given), *(absent or ())]
        given_indices = {self.index_of(name) for name in bound}
        free_indices = {self.index_of(name) for name in free or ()}
        return ClassStates(tuple(c.index in given_indices - free_indices for c in self.classes))


@dataclass(frozen=True)
class ClassStates:
    """For each class 1..C-1: True if **given** (the map is obeyed, absence included), False if **free**."""

    given: tuple[bool, ...]

    @classmethod
    def all_given(cls, schema: LabelSchema) -> ClassStates:
        """Every class of `schema` given."""
        return cls((True,) * len(schema.classes))

    def and_also(self, other: ClassStates) -> ClassStates:
        """The classes that are given in both."""
        return ClassStates(tuple(a and b for a, b in zip(self.given, other.given, strict=True)))

    def given_names(self, schema: LabelSchema) -> list[str]:
        """The names of the given classes."""
        return [name for name, state in zip(schema.names, self.given, strict=True) if state]

    def free_names(self, schema: LabelSchema) -> list[str]:
        """The names of the free classes."""
        return [name for name, state in zip(schema.names, self.given, strict=True) if not state]
