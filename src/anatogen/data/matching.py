"""Matching the classes of other label maps to those of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError, nearest
from anatogen.labels import ClassStates, LabelSchema

_LISTED = 12  # names in a message


@dataclass(frozen=True)
class ClassMatch:
    """Which classes of other label maps (`theirs`) make up each class of a model (`ours`).

    Attributes:
        parts: For each class 1..C-1 of ours, the names of their classes that become it; empty if it is missing.
    """

    ours: LabelSchema
    theirs: LabelSchema
    parts: tuple[tuple[str, ...], ...]

    @property
    def table(self) -> NDArray[np.int64]:
        """Our value for each value of their label maps; 0 if we have no such class."""
        table = np.zeros(self.theirs.count, np.int64)
        for c, parts in zip(self.ours.classes, self.parts, strict=True):
            table[[self.theirs.index_of(part) for part in parts]] = c.index
        return table

    @property
    def matched(self) -> tuple[str, ...]:
        """Our classes that theirs contains."""
        return tuple(name for name, parts in zip(self.ours.names, self.parts, strict=True) if parts)

    @property
    def missing(self) -> tuple[str, ...]:
        """Our classes that theirs lacks, which are free."""
        return tuple(name for name, parts in zip(self.ours.names, self.parts, strict=True) if not parts)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Their classes that ours lacks, which become background."""
        used = {part for parts in self.parts for part in parts}
        return tuple(name for name in self.theirs.names if name not in used)

    def apply(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Their label map, of any shape, with our values. Raises DataError for an undeclared value."""
        wrong = labels[(labels < 0) | (labels >= self.theirs.count)]
        if wrong.size:
            raise DataError(
                f"contains label {wrong.flat[0]}, but only classes 0 to {self.theirs.count - 1} are declared",
                hint="Declare the missing classes, or relabel the map",
            )
        return self.table[labels]

    def summary(self) -> str:
        """What is matched, free and left out, in one line."""
        same = [
            name if parts == (name,) else f"{name} (theirs: {' + '.join(parts)})"
            for name, parts in zip(self.ours.names, self.parts, strict=True)
            if parts
        ]
        text = f"classes matched: {', '.join(same)}"
        if self.missing:
            text += f"; free, because the label maps lack them: {', '.join(self.missing)}"
        if self.unknown:
            text += f"; left out, because the model lacks them: {some(self.unknown)}"
        return text


def parse_renames(texts: Sequence[str]) -> dict[str, str]:
    """The `renames` of `match_classes` from texts "OURS=THEIRS" or "OURS=THEIRS+THEIRS2".

    Raises:
        SettingsError: A text has another form, or a class is matched twice.
    """
    renames: dict[str, str] = {}
    for text in texts:
        ours, _, theirs = (part.strip() for part in text.partition("="))
        if not ours or not theirs:
            raise SettingsError(
                f"expected OURS=THEIRS, got '{text}'", hint="Use for instance kidneys=left kidney+right kidney"
            )
        if ours in renames:
            raise SettingsError(f"'{ours}' is matched twice", hint=f"Write {ours}={renames[ours]}+{theirs}")
        renames[ours] = theirs
    return renames


def match_classes(ours: LabelSchema, theirs: LabelSchema, renames: Mapping[str, str] | None = None) -> ClassMatch:
    """Match classes by `renames`, then by name, then by name ignoring case, spaces, underscores and hyphens.

    Args:
        ours: The model's classes.
        theirs: The label maps' classes.
        renames: From a class of ours to "THEIRS", or to "THEIRS+THEIRS2" if several of their classes make it up.

    Raises:
        SettingsError: A name in `renames` is unknown or used twice, names can be matched in two ways, or nothing
            matches.
    """
    found: dict[str, tuple[str, ...]] = {}
    used: dict[str, str] = {}
    for name, text in (renames or {}).items():
        if name not in ours.names:
            raise SettingsError(f"the model has no class '{name}'", hint=nearest(name, ours.names))
        whole = text in theirs.names  # a name may contain a plus
        found[name] = (text,) if whole else tuple(part.strip() for part in text.split("+") if part.strip())
        if not found[name]:
            raise SettingsError(f"'{name}={text}' matches nothing", hint=nearest(name, theirs.names))
        for part in found[name]:
            if part not in theirs.names:
                raise SettingsError(f"the label maps have no class '{part}'", hint=nearest(part, theirs.names))
            if part in used:
                problem = f"their class '{part}' is matched with both '{used[part]}' and '{name}'"
                raise SettingsError(problem, hint="Match it once; the other class is free")
            used[part] = name
    for name in ours.names:
        if name not in found and name in theirs.names and name not in used:
            found[name] = (name,)
            used[name] = name
    ours_left = [name for name in ours.names if name not in found]
    theirs_left = [name for name in theirs.names if name not in used]
    for name in ours_left:
        similar = [other for other in theirs_left if _plain(other) == _plain(name)]
        rivals = [other for other in ours_left if _plain(other) == _plain(name)]
        if similar and len(similar) + len(rivals) > 2:
            raise SettingsError(
                f"the model's {_quoted(rivals)} can be matched with the label maps' {_quoted(similar)} in several ways",
                hint=f"Choose one, for instance --rename '{name}={similar[0]}'",
            )
        if similar:
            found[name] = (similar[0],)
    if not found:
        raise SettingsError(
            f"no class of the label maps ({some(theirs.names)}) matches one of the model's ({some(ours.names)})",
            hint=f"Match them with --rename, for instance --rename '{_best_guess(ours, theirs)}'",
        )
    return ClassMatch(ours, theirs, tuple(found.get(name, ()) for name in ours.names))


def given_states(match: ClassMatch, annotated: Iterable[str]) -> ClassStates:
    """The states of our classes on one of their maps: given if matched and all parts are among `annotated`."""
    given = set(annotated)
    return ClassStates(tuple(bool(parts) and set(parts) <= given for parts in match.parts))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _best_guess(ours: LabelSchema, theirs: LabelSchema) -> str:
    """The most similar pair of names, as `parse_renames` reads it; a placeholder if none is similar."""
    pairs = [(_likeness(name, other), name, other) for name in ours.names for other in theirs.names]
    likeness, name, other = max(pairs, default=(0.0, "", ""))
    return f"{name}={other}" if likeness >= 0.8 else "OURS=THEIRS"


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, _plain(name), _plain(other)).ratio()


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def some(names: Sequence[str], last: str = "") -> str:
    """The first of `names` as a list "a, b, ..."; `last` is the word before the last of them."""
    listed = [*names[:_LISTED], "..."] if len(names) > _LISTED else list(names)
    if last and len(listed) > 1:
        return f"{', '.join(listed[:-1])} {last} {listed[-1]}"
    return ", ".join(listed)
