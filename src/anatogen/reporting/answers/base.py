"""What an answer is, and what it rests on in words: images, patients, split, seed and command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from anatogen.reporting.results import Report, Score
from anatogen.reporting.tables import NOTHING, TOO_FEW, Show, Table, counted, in_words, interval, ratio

Chapter = Literal["faithfulness", "utility", "realism", "privacy", "model"]
"""Where on the page an answer or a figure stands: at one of the four questions, or at the generator itself."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question. value, brief: a number and a few words, for the summary.

    verdict: a sentence. notes: how to read it. measured: False where there are no numbers; then `hint` says how to get
    them.
    """

    chapter: Chapter
    question: str
    topic: str
    value: str = NOTHING
    brief: str = "not measured"
    verdict: str = ""
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    measured: bool = True

    @property
    def hint(self) -> str:
        """The command that measures it."""
        return f"anatogen evaluate RUN --dataset DATASET --out REPORT --only {self.chapter}"


def images_in_words(report: Report) -> str:
    """ "500 images of 24 patients"."""
    return f"{counted(report.n.images, 'image')} of {counted(report.n.patients, 'patient')}"


def split_in_words(report: Report) -> str:
    """ "split test", or that the label maps are edited or from elsewhere."""
    if report.edited_maps:
        return "edited label maps"
    if report.from_elsewhere:
        return "label maps of another data set"
    names = report.split
    return f"split{'s' * (len(names) > 1)} {' and '.join(names)}" if names else "split not recorded"


def provenance(report: Report, n: str = "") -> str:
    """What a figure rests on: n, split, seed, version and command. n: where it was not made from all images."""
    seed, version, command = report.seed, report.version, report.command
    return "; ".join(
        (
            f"n = {n or images_in_words(report)}",
            split_in_words(report),
            *(["after selection by a gate"] if report.selection else []),
            f"seed {seed}" if seed is not None else "seed not recorded",
            f"anatogen {version}" if version else "version not recorded",
            f"command: {command}" if command else "command not recorded",
        )
    )


def per_class(score: Score, classes: Sequence[str], show: Show) -> tuple[str, ...]:
    """The class means of `score` in the order of `classes`."""
    return tuple(show(score.per_class.get(name)) for name in classes)


def mean_in_words(score: Score, show: Show = ratio) -> str:
    """The mean of `score` with its interval, or with why it has none, for sentences."""
    return in_words(score.mean, score.ci95, show, score.no_interval)


def without_interval(scores: Iterable[Score]) -> tuple[str, ...]:
    """A note on why there are no intervals, where scores with a mean have none."""
    known = [score for score in scores if score.mean is not None]
    reasons = dict.fromkeys(score.no_interval or TOO_FEW for score in known if interval(score.ci95) is None)
    if not reasons:
        return ()
    return (f"Where no interval stands, there are {' or '.join(reasons)}; then no difference is claimed.",)


def capital(text: str) -> str:
    """`text` as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
