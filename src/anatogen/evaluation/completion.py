"""Completed label maps measured against the annotations of patients whom neither generator nor segmenter saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation.sections.base import score
from anatogen.metrics.calibration import (
    FrequencyCounts,
    MonotoneMap,
    calibration,
    count_frequencies,
    fit_monotone,
)
from anatogen.metrics.completion import covered, energy_distance, nominal_coverage
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.overlap import class_means
from anatogen.reporting.completion import (
    CalibrationFound,
    ClassCalibration,
    CompletionMeasures,
    Recalibration,
)
from anatogen.reporting.results import Score

_RANGES = {"energy_distance": (0.0, 2.0)}
MEASURES = ("dice_mean", "dice_best", "dice_majority", "dice_real", "energy_distance", "coverage")


@dataclass(frozen=True)
class MapTruth:
    """What is known of a label map beside its samples.

    Attributes:
        patient: Whose it is.
        labels: The annotation (*spatial), -1 where the class is unknown.
        asked: Bool (C-1), the free classes that were annotated.
        found_in_real: What the segmenter makes of the real image, completed likewise (*spatial); None without one.
    """

    patient: str
    labels: NDArray[np.int64]
    asked: NDArray[np.bool_]
    found_in_real: NDArray[np.int64] | None = None


@dataclass
class CompletionTally:
    """Takes label maps one by one, and keeps a few numbers of each.

    Attributes:
        names: Of the classes 1..C-1.
    """

    names: tuple[str, ...]
    _patients: list[str] = field(default_factory=list)
    _scores: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    _counts: dict[str, list[FrequencyCounts]] = field(default_factory=dict)
    _samples: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._patients)

    @property
    def patients(self) -> list[str]:
        """The patients, each once."""
        return sorted(set(self._patients))

    def add(self, samples: NDArray[np.int64], truth: MapTruth) -> None:
        """Measure the completed maps (n, *spatial) of one label map; `samples` may be empty (0, *spatial)."""
        if not truth.asked.any():
            return
        found = dict.fromkeys(MEASURES, np.full(len(self.names), np.nan))
        if truth.found_in_real is not None:
            found["dice_real"] = self._dice(truth.found_in_real[None], truth)[0]
        if len(samples):
            found |= self._of_samples(samples, truth)
        for name, values in found.items():
            self._scores.setdefault(name, []).append(values)
        self._patients.append(truth.patient)
        self._samples.append(len(samples))

    def _of_samples(self, samples: NDArray[np.int64], truth: MapTruth) -> dict[str, NDArray[np.float64]]:
        known, each = truth.labels >= 0, self._dice(samples, truth)
        drawn = ~np.isnan(each[0])
        majority, energy, within = np.zeros_like(truth.labels), *np.full((2, len(self.names)), np.nan)
        for index in np.flatnonzero(truth.asked) + 1:
            of_class, true = samples == index, truth.labels == index
            frequency = of_class.mean(axis=0)
            majority[frequency >= 0.5] = index
            energy[index - 1] = energy_distance(of_class[:, known], true[known])
            within[index - 1] = covered(of_class[:, known].sum(axis=1), true[known].sum())
            counts = count_frequencies(frequency[None], true[None], np.array([truth.patient]), known[None])
            self._counts.setdefault(self.names[index - 1], []).append(counts)
        best = np.where(drawn, np.where(drawn, each, 0).max(axis=0), np.nan)
        return {
            "dice_mean": class_means(each, axis=0),
            "dice_best": best,
            "dice_majority": self._dice(majority[None], truth)[0],
            "energy_distance": energy,
            "coverage": within,
        }

    def _dice(self, maps: NDArray[np.int64], truth: MapTruth) -> NDArray[np.float64]:
        """Of each map (n, *spatial), (n, C-1); NaN where a class is not drawn in the annotation."""
        count = len(maps)
        counted = np.broadcast_to(truth.asked, (count, len(self.names)))
        same = np.broadcast_to(truth.labels, maps.shape)
        counts = confusion_counts(maps, same, len(self.names) + 1, counted=counted, surfaces=False)
        return counts.dice_by(np.arange(count))

    def measures(self) -> CompletionMeasures | None:
        """Means and intervals over patients, each the mean of its label maps; None where nothing was measured."""
        if not self._patients:
            return None
        names, which = np.unique(self._patients, return_inverse=True)
        found: dict[str, Score] = {}
        for measure, parts in self._scores.items():
            every = np.stack(parts)
            of_patient = np.stack([class_means(every[which == p], axis=0) for p in range(len(names))])
            if not np.isnan(of_patient).all():
                within = _RANGES.get(measure, (0.0, 1.0))
                shown = np.atleast_1d(~np.isnan(of_patient).all(axis=0))
                classes = [name for name, there in zip(self.names, shown, strict=True) if there]
                found[measure] = score(classes, of_patient[:, shown], within=within)
        usual = int(np.median(self._samples))
        more = {"nominal_coverage": nominal_coverage(usual)} if usual else {}
        return CompletionMeasures(label_maps=len(self._patients), patients=len(names), **found, **more)

    def counts(self) -> dict[str, FrequencyCounts]:
        """The pixels of every class by patient and frequency."""
        return {name: FrequencyCounts.joined(parts) for name, parts in self._counts.items()}


@dataclass(frozen=True)
class Recalibrated:
    """The rising map of each class's frequencies, and what it was fitted on."""

    maps: dict[str, MonotoneMap]
    split: str
    label_maps: int
    patients: tuple[str, ...]

    @classmethod
    def fitted(cls, tally: CompletionTally, split: str) -> Recalibrated:
        """By isotonic regression on what `tally` has counted."""
        maps = {name: fit_monotone(counts) for name, counts in tally.counts().items()}
        return cls(maps, split, len(tally), tuple(tally.patients))

    def about(self, name: str) -> Recalibration | None:
        """What completion.json says of a class."""
        if name not in self.maps:
            return None
        return Recalibration(
            split=self.split,
            label_maps=self.label_maps,
            patients=len(self.patients),
            frequency=tuple(self.maps[name].levels.tolist()),
            calibrated=tuple(self.maps[name].values.tolist()),
        )


def calibrations(
    counts: dict[str, FrequencyCounts], names: Sequence[str], recalibrated: Recalibrated | None
) -> dict[str, ClassCalibration]:
    """Of each class in `names`: its frequencies against the annotations, and after calibration, where there is any."""
    found = {}
    for name in names:
        own = counts.get(name)
        more: dict[str, Any] = {}
        if own is not None:
            more["sampled"] = _found(own)
        if recalibrated is not None and name in recalibrated.maps:
            more["recalibration"] = recalibrated.about(name)
            if own is not None:
                more["calibrated"] = _found(own.mapped(recalibrated.maps[name]))
        if more:
            found[name] = ClassCalibration.model_validate(more)
    return found


def _found(counts: FrequencyCounts) -> CalibrationFound:
    return CalibrationFound.of(calibration(counts), calibration(counts.uncertain()))
