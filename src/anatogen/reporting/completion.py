"""completion.json: what completing label maps came to; and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from pydantic import Field

from anatogen.generation.header import DatasetName
from anatogen.labels import LabelClass, LabelSchema
from anatogen.metrics.calibration import Calibration
from anatogen.metrics.intervals import Mean
from anatogen.reporting import figures
from anatogen.reporting.results import Interval, Number, Result, Score
from anatogen.settings import Document

COMPLETION = "completion.json"
LEVELS = (0.1, 0.5, 0.9)
"""The frequencies whose contours are drawn."""
_SHOWN = 8
_CLASSES_SHOWN = 4
_GAP = 6  # pixels
_SHADES = (0.45, 0.75, 1.0)


class Share(Result):
    """A share over pixels with its 95 % interval by patient. no_interval: why there is none."""

    value: Number = None
    ci95: Interval | None = None
    no_interval: str | None = None

    @classmethod
    def of(cls, found: Mean) -> Share:
        """From a measured mean."""
        more = {} if found.ci95 is not None else {"no_interval": found.reason}
        return cls(value=found.value, ci95=found.ci95, **more)


class ReliabilityBin(Result):
    """The pixels predicted at low to high: how many, the mean prediction, and the share that shows the class."""

    low: float
    high: float
    pixels: int
    predicted: Number
    observed: Share


class CalibrationFound(Result):
    """error: expected calibration error. error_uncertain, brier_uncertain: over the pixels where the samples disagree,
    `uncertain` of all `pixels`. See `metrics.calibration`.
    """

    error: Share
    brier: Share
    error_uncertain: Share
    brier_uncertain: Share
    pixels: int
    uncertain: int
    reliability: tuple[ReliabilityBin, ...]

    @classmethod
    def of(cls, every: Calibration, uncertain: Calibration) -> CalibrationFound:
        """From what was measured on all pixels, and on the uncertain ones."""
        return cls(
            error=Share.of(every.error),
            brier=Share.of(every.brier),
            error_uncertain=Share.of(uncertain.error),
            brier_uncertain=Share.of(uncertain.brier),
            pixels=every.pixels,
            uncertain=uncertain.pixels,
            reliability=tuple(
                ReliabilityBin(
                    low=row.low,
                    high=row.high,
                    pixels=row.pixels,
                    predicted=row.predicted,
                    observed=Share.of(row.observed),
                )
                for row in every.rows
            ),
        )


class Recalibration(Result):
    """The rising map of a class's frequencies, fitted on label maps of other patients. frequency, calibrated: its
    points.
    """

    split: str
    label_maps: int
    patients: int
    frequency: tuple[float, ...]
    calibrated: tuple[float, ...]


class ClassCalibration(Result):
    """A class's frequencies against the annotation: as sampled, and calibrated where they were."""

    sampled: CalibrationFound | None = None
    calibrated: CalibrationFound | None = None
    recalibration: Recalibration | None = None


class CompletionMeasures(Result):
    """Completed label maps against the annotations of patients whom neither generator nor segmenter saw.

    On free classes that were annotated; of each patient the mean over label maps.

    Attributes:
        label_maps, patients: How many.
        dice_mean: Of each sample.
        dice_best: Of the best of a map's samples.
        dice_majority: Of the pixels that at least half of the samples show.
        dice_real: Of what the segmenter finds in the real image of the same map, which shows the truth: the ceiling.
        energy_distance: Generalised, with 1 - intersection over union; lower is better.
        coverage: Share of label maps whose annotated size lies within the samples' range.
        nominal_coverage: What `coverage` would be if samples varied as the truth does.
    """

    label_maps: int
    patients: int
    dice_mean: Score | None = None
    dice_best: Score | None = None
    dice_majority: Score | None = None
    dice_real: Score | None = None
    energy_distance: Score | None = None
    coverage: Score | None = None
    nominal_coverage: Number = None


class Completion(Document):
    """completion.json.

    Attributes:
        of: Whether generated images were completed, or real ones.
        model: Digest of the generator; None for real images.
        judge: The data set whose held-out patients the segmenter learned from.
        segmenter: Its digest.
        made_of: A digest of the images, those to calibrate on among them, and of what completed them; "" where it is
            not known.
        free: Classes that were free in some label map.
        label_maps, images, patients: How many.
        scale: The units of mean.* and std.*; frequencies are shares of the samples.
        calibration: By class.
        notes: What users should know.
    """

    HINT: ClassVar[str] = "Run anatogen complete again"

    version: str = ""
    command: str = ""
    of: Literal["samples", "real"]
    model: str | None = None
    judge: DatasetName = DatasetName()
    segmenter: str
    made_of: str = ""
    free: tuple[str, ...] = ()
    label_maps: int
    images: int
    patients: int
    scale: str | None = None
    measured: CompletionMeasures | None = None
    calibration: dict[str, ClassCalibration] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MapPicture:
    """What is drawn of one label map.

    Attributes:
        name: Of the map.
        given: Its given classes, (*spatial).
        images: The samples (n, C, *spatial) in [-1, 1], or the one real image.
        completed: Their full maps (n, *spatial).
        std: The standard deviation of each pixel (C, *spatial); None for a real image.
        frequency: By free class, (*spatial) in [0, 1].
        real: The real image of the map, where there is one.
        spacing_mm: Of the pixels, where it is known.
    """

    name: str
    given: NDArray[np.int64]
    images: NDArray[np.float32]
    completed: NDArray[np.int64]
    std: NDArray[np.float64] | None = None
    frequency: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    real: NDArray[np.float32] | None = None
    spacing_mm: tuple[float, ...] | None = None


def row_of(shown: MapPicture, schema: LabelSchema) -> list[figures.Picture]:
    """The given map, images with their completed maps outlined, the deviation, and contours of each free class's
    frequency on the mean image: at 0.1, 0.5 and 0.9, from dark to the class's full colour. Of volumes three planes.
    """
    view = figures.view_of(shown.completed[0], shown.spacing_mm)
    row: list[figures.Picture] = [(f"given: {shown.name}", figures.coloured(shown.given, schema, view))]
    if shown.real is not None:
        row.append(("real", figures.gray(shown.real, view)))
    for number, (image, labels) in enumerate(zip(shown.images[:_SHOWN], shown.completed, strict=False), start=1):
        title = "completed" if shown.std is None else f"sample {number}"
        row.append((title, figures.outlined(image, labels, schema, view)))
    if shown.std is not None:
        row.append(("standard deviation", heat(shown.std, view)))
    mean = shown.images.mean(axis=0)
    for name in sorted(shown.frequency, key=lambda each: -shown.frequency[each].sum())[:_CLASSES_SHOWN]:
        row.append((f"frequency: {name}", contours(mean, shown.frequency[name], _colour(schema, name), view)))
    return row


def strip(row: Sequence[figures.Picture]) -> NDArray[np.float32]:
    """The pictures of a row side by side at one height, white between them, (3, H, W) in [-1, 1]; without titles, which
    take a hundred times as long to draw.
    """
    height = max(picture.shape[0] for _, picture in row)
    parts: list[NDArray[Any]] = []
    for _, picture in row:
        parts += [np.kron(picture, np.ones((height // picture.shape[0],) * 2 + (1,))), np.ones((height, _GAP, 3))]
    return (np.concatenate(parts[:-1], axis=1).transpose(2, 0, 1) * 2 - 1).astype(np.float32)


def heat(values: NDArray[np.floating], view: figures.View = figures.MIDDLE) -> NDArray[np.float64]:
    """Values (C, *spatial) from 0 up as colours (H, C W, 3), white their largest; of a volume three planes."""
    values = view.flat(values, values.ndim - 1)
    largest = float(values.max(initial=0))
    flat = np.concatenate(list(values), axis=1) / (largest if largest > 0 else 1)
    return np.asarray(colormaps["inferno"](flat))[..., :3]


def contours(
    image: NDArray[np.floating], frequency: NDArray[np.float64], colour: str, view: figures.View = figures.MIDDLE
) -> NDArray[np.float64]:
    """`image` (C, *spatial) with the contours of `frequency` (*spatial) at `LEVELS` in shades of `colour`."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    shades = ["#" + "".join(f"{round(part * shade):02X}" for part in rgb) for shade in _SHADES]
    levels = LabelSchema(tuple(LabelClass(i, str(i), shade) for i, shade in enumerate(shades, start=1)))
    return figures.outlined(image, np.digitize(frequency, LEVELS), levels, view)


def _colour(schema: LabelSchema, name: str) -> str:
    return schema.classes[schema.index_of(name) - 1].colour


def overview(shown: Sequence[MapPicture], schema: LabelSchema) -> bytes:
    """PNG: a row for each label map; see `row_of`."""
    return figures.grid([row_of(each, schema) for each in shown])


def reliability(found: Mapping[str, ClassCalibration]) -> bytes:
    """PNG: the reliability of every class's frequencies, as sampled and, where they were, calibrated."""
    curves = {}
    for name, of_class in found.items():
        for title, part in ((name, of_class.sampled), (f"{name}, calibrated", of_class.calibrated)):
            if part is not None and part.reliability:
                ends = [row.observed.ci95 or (row.observed.value,) * 2 for row in part.reliability]
                points = [
                    (row.predicted, row.observed.value, *end) for row, end in zip(part.reliability, ends, strict=True)
                ]
                curves[title] = np.array(points, dtype=float)
    return figures.reliability(curves)
