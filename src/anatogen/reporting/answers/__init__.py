"""The questions that a report asks of generated images, answered in words and tables from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers import faithfulness, privacy, realism, utility
from anatogen.reporting.answers.applicability import not_applicable_in_words
from anatogen.reporting.answers.base import Answer, Chapter, images_in_words, provenance, split_in_words
from anatogen.reporting.answers.generator import generator_tables
from anatogen.reporting.answers.privacy import privacy_status
from anatogen.reporting.answers.selection import after_selection, selection_in_words
from anatogen.reporting.results import Report

__all__ = [
    "Answer",
    "Chapter",
    "answers",
    "class_names",
    "generator_tables",
    "images_in_words",
    "not_applicable_in_words",
    "privacy_status",
    "provenance",
    "selection_in_words",
    "split_in_words",
]


def answers(report: Report, classes: Sequence[str] = ()) -> tuple[Answer, ...]:
    """Of the four questions, in their order.

    Args:
        report: Any part of it may be missing, and any number None.
        classes: In the order of the tables' columns; by default those that the report has numbers for.
    """
    classes = classes or class_names(report)
    found = (
        faithfulness.answer(report, classes),
        utility.answer(report, classes),
        realism.answer(report),
        privacy.answer(report),
    )
    return tuple(after_selection(answer, report) for answer in found)


def class_names(report: Report) -> tuple[str, ...]:
    """The classes that `report` has numbers for."""
    scores = list(report.faithfulness.scores()) if report.faithfulness else []
    trainings = list(report.utility.trainings().values()) if report.utility else []
    return tuple(dict.fromkeys(name for score in (*scores, *trainings) for name in score.per_class))
