"""Do the images follow their label maps? (Konz et al. 2024, Table 1)"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.data.placement import item_spacing
from anatogen.evaluation.sections.base import Finding, Question, Section, score, spread
from anatogen.evaluation.subject import Block, Subject
from anatogen.judges.warping import warp_share
from anatogen.metrics.confusion import STRAY_SHARE, STRAY_VOXELS, ConfusionCounts, confusion_counts
from anatogen.metrics.intervals import Interval
from anatogen.metrics.overlap import worst
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Absences, AbsentClass, FaithfulnessResult, NotDefined, Overlaps, Score, Stray
from anatogen.seeds import derive_seed

_GRID_ROWS = 8
_WORST = 4
_NAMED = 10
PictureRow = list[figures.Picture]


class Faithfulness(Section[FaithfulnessResult]):
    """Overlap, surfaces and volumes of (generated, map), (generated, real) and (real, map), the last being the ceiling.

    On given classes and, apart, on free ones, where the model was free to differ.
    """

    name: ClassVar[str] = "faithfulness"
    question: ClassVar[Question] = "faithfulness"
    streams: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.names = subject.dataset.schema.names
        self._counts: dict[str, list[ConfusionCounts]] = {"gen_map": [], "gen_real": [], "real_map": []}
        self._given: list[NDArray[np.bool_]] = []
        self._known: list[NDArray[np.bool_]] = []
        self._absent: list[NDArray[np.bool_]] = []
        rows = subject.test_rows
        self._shown = {id(subject.entries[i]) for i in spread(rows, _GRID_ROWS)} if subject.rows is not None else set()
        if not self._shown:
            self._shown = {id(e) for e in subject.entries[:: max(1, len(subject.entries) // _GRID_ROWS)][:_GRID_ROWS]}
        self._examples: list[PictureRow] = []
        self._worst: list[tuple[float, int, PictureRow]] = []
        self._count = 0
        self._spacings: dict[str, tuple[float, ...]] = {}

    def add(self, block: Block) -> None:
        """Count the overlaps in `block`, and keep the pictures that are to be shown."""
        spacing = self._spacing(block)
        unknown = None if block.real is None or block.real.ignored is None else block.real.ignored.numpy()

        def known(truth: NDArray[np.int64]) -> NDArray[np.int64]:
            return truth if unknown is None else np.where(unknown, -1, truth)

        pairs = {"gen_map": (block.found, known(block.asked))}
        if block.real is not None and block.found_in_real is not None:
            pairs["gen_real"] = (block.found, known(block.found_in_real))
            pairs["real_map"] = (block.found_in_real, known(block.real.labels.numpy()))
        for name, (found, truth) in pairs.items():
            self._counts[name].append(confusion_counts(found, truth, len(self.names) + 1, spacing, block.known))
        self._given.append(block.given & block.known)
        self._known.append(block.known)
        self._absent.append(block.absent)
        scores = self._counts["gen_map"][-1].where(block.given).obeyed_by(np.arange(len(block.entries)))
        for i in worst(scores, _WORST):
            dice = float(np.nanmean(scores[i]))
            self._worst.append((dice, self._count + int(i), self._line(block, int(i), dice)))
        self._worst = sorted(self._worst, key=lambda found: found[:2])[:_WORST]
        for i, entry in enumerate(block.entries):
            if id(entry) in self._shown:
                self._examples.append(self._line(block, i))
        self._count += len(block.entries)

    def finish(self) -> Finding[FaithfulnessResult]:
        """Means, class means and intervals by patient; examples; the worst images."""
        patients, given = self.subject.patients(), np.concatenate(self._given)
        known, absent = np.concatenate(self._known), np.concatenate(self._absent)
        scores: dict[str, Score] = {}
        for name, parts in self._counts.items():
            if parts:
                counted = given if name == "gen_map" else given & ~absent
                scores |= self._measures(name, ConfusionCounts.joined(parts).where(counted), patients)
        if "dice_real_map" not in scores:
            scores |= self._ceiling_of_own_test_set()
        more: dict[str, Any] = {"absent": self._absences(given, absent, patients)}
        free = known & ~given
        if free.any() and self._counts["gen_real"]:
            of_free: dict[str, Score] = {}
            for name in ("gen_map", "gen_real"):
                of_free |= self._measures(name, ConfusionCounts.joined(self._counts[name]).where(free), patients)
            more["free"] = Overlaps.model_validate(of_free)
        result = FaithfulnessResult.model_validate({**scores, **more})
        shown = [self._examples_figure(), self._patients_figure(result)]
        return Finding(result, [*shown, *([self._worst_figure()] if self._worst else [])])

    def _absences(self, given: NDArray[np.bool_], removed: NDArray[np.bool_], patients: NDArray[np.str_]) -> Absences:
        """What was invented where a given class is absent, and which images have no given class at all.

        Of the real images only those count that truly lack the class, and not those from whose map it was removed.
        """
        counts = {"gen_map": ConfusionCounts.joined(self._counts["gen_map"]).where(given)}
        if self._counts["real_map"]:
            counts["real_map"] = ConfusionCounts.joined(self._counts["real_map"]).where(given & ~removed)
        empty = np.flatnonzero(~(counts["gen_map"].truth > 0).any(axis=1))
        by_pair = {name: self._absent_classes(of_images, patients) for name, of_images in counts.items()}
        return Absences(
            unit=f"mm{len(self.subject.dataset.size)}",
            stray=Stray(voxels=STRAY_VOXELS, share=STRAY_SHARE),
            not_defined=NotDefined(images=len(empty), named=tuple(self.subject.entries[i].id for i in empty[:_NAMED])),
            **by_pair,
        )

    def _absent_classes(self, of_images: ConfusionCounts, patients: NDArray[np.str_]) -> dict[str, AbsentClass]:
        return {
            name: AbsentClass(images=a.images, patients=a.groups, invented=a.invented, volume=a.volume)
            for name, a in zip(self.names, of_images.absences(patients), strict=True)
            if a.images
        }

    def _measures(self, name: str, of_images: ConfusionCounts, patients: NDArray[np.str_]) -> dict[str, Score]:
        values = {f"dice_{name}": of_images.dice_by(patients), f"missed_{name}": of_images.missed_by(patients)}
        error = of_images.volume_error_by(patients)
        values |= {f"volume_error_{name}": error, f"volume_error_abs_{name}": np.abs(error)}
        values |= {f"hd95_{name}": of_images.hd95_by(patients), f"nsd_{name}": of_images.surface_dice_by(patients)}
        names = np.unique(patients)  # the order of the scores' lines
        return {key: score(self.names, each, names, within=_range_of(key)) for key, each in values.items()}

    def _ceiling_of_own_test_set(self) -> dict[str, Score]:
        """What the segmenter makes of real images of this data set, where the label maps are from elsewhere;

        where they were edited, of real images that were warped as often as those that it learnt from.
        """
        dataset, rows, parts = self.subject.dataset, self.subject.test_rows, []
        share = self.subject.settings.segmenter.warped
        draws = torch.Generator().manual_seed(derive_seed("warped ceiling"))
        for batch in dataset.batches(rows):
            spacing = np.array([item_spacing(dataset, row) for row in batch.rows])
            images, truth = warp_share(batch.images, batch.truth, share, draws)
            found, known = self.subject.segmenter(images), batch.annotated.numpy()
            parts.append(confusion_counts(found, truth.numpy(), len(self.names) + 1, spacing, known))
        return self._measures("real_map", ConfusionCounts.joined(parts), np.array([row.patient for row in rows]))

    def _spacing(self, block: Block) -> NDArray[np.float64]:
        """mm of each image's pixels; of label maps from elsewhere, the model's own."""
        if block.real is None:
            own = self.subject.samples.header.about_model.spacing_mm or item_spacing(
                self.subject.dataset, self.subject.test_rows[0]
            )
            return np.tile(np.asarray(own, dtype=np.float64), (len(block.entries), 1))
        for row in block.real.rows:
            if row.case not in self._spacings:
                self._spacings[row.case] = item_spacing(self.subject.dataset, row)
        return np.array([self._spacings[row.case] for row in block.real.rows])

    def _line(self, block: Block, i: int, dice: float | None = None) -> PictureRow:
        schema, entry = self.subject.dataset.schema, block.entries[i]
        asked = np.where(np.isin(block.asked[i], np.flatnonzero(block.given[i]) + 1), block.asked[i], 0)
        title = f"map: {entry.label_map}"
        view = figures.view_of(asked, self.subject.samples.header.about_model.spacing_mm)
        line: PictureRow = [(title, figures.coloured(asked, schema, view))]
        if block.real is not None:
            line.append(("real", figures.gray(block.real.images[i].numpy(), view)))
        return [
            *line,
            ("generated" if dice is None else f"generated, Dice {dice:.2f}", figures.gray(block.generated[i], view)),
            ("generated, map outlined", figures.outlined(block.generated[i], asked, schema, view)),
            ("found in generated", figures.coloured(block.found[i], schema, view)),
        ]

    def _examples_figure(self) -> Figure:
        caption = (
            "Label map, the real image it was drawn on, an image generated from the map alone, the same with the map's "
            "outlines, and what the segmenter finds in it. One slice a patient first, none selected by quality."
        )
        return Figure("examples", "Do the images follow the maps?", figures.grid(self._examples), caption)

    def _patients_figure(self, result: FaithfulnessResult) -> Figure:
        sides = {"generated": result.dice_gen_map, "real images (ceiling)": result.dice_real_map}
        values = {
            side: {
                name: np.array([of_patient[name] for of_patient in (found.per_patient or {}).values()], dtype=float)
                for name in self.names
            }
            for side, found in sides.items()
            if found is not None
        }
        caption = (
            "Dice with the label map of every patient, in generated and in real images; the bar is the mean. Numbers "
            "by patient, of this and of every other measure, are in report.json."
        )
        return Figure("patients", "Is it so for every patient?", figures.points(values, "Dice"), caption)

    def _worst_figure(self) -> Figure:
        caption = (
            f"The images, of {self._count}, in which the segmenter finds least of the given classes. "
            "The segmenter may as well be wrong."
        )
        return Figure(
            "worst", "Where do they follow least?", figures.grid([line for _, _, line in self._worst]), caption
        )


def _range_of(measure: str) -> Interval:
    """The least and the greatest value that a measure can have."""
    if measure.startswith("volume_error_") and not measure.startswith("volume_error_abs"):
        return -1.0, np.inf
    return 0.0, np.inf if measure.startswith(("hd95", "volume_error_abs")) else 1.0
