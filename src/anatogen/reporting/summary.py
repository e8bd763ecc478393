"""A report in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from anatogen.reporting.answers import answers, not_applicable_in_words, selection_in_words
from anatogen.reporting.results import (
    FaithfulnessResult,
    Pair,
    RealismCount,
    RealismResult,
    Report,
    Score,
    UtilityResult,
)
from anatogen.reporting.tables import TOO_FEW, counted, defined, general, with_interval

_PAIRS: tuple[tuple[Pair, str], ...] = (
    ("gen_map", "generated, map"),
    ("gen_real", "generated, real"),
    ("real_map", "real, map"),
)


def summary_lines(report: Report) -> Iterator[str]:
    """What was measured, a line each, and what was not applicable."""
    yield from selection_in_words(report)
    yield from report.floors.sentences if report.floors else ()
    yield from _faithfulness(report.faithfulness or FaithfulnessResult())
    yield from _utility(report.utility or UtilityResult())
    yield from _realism(report.realism or RealismResult())
    if report.privacy:
        yield next(answer.verdict for answer in answers(report) if answer.chapter == "privacy")
    if missing := not_applicable_in_words(report):
        yield f"Not applicable: {missing}"


def _faithfulness(found: FaithfulnessResult) -> Iterator[str]:
    for pair, text in _PAIRS:
        if score := found.of("dice", pair):
            per_class = ", ".join(f"{name} {defined(value)}" for name, value in score.per_class.items())
            yield f"Dice({text}) {_interval(score)}: {per_class}"


def _utility(found: UtilityResult) -> Iterator[str]:
    sides = {"Segmenter": found.trainings(), "nnU-Net": found.nnunet.trainings() if found.nnunet else {}}
    for name, trainings in sides.items():
        if trainings:
            parts = "; ".join(f"{mixture} {_interval(each)}" for mixture, each in trainings.items())
            yield f"{name} on real patients, trained on: {parts}"


def _realism(found: RealismResult) -> Iterator[str]:
    if not found:
        return
    parts = []
    if found.fid is not None:
        parts.append(f"FID {general(found.fid)} (between real images {general(found.fid_real)})")
    elif found.has("fid"):
        n = found.n if isinstance(found.n, RealismCount) else RealismCount()
        parts.append(f"FID needs more than {counted(n.generated, 'image')} of {counted(n.patients, 'patient')}")
    if found.noise_ratio is not None:
        parts.append(f"noise {found.noise_ratio:.2f} of the real images'")
    elif found.has("noise_ratio"):
        parts.append("noise could not be measured")
    if parts:
        yield "; ".join(parts)


def _interval(score: Score) -> str:
    if score.ci95 is None:
        return f"{defined(score.mean)} ({score.no_interval or TOO_FEW})"
    return with_interval(score.mean, score.ci95)
