"""What the values of a label map mean, and which classes an image has to obey."""

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
    """One class of the label maps: its value there, its name and its colour in pictures ("#RRGGBB").

    value: what stands for it in the files of the source, where that is not `index`. regions: nnU-Net's regions of which
    it is a part, from the largest to the smallest.
    """

    index: int
    name: str
    colour: str
    value: int | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSchema:
    """The classes of a data set: background 0, then 1..C-1 without gaps (C counts the background).

    ignore: the value in the files of the source of voxels whose class is unknown; None where there is none.
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
        """C, the number of classes with the background."""
        return len(self.classes) + 1

    @property
    def ignored(self) -> int | None:
        """What stands for an unknown voxel in label maps that were read, and in prepared ones; None where none can be.

        255 where the classes leave it free, 65535 where they do not.
        """
        if self.ignore is None:
            return None
        return 255 if self.count <= 255 else 65535

    @property
    def largest(self) -> int:
        """The largest value of its label maps, that of unknown voxels included."""
        return max(self.count - 1, self.ignored or 0)

    @property
    def values(self) -> tuple[int, ...]:
        """What stands for the classes 0..C-1 in the files of the source."""
        return (0, *(c.index if c.value is None else c.value for c in self.classes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes 1..C-1."""
        return tuple(c.name for c in self.classes)

    def index_of(self, name: str) -> int:
        """The value of the class called `name`. Raises SettingsError, with the nearest names, if there is none."""
        for c in self.classes:
            if c.name == name:
                return c.index
        raise SettingsError(f"there is no class '{name}'", hint=nearest(name, self.names))

    def states(
        self,
        *,
        given: Sequence[str] | None = None,
        free: Sequence[str] | None = None,
        absent: Sequence[str] | None = None,
    ) -> ClassStates:
        """Class states from names: all classes but `free` are given, or only those in `given`; and those in `absent`.

        Raises SettingsError for an unknown name, or one that is both free and given or absent.
        """
        for kind, names in (("given", given), ("absent", absent)):
            both = sorted(set(names or ()) & set(free or ()))
            if both:
                problem = f"class '{both[0]}' is both {kind} and free"
                raise SettingsError(problem, hint="Leave it in one of the two lists")
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
        """Given only where both are."""
        return ClassStates(tuple(a and b for a, b in zip(self.given, other.given, strict=True)))

    def given_names(self, schema: LabelSchema) -> list[str]:
        """The names of the given classes."""
        return [name for name, state in zip(schema.names, self.given, strict=True) if state]

    def free_names(self, schema: LabelSchema) -> list[str]:
        """The names of the free classes."""
        return [name for name, state in zip(schema.names, self.given, strict=True) if not state]
