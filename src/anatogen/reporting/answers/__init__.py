"""The four questions that are asked of generated images, answered in words and tables from the numbers of report.json."""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers import faithfulness, privacy, realism, utility
from anatogen.reporting.answers.base import (
    Answer,
    Results,
    Section,
    images_in_words,
    provenance,
    seed_of,
    split_in_words,
)
from anatogen.reporting.answers.generator import generator_tables
from anatogen.reporting.answers.privacy import privacy_status
from anatogen.reporting.answers.selection import after_selection, selection_in_words

__all__ = [
    "Answer",
    "Results",
    "Section",
    "answers",
    "class_names",
    "generator_tables",
    "images_in_words",
    "privacy_status",
    "provenance",
    "seed_of",
    "selection_in_words",
    "split_in_words",
]


def answers(results: Results, classes: Sequence[str] = ()) -> tuple[Answer, ...]:
    """Of the four questions, in their order. classes: in the order of the tables' columns; by default those of the results.

    results: what report.json holds; any key may be missing, and any number None or NaN.
    """
    classes = classes or class_names(results)
    found = (
        faithfulness.answer(results, classes),
        utility.answer(results, classes),
        realism.answer(results),
        privacy.answer(results),
    )
    return tuple(after_selection(answer, results) for answer in found)


def class_names(results: Results) -> tuple[str, ...]:
    """The classes that `results` have numbers for."""
    entries = [*(results.get("faithfulness") or {}).values(), *(results.get("utility") or {}).values()]
    return tuple(dict.fromkeys(name for e in entries if isinstance(e, dict) for name in e.get("per_class") or ()))
