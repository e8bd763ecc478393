"""What an answer is, and what it rests on in words: images, patients, split, seed and command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anatogen.reporting.tables import NOTHING, TOO_FEW, Show, Table, counted, in_words, interval, number, ratio

Section = Literal["faithfulness", "utility", "realism", "privacy", "model"]
Results = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The answer to one question. value, brief: a number and a few words, for the summary.

    verdict: a sentence. notes: how to read it. measured: False where there are no numbers; then `hint` says how to get them.
    """

    section: Section
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
        return f"anatogen evaluate RUN --dataset DATASET --out REPORT --only {self.section}"


def images_in_words(results: Results) -> str:
    """ "500 images of 24 patients"."""
    n = results.get("n") or {}
    return f"{counted(n.get('images'), 'image')} of {counted(n.get('patients'), 'patient')}"


def split_in_words(results: Results) -> str:
    """ "split test", or that the label maps are from elsewhere."""
    names = [str(name) for name in results.get("split") or ()]
    if names == ["elsewhere"]:
        return "label maps of another data set"
    return f"split{'s' * (len(names) > 1)} {' and '.join(names)}" if names else "split not recorded"


def seed_of(results: Results) -> Any:
    """The seed of the images, None where it is not known."""
    return results.get("seed", (results.get("sampling") or {}).get("seed"))


def provenance(results: Results, n: str = "") -> str:
    """What a figure rests on: n, split, seed, version and command. n: where it was not made from all images."""
    seed, version, command = seed_of(results), results.get("version"), results.get("command")
    return "; ".join(
        (
            f"n = {n or images_in_words(results)}",
            split_in_words(results),
            *(["after selection by a gate"] if results.get("selection") else []),
            f"seed {seed}" if seed is not None else "seed not recorded",
            f"anatogen {version}" if version else "version not recorded",
            f"command: {command}" if command else "command not recorded",
        )
    )


def per_class(entry: Results, classes: Sequence[str], show: Show) -> tuple[str, ...]:
    """The class means of `entry` in the order of `classes`."""
    return tuple(show((entry.get("per_class") or {}).get(name)) for name in classes)


def mean_in_words(entry: Results, show: Show = ratio) -> str:
    """The mean of `entry` with its interval, or with why it has none, for sentences."""
    return in_words(entry.get("mean"), entry.get("ci95"), show, entry.get("no_interval"))


def without_interval(entries: Iterable[Results]) -> tuple[str, ...]:
    """A note on why there are no intervals, where entries with a mean have none."""
    known = [entry for entry in entries if number(entry.get("mean")) is not None]
    reasons = dict.fromkeys(str(e.get("no_interval") or TOO_FEW) for e in known if interval(e.get("ci95")) is None)
    if not reasons:
        return ()
    return (f"Where no interval stands, there are {' or '.join(reasons)}; then no difference is claimed.",)


def capital(text: str) -> str:
    """`text` as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
