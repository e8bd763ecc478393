"""What a layout provides: a list of cases that are loaded one at a time."""

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

    Attributes:
        load: Reads image and label map as stored in the files.
        annotated: Names of the annotated classes, or None for all.
        split: The layout's own split, or None.
        files: The files of the case, for messages and the fingerprint.
        attributes: Attributes of the patient by name, as in the source (participants.tsv).
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
    """All cases at one location, and what is known of them without reading images.

    Attributes:
        notice: A caution shown in every report.
        terms: The licence and the reference, if the source states them.
        undrawn: The axis across which a slice without a label was not drawn; None where every slice was.
        patients_from: Where the patients are from, the layout or the user; "" to group by case names (`data.patients`).
    """

    layout: str
    location: str
    schema: LabelSchema
    channels: tuple[str, ...]
    cases: tuple[SourceCase, ...]
    notice: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    patients_from: Literal["", "layout", "pattern", "table"] = ""
    undrawn: str | None = None


class Layout(Protocol):
    """The interface of a module in this folder."""

    def detect(self, location: str) -> bool:
        """Whether `location` looks like this layout."""
        ...

    def open_source(self, location: str, classes: Sequence[str] | None = None) -> Source:
        """The cases at `location`. `classes`: names of the classes 1, 2, ..., if the layout has none.

        Raises DataError if `location` does not have this layout.
        """
        ...
