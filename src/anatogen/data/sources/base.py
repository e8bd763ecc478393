"""What a layout offers: a list of cases that can be loaded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from anatogen.labels import LabelSchema
from anatogen.volume import Volume


@dataclass(frozen=True)
class SourceCase:
    """One scan that has not been read yet.

    load: reads image and label map as the files have them. annotated: names of the classes that were drawn, or None
    for all. split: the layout's own split, or None. files: what it is read from, for messages and the fingerprint.
    attributes: what else is known of the patient, by name, as the source has it (participants.tsv).
    """

    id: str
    patient: str
    load: Callable[[], tuple[Volume, Volume]]
    files: tuple[Path, ...] = ()
    annotated: tuple[str, ...] | None = None
    split: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """All cases at one place, with what is known of them without reading images.

    notice: said in every report. terms: the licence and the reference, where the source states them. patients_from: who says
    which patient a case is of, the layout or the user; "" where the cases' names have to tell (`data.patients`).
    """

    layout: str
    location: str
    schema: LabelSchema
    channels: tuple[str, ...]
    cases: tuple[SourceCase, ...]
    notice: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    patients_from: Literal["", "layout", "pattern", "table"] = ""


class Layout(Protocol):
    """A module of this folder."""

    def detect(self, location: str) -> bool:
        """Whether `location` looks like this layout."""
        ...

    def open_source(self, location: str, classes: Sequence[str] | None = None) -> Source:
        """The cases at `location`. classes: names of the classes 1, 2, ..., for layouts that do not name them.

        Raises DataError where `location` does not hold this layout.
        """
        ...
