"""The edit language, "grow liver 2..6mm; remove left_kidney; deform 0.3": read, drawn by seed, applied.

edit      = step, { ";", step }
step      = "remove", classes
          | "grow", classes, distance, [ "over", ( "all" | "background" | "classes" | classes ) ]
          | "shrink", classes, distance
          | "move", classes, distance, [ direction, { distance, direction } ]
          | "mirror"
          | "deform", share, [ distance ], [ "seed", integer ]
          | "paste", classes, [ "from", map ]
          | "interpolate", share, [ "with", map ]
classes   = name, { ",", name }          names of several words may stand in quotes
distance  = amount, ( "mm" | "px" )
share     = amount
amount    = number, [ "..", number ]     a range is drawn from, uniformly
direction = "left" | "right" | "anterior" | "posterior" | "superior" | "inferior" | "up" | "down"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anatogen.conditioning.edit import LabelMap
from anatogen.conditioning.edit_steps import (
    BACKGROUND,
    CLASSES,
    EVERYTHING,
    Deform,
    Grow,
    Interpolate,
    Mirror,
    Move,
    Paste,
    Remove,
    Shrink,
    Step,
)
from anatogen.conditioning.edit_words import DIRECTIONS, Amount, Anatomy
from anatogen.errors import SettingsError, nearest
from anatogen.seeds import derive_seed

_WORD = re.compile(r'"([^"]*)"|(,)|([^\s,"]+)')
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(?:\.\.(\d+(?:\.\d+)?|\.\d+))?([a-zA-Z%]*)")
_JOINING = ("over", "from", "with", "seed")


@dataclass(frozen=True)
class Edited:
    """A label map after an edit, and the steps that were done, without ranges, as the language writes them."""

    labels: LabelMap
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """A sequence of steps."""

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The edit in the language."""
        return "; ".join(step.text for step in self.steps)

    @property
    def needed(self) -> tuple[str, ...] | None:
        """The classes of which a map has to show one for the edit to do anything; None if any map will do."""
        names = [step.needed for step in self.steps]
        return tuple(dict.fromkeys(name for each in names for name in each)) if all(names) else None

    @property
    def removed(self) -> tuple[str, ...]:
        """The classes that are removed on purpose."""
        return tuple(name for step in self.steps if isinstance(step, Remove) for name in step.classes)

    def check(self, anatomy: Anatomy) -> None:
        """Raises SettingsError where a word means nothing for such maps: an unknown class, a direction they lack."""
        for step in self.steps:
            step.check(anatomy)

    def drawn(self, labels: LabelMap, anatomy: Anatomy, seed: int) -> Edited:
        """Draw every range and every other map, and edit.

        Args:
            labels: int64 (*spatial); a step is passed over if the map at that point shows none of its classes.
            anatomy: What the words mean for this map.
            seed: Step n draws from the seed derived from this one and n.
        """
        done = []
        for number, step in enumerate(self.steps):
            if step.needed and not np.isin(labels, [anatomy.schema.index_of(name) for name in step.needed]).any():
                continue
            exact = step.drawn(anatomy, np.random.default_rng(derive_seed(seed, number)))
            if exact is not None:
                labels = exact.applied(labels, anatomy)
                done.append(exact.text)
        return Edited(labels, tuple(done))


def parse_edit(text: str) -> Edit:
    """The edit in `text`. Raises SettingsError that names the word which is wrong, with the nearest right one."""
    parts = [part.strip() for part in _split(text)]
    if not any(parts):
        raise SettingsError("the edit is empty", hint='Write for instance --edit "grow liver 5mm; deform 0.3"')
    return Edit(tuple(_Words(part).step() for part in parts if part))


def _split(text: str) -> list[str]:
    """At semicolons outside quotes."""
    if text.count('"') % 2:
        raise SettingsError(f"a quote in '{text}' is not closed", hint='Write for instance grow "grey matter" 2mm')
    return re.findall(r'(?:[^;"]|"[^"]*")+', text)


class _Words:
    """The words of one step, read from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = [(found[0] or found[1] or found[2], bool(found[0])) for found in _WORD.findall(text)]
        self.at = 0

    def step(self) -> Step:
        verb = self._next("a verb")
        makers: dict[str, Callable[[], Step]] = {
            "remove": lambda: Remove(self._classes()),
            "grow": lambda: Grow(self._classes(), self._distance(), self._over()),
            "shrink": lambda: Shrink(self._classes(), self._distance()),
            "move": self._move,
            "mirror": Mirror,
            "deform": self._deform,
            "paste": lambda: Paste(self._classes(), self._after("from")),
            "interpolate": lambda: Interpolate(self._share(), self._after("with")),
        }
        if verb.lower() not in makers:
            raise self._error(f"unknown edit '{verb}'", nearest(verb, makers))
        found = makers[verb.lower()]()
        if self.at < len(self.words):
            raise self._error(f"'{self.words[self.at][0]}' was not expected", "Separate edits by semicolons")
        return found

    def _error(self, problem: str, hint: str) -> SettingsError:
        return SettingsError(f"in the edit '{self.text}': {problem}", hint=hint)

    def _peek(self) -> str:
        return self.words[self.at][0] if self.at < len(self.words) else ""

    def _next(self, what: str) -> str:
        if self.at >= len(self.words):
            raise self._error(f"{what} is missing", "The documentation's page on editing has the grammar")
        self.at += 1
        return self.words[self.at - 1][0]

    def _classes(self) -> tuple[str, ...]:
        names: list[str] = []
        while True:
            parts: list[str] = []
            while self.at < len(self.words):
                word, in_quotes = self.words[self.at]
                if not in_quotes and (word == "," or word in _JOINING or _AMOUNT.fullmatch(word)):
                    break
                parts.append(word)
                self.at += 1
            if not parts:
                found = f"before '{self._peek()}'" if self._peek() else "at the end"
                raise self._error(f"the name of a class is missing {found}", "Write for instance grow liver 5mm")
            names.append(" ".join(parts))
            if self._peek() != ",":
                return tuple(names)
            self.at += 1

    def _amount(self, what: str, units: tuple[str, ...], example: str) -> Amount:
        word = self._next(what)
        if (found := _AMOUNT.fullmatch(word)) is None:
            raise self._error(f"'{word}' is no {what.split(' ', 1)[1]}", f"Write for instance {example}")
        low, high, unit = float(found[1]), float(found[2] or found[1]), found[3]
        if not unit and self._peek() and self._peek() in units:  # "5 mm"
            unit = self._next("a unit")
        if unit not in units:
            problem = f"'{word}' has no unit" if not unit else f"'{word}' has the unit '{unit}'"
            raise self._error(problem, f"Write for instance {example}")
        if low > high:
            raise self._error(f"'{word}' runs from high to low", f"Write {high:g}..{low:g}{unit}")
        return Amount(low, high, unit)

    def _distance(self) -> Amount:
        found = self._amount("a distance", ("mm", "px"), "5mm, 3px or 2..6mm")
        if found.high == 0:
            raise self._error(f"a distance of {found.text} changes nothing", "Write for instance 5mm")
        return found

    def _share(self) -> Amount:
        return self._amount("a number", ("",), "0.3 or 0.1..0.4")

    def _after(self, word: str) -> str | None:
        if self._peek() != word:
            return None
        self._next(word)
        return self._next("the name of a map")

    def _over(self) -> tuple[str, ...]:
        if self._peek() != "over":
            return (EVERYTHING,)
        self._next("over")
        names = self._classes()
        if EVERYTHING in names and len(names) > 1:
            raise self._error("'all' stands for everything", f"Write over all, or over {BACKGROUND} or {CLASSES}")
        return names

    def _move(self) -> Step:
        classes = self._classes()
        by = [(self._distance(), self._direction(needed=False))]
        while by[-1][1] and self.at < len(self.words):
            by.append((self._distance(), self._direction(needed=True)))
        return Move(classes, tuple(by))

    def _direction(self, *, needed: bool) -> str:
        if not needed and self.at >= len(self.words):
            return ""
        word = self._next("a direction")
        if word not in DIRECTIONS:
            raise self._error(f"unknown direction '{word}'", nearest(word, DIRECTIONS))
        return word

    def _deform(self) -> Step:
        amount = self._share()
        scale = self._distance() if self._peek() and self._peek() != "seed" else None
        seed = None
        if self._peek() == "seed":
            self._next("seed")
            word = self._next("a number")
            if not word.isdecimal():
                raise self._error(f"'{word}' is no seed", "Write for instance deform 0.3 seed 7")
            seed = int(word)
        return Deform(amount, scale, seed)


def parse_edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """The edits in `texts`, each a recipe of its own. Raises SettingsError as `parse_edit` does."""
    return tuple(parse_edit(text) for text in texts)
