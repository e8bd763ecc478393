"""Realism of volumes by features of their slices along D, H and W (2.5D), a part of the section on realism.

A model of slices makes planes that look right and do not go together; it is the slices along the other axes that show
it. As everywhere in `metrics.halves`, the patient is the observation: slices of one are never compared with each other,
and change places, or are left out, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.judges.encoder import Encoder
from anatogen.judges.slices import AXES, choose_slices, cut_slices
from anatogen.metrics.halves import Cohort, mmd_excess
from anatogen.metrics.intervals import TOO_FEW
from anatogen.reporting.results import SlicesResult

DRAWS = 2047
"""Permutations where slices are compared: with their three, one of eight measures needs more of them to be significant.
All swaps of up to 12 patients are among them."""
_FEATURES_HELD = 5000


@dataclass(frozen=True)
class Slices:
    """Features (M, F) of a set's slices along one axis, whose volumes they are of (M,), and the encoder's digest."""

    features: NDArray[np.float64]
    patients: NDArray[np.str_]
    encoder: str

    def some(self) -> Slices:
        """All of them, or as many as are compared, evenly spaced; the same places for sets of one count."""
        count = len(self.patients)
        places = np.linspace(0, count - 1, min(count, _FEATURES_HELD)).round().astype(int)
        return Slices(self.features[places], self.patients[places], self.encoder)


class Slicing:
    """Takes the features of the slices of volumes that come in pieces, along each axis that there is an encoder for."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = encoders
        self._features: list[list[NDArray[np.float32]]] = [[] for _ in encoders]
        self._patients: list[list[NDArray[np.str_]]] = [[] for _ in encoders]

    def add(self, volumes: NDArray[np.float32], labels: NDArray[np.integer], patients: Sequence[str]) -> None:
        """Take in volumes (N, C, D, H, W) of `patients` (N,), cut where `labels` (N, D, H, W) show a class."""
        for axis, encoder in enumerate(self._encoders):
            whose, which = choose_slices(labels, axis)
            self._features[axis].append(encoder(cut_slices(volumes, axis, whose, which)))
            self._patients[axis].append(np.array(patients, dtype=np.str_)[whose])

    @property
    def result(self) -> tuple[Slices, ...]:
        """What was taken in, along each axis."""
        return tuple(
            Slices(np.concatenate(features).astype(np.float64), np.concatenate(patients), encoder.digest)
            for features, patients, encoder in zip(self._features, self._patients, self._encoders, strict=True)
        )


@dataclass(frozen=True)
class ComparedSlices:
    """What slices say, by axis ("D", "H", "W"): distances; and for the verdict, by measure ("slices_D", ...), the
    statistics (draws + 1,) of every permutation.
    """

    results: dict[str, SlicesResult]
    statistics: dict[str, NDArray[np.float64]]


def compare_slices(made: Sequence[Slices], real: Sequence[Slices], *, paired: bool) -> ComparedSlices:
    """The distances between the slices of two sets of volumes; nothing of sets that are none.

    There are neither distances nor statistics with fewer than two patients on a side, and no distances with fewer than
    four.

    Args:
        made: Slices of generated volumes along each axis.
        real: Slices of real volumes along each axis.
        paired: The i-th generated volume follows the label map of the i-th real one, and both were cut alike.
    """
    found = ComparedSlices({}, {})
    for of_made, of_real, axis in zip(made, real, AXES[: len(made)], strict=True):
        about = {"n": len(of_made.patients), "encoder": of_made.encoder}
        if min(len(np.unique(side.patients)) for side in (of_made, of_real)) < 2:
            found.results[axis] = SlicesResult.model_validate({**about, "mmd": None, "no_interval": TOO_FEW})
            continue
        a, b = of_made.some(), of_real.some()
        cohort = Cohort.of(a.patients, b.patients, paired=paired, draws=DRAWS)
        excess = mmd_excess(cohort, a.features, b.features, interval=True)
        overall = excess.overall
        values = {"mmd": excess.value, "mmd_spread": excess.value_spread}
        values |= {"mmd_real": excess.real, "mmd_real_spread": excess.real_spread, "excess": overall.value}
        interval = {"ci95": overall.ci95, "no_interval": overall.reason or None}
        found.results[axis] = SlicesResult.model_validate({**about, **values, **interval})
        found.statistics[f"slices_{axis}"] = excess.statistic
    return found
