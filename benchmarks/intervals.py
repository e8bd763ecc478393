"""How often does a 95 % interval of a mean over few patients contain the true mean?

    python benchmarks/intervals.py [--simulations 20000] [--resampled 2000] [--draws 999]

Four kinds of scores (normal, Dice-like beta(5, 1) and beta(12, 2), lognormal(0.5)), one to six classes that are
correlated within a patient, complete or missing in up to four of five patients. Prints a table for `mean_interval`, and
one for the intervals considered as alternatives, on complete scores of one class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anatogen.metrics.intervals import mean_interval
from common import write_section

Scores = NDArray[np.float64]
COUNTS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
KINDS: dict[str, tuple[Callable[[Scores], Scores], float]] = {
    "normal": (stats.norm.ppf, 0.0),
    "beta(12, 2)": (stats.beta(12, 2).ppf, 12 / 14),
    "beta(5, 1)": (stats.beta(5, 1).ppf, 5 / 6),
    "lognormal(0.5)": (lambda u: np.exp(0.5 * stats.norm.ppf(u)), float(np.exp(0.125))),
}
SHAPES = ((1, 0.0, 0.0), (2, 0.6, 0.0), (4, 0.3, 0.5), (4, 0.9, 0.6), (6, 0.2, 0.8))
"""Number of classes, their correlation within a patient, and how often the rarest one is missing."""


def scores_of(
    kind: str, count: int, shape: tuple[int, float, float], simulations: int, rng: np.random.Generator
) -> tuple[Scores, Scores]:
    """Scores (simulations, patients, classes), NaN where a patient lacks the class, and true means (simulations,).

    The means are over the classes that at least one patient has.
    """
    classes, correlation, missing = shape
    own, shared = rng.normal(size=(simulations, count, classes)), rng.normal(size=(simulations, count, 1))
    of_uniform, mean = KINDS[kind]
    scores = of_uniform(stats.norm.cdf(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own))
    there = rng.random(scores.shape) >= np.linspace(0, missing, classes)
    offsets = np.linspace(0, 0.5, classes)  # classes of different means
    means = np.broadcast_to(mean + offsets, (simulations, classes)).mean(axis=1, where=there.any(axis=1))
    return np.where(there, scores + offsets, np.nan), means


def coverage(intervals: Iterable[tuple[float, float] | None], means: Scores) -> tuple[float, int]:
    """The percentage of available intervals that contain their mean, and the number of available intervals."""
    held = [ends[0] <= mean <= ends[1] for ends, mean in zip(intervals, means, strict=True) if ends is not None]
    return 100 * float(np.mean(held)) if held else float("nan"), len(held)


def of_means(scores: Scores) -> Iterable[tuple[float, float] | None]:
    return (mean_interval(each).ci95 for each in scores)


def percentile(scores: Scores, rng: np.random.Generator, draws: int) -> Iterable[tuple[float, float]]:
    for each in scores:
        means = each[rng.integers(len(each), size=(draws, len(each)))].mean(axis=(1, 2))
        low, high = np.percentile(means, [2.5, 97.5])
        yield float(low), float(high)


def student(scores: Scores, rng: np.random.Generator, draws: int) -> Iterable[tuple[float, float]]:  # noqa: ARG001
    for each in scores:
        far = stats.t.ppf(0.975, len(each) - 1) * stats.sem(each.ravel())
        yield float(each.mean() - far), float(each.mean() + far)


def accelerated(scores: Scores, rng: np.random.Generator, draws: int) -> Iterable[tuple[float, float]]:
    for each in scores:
        found = stats.bootstrap((each.ravel(),), np.mean, n_resamples=draws, method="BCa", rng=rng).confidence_interval
        yield float(found.low), float(found.high)


def bootstrap_t(scores: Scores, rng: np.random.Generator, draws: int) -> Iterable[tuple[float, float]]:
    for each in scores[:, :, 0]:
        again = each[rng.integers(len(each), size=(draws, len(each)))]
        error = again.std(axis=1, ddof=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.nan_to_num((again.mean(axis=1) - each.mean()) / error, nan=0.0, posinf=1e9, neginf=-1e9)
        low, high = np.percentile(t, [2.5, 97.5])
        yield float(each.mean() - high * each.std(ddof=1)), float(each.mean() - low * each.std(ddof=1))


OTHERS = {"percentile bootstrap": percentile, "Student's t": student, "BCa": accelerated, "bootstrap-t": bootstrap_t}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=20_000)
    parser.add_argument("--resampled", type=int, default=2_000, help="simulations of the methods that draw again")
    parser.add_argument("--draws", type=int, default=999)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    ours = []
    for shape in SHAPES:
        for kind in KINDS:
            cells = []
            for count in COUNTS:
                scores, means = scores_of(kind, count, shape, options.simulations, rng)
                held, given = coverage(of_means(scores), means)
                share = 100 * given / len(scores)
                cells.append(f"{held:.1f}" + (f" ({share:.0f})" if share < 99.5 else ""))
            name = f"{shape[0]}, {shape[1]:g}, {shape[2]:g}"
            ours.append((name, kind, *cells))
            print(*ours[-1], flush=True)
    others = []
    for kind in KINDS:
        for name, method in OTHERS.items():
            cells = []
            for count in COUNTS:
                scores, means = scores_of(kind, count, SHAPES[0], options.resampled, rng)
                cells.append(f"{coverage(method(scores, rng, options.draws), means)[0]:.1f}")
            others.append((kind, name, *cells))
            print(*others[-1], flush=True)
    write_section(
        "Coverage of 95 % intervals of a mean over patients",
        f"`python benchmarks/intervals.py --simulations {options.simulations} --resampled {options.resampled}`: how "
        f"many percent of the intervals of `mean_interval` hold the true mean, {options.simulations:,} simulations of "
        "each number of patients; in brackets, the percentage in which an interval was given, where not in all. "
        "Classes, their correlation within a patient, and how often the rarest is missing stand first.\n\n"
        + _table(("classes", "scores", *map(str, COUNTS)), ours)
        + f"\n\nThe intervals that were not chosen, on complete scores of one class ({options.resampled:,} simulations, "
        f"{options.draws} draws):\n\n" + _table(("scores", "interval", *map(str, COUNTS)), others),
    )


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = [":---", ":---", *["---:"] * (len(heads) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


if __name__ == "__main__":
    main()
