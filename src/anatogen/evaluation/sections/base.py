"""What a section of the report is, what it can need, and whether a subject has that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import Row
from anatogen.evaluation.subject import Block, Subject
from anatogen.metrics.intervals import Interval, mean_interval
from anatogen.metrics.overlap import class_means
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Report, Score

R = TypeVar("R")
Need = Callable[[Subject], str]
"""Says why a subject lacks something, in plain words; "" where it has it."""
Question = Literal["faithfulness", "utility", "realism", "privacy", "model"]


@dataclass(frozen=True)
class Finding(Generic[R]):
    """What a section came to, and its figures."""

    result: R
    figures: list[Figure] = field(default_factory=list)


class Section(ABC, Generic[R]):
    """One part of the report.

    A section is made for a subject that meets all its needs, takes the images block by block where it `streams`, and is
    then finished. What takes long belongs in `add` and `finish`, and what has to be there before the first block in
    `__init__`.

    Attributes:
        name: Its field of `Report`, and its key in `not_applicable` there.
        question: Which question it helps to answer; "model": what the generator itself can do.
        needs: What it cannot do without.
        streams: Whether it wants the images.
        takes_days: Whether what was found before is to be published before it is finished.
        quiet: Whether nothing is said of it where it is not applicable.
        without: What report.json holds in its place where it is not applicable; None: nothing.
    """

    name: ClassVar[str]
    question: ClassVar[Question]
    needs: ClassVar[tuple[Need, ...]] = ()
    streams: ClassVar[bool] = False
    takes_days: ClassVar[bool] = False
    quiet: ClassVar[bool] = False
    without: ClassVar[Any] = None

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def add(self, block: Block) -> None:
        """Take `block` into account."""

    @abstractmethod
    def finish(self) -> Finding[R]:
        """The result and the figures."""

    @classmethod
    def place(cls, report: Report, result: R) -> Report:
        """`report` with the result in it."""
        return report.model_copy(update={cls.name: result})


def not_applicable(kind: type[Section[Any]], subject: Subject) -> str:
    """Why a section cannot be run on `subject`, in plain words; "" where it can."""
    return next((reason for need in kind.needs if (reason := need(subject))), "")


def score(
    names: Sequence[str],
    scores: NDArray[np.float64],
    patients: Sequence[str] | NDArray[np.str_] = (),
    *,
    within: Interval = (0, 1),
) -> Score:
    """Mean, 95 % interval and class means of `scores` (patients, classes), NaN where a patient lacks a class.

    patients: their names, where the scores of each are to be held too. within: see `mean_interval`.
    """
    mean, interval, reason = mean_interval(scores, within)
    more: dict[str, Any] = {} if interval is not None else {"no_interval": reason}
    if len(patients):
        more["per_patient"] = {str(name): by_name(names, line) for name, line in zip(patients, scores, strict=True)}
    return Score(mean=mean, per_class=by_name(names, class_means(scores, axis=0)), ci95=interval, **more)


def by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values (C-1,) by class."""
    return dict(zip(names, map(float, values), strict=True))


def evenly(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of `rows`, at equal distances from the first to the last."""
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]


def spread(rows: Sequence[Row], count: int) -> list[int]:
    """Places of `count` rows, one patient after the other, each near the middle of its slices."""
    by_patient: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_patient.setdefault(row.patient, []).append(place)
    order = [places[len(places) * k // 8] for k in (4, 2, 6, 1, 5, 3, 7, 0) for places in by_patient.values()]
    return sorted(list(dict.fromkeys(order))[:count])
