"""Gates for generated images: does the anatomy follow the map, and is the image a copy of a training image?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import SettingsError
from anatogen.generation.header import CopyGateSettings, DatasetName, GateSettings
from anatogen.generation.manifest import Measures, NearestTraining
from anatogen.generation.rejection import Gate, Verdict
from anatogen.generation.request import Request
from anatogen.judges.copy_search import CopySearch
from anatogen.labels import LabelSchema
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.copies import copy_threshold
from anatogen.metrics.overlap import class_means

Images = NDArray[np.float32]
Progress = Callable[[int, int], None]


def dice_gate(
    segmenter: Callable[[Images], NDArray[np.int64]],
    schema: LabelSchema,
    min_dice: float,
    *,
    judge: DatasetName | None = None,
    warped: float | None = None,
) -> Gate:
    """A gate that keeps an image whose Dice of what `segmenter` finds with what was asked for is at least `min_dice`.

    segmenter: images (B, C, *spatial) in [-1, 1] -> label maps (B, *spatial). judge: the data set that it was trained
    on; warped: the share of warped images among these (see `judges.warping`). The Dice of an image is the mean
    over its given classes that are drawn in its map. A given class that is not drawn is to be absent: invented (see
    `ConfusionCounts`), it counts as a class with Dice 0; else it does not count. An image for which nothing counts is
    kept, with a note. Small structures have a low Dice in real images too, so a high bound favours slices through the
    middle of an organ. Raises SettingsError for a bound outside (0, 1].
    """
    if not 0 < min_dice <= 1:
        raise SettingsError(f"--min-dice must be in (0, 1], got {min_dice:g}", hint="Choose for instance 0.8")
    return _DiceGate(segmenter, schema, min_dice, judge, warped)


@dataclass(frozen=True)
class _DiceGate:
    segmenter: Callable[[Images], NDArray[np.int64]]
    schema: LabelSchema
    min_dice: float
    judge: DatasetName | None
    warped: float | None

    @property
    def settings(self) -> GateSettings:
        return GateSettings(min_dice=self.min_dice, judge=self.judge, warped=self.warped)

    def __call__(self, requests: Sequence[Request], images: Images) -> list[Verdict]:
        asked = np.stack([request.labels for request in requests])
        given = np.array([request.states.given for request in requests])
        return [self._verdict(dice) for dice in given_dice(self.segmenter(images), asked, given, self.schema.count)]

    def _verdict(self, dice: float) -> Verdict:
        if math.isnan(dice):
            return Verdict(True, Measures(note="no given class is in the map, so there is no Dice"))
        measures = Measures(dice=round(dice, 4))
        if dice >= self.min_dice:
            return Verdict(True, measures)
        return Verdict(False, measures, f"Dice {dice:.4f} is below {self.min_dice:g}")


def given_dice(
    found: NDArray[np.integer], asked: NDArray[np.integer], given: NDArray[np.bool_], class_count: int
) -> NDArray[np.float64]:
    """How well each image's label map `found` (N, *spatial) obeys `asked` where `given` (N, C-1), (N,); see
    `dice_gate`.

    NaN where no given class is drawn, and none that was given as absent is found.
    """
    counts = confusion_counts(found, asked, class_count, counted=given, surfaces=False)
    return class_means(counts.obeyed_by(np.arange(len(asked))), axis=1)


def copy_gate(
    search: CopySearch, *, level: float = 0.01, judge: DatasetName | None = None, progress: Progress | None = None
) -> Gate:
    """A gate that rejects an image nearer to a training image than all but a share `level` of unseen patients' are.

    By `Neighbours.relative` and `copy_threshold`: about `level` of the images of a model that copies nothing are
    rejected too. The manifest then names the nearest training image by its row (case and slice), and the distance.
    judge: the data set that is searched. progress: of measuring the held-out images, see `CopySearch.heldout`.
    """
    threshold, _ = copy_threshold(search.heldout(progress).relative, level=level)
    return _CopyGate(search, threshold, level, judge)


@dataclass(frozen=True)
class _CopyGate:
    search: CopySearch
    threshold: float
    level: float
    judge: DatasetName | None

    @property
    def settings(self) -> GateSettings:
        compared = CopyGateSettings(level=self.level, compared_with=self.search.digest)
        return GateSettings(reject_copies=compared, judge=self.judge)

    def __call__(self, requests: Sequence[Request], images: Images) -> list[Verdict]:  # noqa: ARG002
        found = self.search.nearest(images)
        return [self._verdict(*each) for each in zip(found.relative.tolist(), found.index.tolist(), strict=True)]

    def _verdict(self, distance: float, index: int) -> Verdict:
        row = self.search.train_rows[index].id
        nearest = NearestTraining(row=row, distance=round(distance, 4), threshold=round(self.threshold, 4))
        measures = Measures(nearest=nearest)
        if distance >= self.threshold:
            return Verdict(True, measures)
        return Verdict(
            False,
            measures,
            f"its distance to training image {row}, {distance:.4f}, is below {self.threshold:.4f}, under which few "
            "images of unseen patients lie",
        )
