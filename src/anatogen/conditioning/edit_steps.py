"""The steps of an edit, as users state them: what each draws from its ranges, and what it does to a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from anatogen.conditioning import deformation, edit
from anatogen.conditioning.edit import LabelMap
from anatogen.conditioning.edit_words import Amount, Anatomy
from anatogen.errors import SettingsError, nearest

EVERYTHING, BACKGROUND, CLASSES = "all", "background", "classes"


@dataclass(frozen=True)
class Step:
    """One step of an edit.

    Attributes:
        WORD: The verb.
        needed: The classes of which the map has to show one; the step is passed over otherwise.
    """

    WORD: ClassVar[str] = ""

    @property
    def needed(self) -> tuple[str, ...]:
        """See the class."""
        return ()

    @property
    def text(self) -> str:
        """As it is written in an edit."""
        return self.WORD

    def check(self, anatomy: Anatomy) -> None:
        """Raises SettingsError where a word means nothing for such maps."""

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step | None:  # noqa: ARG002
        """The same step without ranges; None if it cannot be done."""
        return self

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """The map after this step, which was drawn."""
        raise NotImplementedError


@dataclass(frozen=True)
class _OfClasses(Step):
    classes: tuple[str, ...]

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        self.indices(anatomy)

    def indices(self, anatomy: Anatomy) -> list[int]:
        """The classes by number. Raises SettingsError for an unknown one."""
        return [anatomy.schema.index_of(name) for name in self.classes]

    @property
    def named(self) -> str:
        """The names of the classes, as they are written in an edit."""
        return ", ".join(map(quoted, self.classes))


@dataclass(frozen=True)
class Remove(_OfClasses):
    """Classes are removed (see `edit.erase`)."""

    WORD: ClassVar[str] = "remove"

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Step`."""
        return self.classes

    @property
    def text(self) -> str:
        """See `Step`."""
        return f"{self.WORD} {self.named}"

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        return edit.erase(labels, self.indices(anatomy))


@dataclass(frozen=True)
class Grow(_OfClasses):
    """A class grows (see `edit.grow`). over: "all", "background", "classes" (not the background), or class names."""

    WORD: ClassVar[str] = "grow"
    amount: Amount
    over: tuple[str, ...] = (EVERYTHING,)

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Step`."""
        return self.classes

    @property
    def text(self) -> str:
        """See `Step`."""
        over = "" if self.over == (EVERYTHING,) else f" over {', '.join(map(quoted, self.over))}"
        return f"{self.WORD} {self.named} {self.amount.text}{over}"

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        super().check(anatomy)
        self.amount.spacing(anatomy)
        self._over(anatomy)

    def _over(self, anatomy: Anatomy) -> list[int] | None:
        if self.over == (EVERYTHING,):
            return None
        found: list[int] = []
        for name in self.over:
            if name == CLASSES:
                found += range(1, anatomy.schema.count)
            else:
                known = (*anatomy.schema.names, EVERYTHING, BACKGROUND, CLASSES)
                if name not in known:
                    raise SettingsError(f"unknown class '{name}' after over", hint=nearest(name, known))
                found.append(0 if name == BACKGROUND else anatomy.schema.index_of(name))
        return found

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step:  # noqa: ARG002
        """See `Step`."""
        return replace(self, amount=self.amount.drawn(random))

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        over, spacing = self._over(anatomy), self.amount.spacing(anatomy)
        for index in self.indices(anatomy):
            labels = edit.grow(labels, index, self.amount.low, spacing_mm=spacing, over=over)
        return labels


@dataclass(frozen=True)
class Shrink(_OfClasses):
    """A class shrinks (see `edit.shrink`)."""

    WORD: ClassVar[str] = "shrink"
    amount: Amount

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Step`."""
        return self.classes

    @property
    def text(self) -> str:
        """See `Step`."""
        return f"{self.WORD} {self.named} {self.amount.text}"

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        super().check(anatomy)
        self.amount.spacing(anatomy)

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step:  # noqa: ARG002
        """See `Step`."""
        return replace(self, amount=self.amount.drawn(random))

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        spacing = self.amount.spacing(anatomy)
        for index in self.indices(anatomy):
            labels = edit.shrink(labels, labels == index, self.amount.low, spacing_mm=spacing)
        return labels


@dataclass(frozen=True)
class Move(_OfClasses):
    """Classes move together (see `edit.move`). by: distances with directions; "" is any direction, drawn."""

    WORD: ClassVar[str] = "move"
    by: tuple[tuple[Amount, str], ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Step`."""
        return self.classes

    @property
    def text(self) -> str:
        """See `Step`."""
        return f"{self.WORD} {self.named} " + " ".join(f"{a.text} {word}".strip() for a, word in self.by)

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        super().check(anatomy)
        for amount, word in self.by:
            amount.spacing(anatomy)
            if word:
                anatomy.direction(word)

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step:
        """See `Step`."""
        found: list[tuple[Amount, str]] = []
        for amount, word in self.by:
            one = amount.drawn(random)
            if word:
                found.append((one, word))
                continue
            way = random.standard_normal(anatomy.dim)
            for part, ends in zip(way / np.linalg.norm(way) * one.low, anatomy.towards, strict=True):
                size = round(abs(float(part)), 3)
                found.append((replace(one, low=size, high=size), ends[int(part > 0)]))
        return replace(self, by=tuple(found))

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        steps_mm = np.zeros(anatomy.dim)
        for amount, word in self.by:
            axis, sign = anatomy.direction(word)
            spacing = amount.spacing(anatomy)
            steps_mm[axis] += sign * amount.low / (1.0 if spacing is None else spacing[axis])
        return edit.move(labels, self.indices(anatomy), steps_mm.tolist())


@dataclass(frozen=True)
class Mirror(Step):
    """Left and right change places, of the whole map; so do classes called left and right."""

    WORD: ClassVar[str] = "mirror"

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        anatomy.direction("left")

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        names = {name: index for index, name in enumerate(anatomy.schema.names, start=1)}
        swaps = {
            index: names[other]
            for name, index in names.items()
            for one, two in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
            if one in name and (other := name.replace(one, two)) in names
        }
        return edit.mirror(labels, anatomy.direction("left")[0], swaps)


@dataclass(frozen=True)
class Deform(Step):
    """An elastic deformation (see `deformation.deform`). scale: the distance between knots; None takes its default."""

    WORD: ClassVar[str] = "deform"
    amount: Amount
    scale: Amount | None = None
    seed: int | None = None

    @property
    def text(self) -> str:
        """See `Step`."""
        scale = f" {self.scale.text}" if self.scale is not None else ""
        return f"{self.WORD} {self.amount.text}{scale}{f' seed {self.seed}' if self.seed is not None else ''}"

    def check(self, anatomy: Anatomy) -> None:
        """See `Step`."""
        if not 0 < self.amount.low <= self.amount.high <= deformation.STRONGEST:
            hint = f"Choose above 0, up to {deformation.STRONGEST:g}"
            raise SettingsError(f"'{self.text}': a deformation of {self.amount.text} is out of range", hint=hint)
        if self.scale is not None:
            spacing = self.scale.spacing(anatomy) or (1.0,)
            if self.scale.low < 2 * max(spacing):
                problem = f"'{self.text}': {self.scale.text} is below two pixels"
                raise SettingsError(problem, hint=f"Choose {2 * max(spacing):g}{self.scale.unit} or more")

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step:  # noqa: ARG002
        """See `Step`."""
        scale = self.scale.drawn(random) if self.scale is not None else None
        amount = self.amount.drawn(random)
        seed = int(random.integers(2**31)) if self.seed is None else self.seed
        return Deform(amount, scale, seed)

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        spacing = self.scale.spacing(anatomy) if self.scale is not None else anatomy.spacing_mm
        scale = self.scale.low if self.scale is not None else None
        return deformation.deform(labels, self.amount.low, self.seed or 0, scale=scale, spacing_mm=spacing)


@dataclass(frozen=True)
class Paste(_OfClasses):
    """Classes of another map replace those of this one (see `edit.paste`). donor: its name; None draws one."""

    WORD: ClassVar[str] = "paste"
    donor: str | None = None

    @property
    def text(self) -> str:
        """See `Step`."""
        return f"{self.WORD} {self.named}{f' from {quoted(self.donor)}' if self.donor is not None else ''}"

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step | None:
        """See `Step`."""
        found = _donor(self.donor, anatomy, random, self.indices(anatomy))
        return None if found is None else replace(self, donor=found)

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        return edit.paste(labels, _named(self.donor, anatomy), self.indices(anatomy))


@dataclass(frozen=True)
class Interpolate(Step):
    """A map between this one and another (see `edit.interpolate`). donor: the other's name; None draws one."""

    WORD: ClassVar[str] = "interpolate"
    amount: Amount
    donor: str | None = None

    @property
    def text(self) -> str:
        """See `Step`."""
        other = f" with {quoted(self.donor)}" if self.donor is not None else ""
        return f"{self.WORD} {self.amount.text}{other}"

    def check(self, anatomy: Anatomy) -> None:  # noqa: ARG002
        """See `Step`."""
        if not 0 <= self.amount.low <= self.amount.high <= 1:
            raise SettingsError(f"'{self.text}': a share of {self.amount.text} is out of range", hint="Choose 0 to 1")

    def drawn(self, anatomy: Anatomy, random: np.random.Generator) -> Step | None:
        """See `Step`."""
        amount = self.amount.drawn(random)
        found = _donor(self.donor, anatomy, random, ())
        return None if found is None else replace(self, amount=amount, donor=found)

    def applied(self, labels: LabelMap, anatomy: Anatomy) -> LabelMap:
        """See `Step`."""
        other = _named(self.donor, anatomy)
        return edit.interpolate(labels, other, self.amount.low, spacing_mm=anatomy.spacing_mm)


def quoted(name: str) -> str:
    """A name as the language reads it: in quotes unless it is one word."""
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'


def _donor(name: str | None, anatomy: Anatomy, random: np.random.Generator, classes: Sequence[int]) -> str | None:
    if name is not None:
        return name
    seed = int(random.integers(2**62))
    found = anatomy.donors.draw(seed, classes) if anatomy.donors is not None else None
    return None if found is None else found[0]


def _named(name: str | None, anatomy: Anatomy) -> LabelMap:
    if anatomy.donors is None or name is None:
        raise SettingsError("there is no other map to take structures from")
    return anatomy.donors.named(name)
