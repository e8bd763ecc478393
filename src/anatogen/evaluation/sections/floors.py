"""What a learned model has to beat: the nearest training image in Dice, painted classes in realism."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from anatogen.baselines.painting import Painting
from anatogen.baselines.retrieval import NearestMap
from anatogen.evaluation.comparing import below_painting, below_retrieval, difference
from anatogen.evaluation.needs import a_learned_model, real_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, evenly, score
from anatogen.evaluation.sections.realism import Measuring, compare
from anatogen.evaluation.subject import Block, Subject
from anatogen.labels import ClassStates
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.model import Query
from anatogen.reporting.results import FloorsResult

_MOST = 256
"""Label maps that are compared on, spread over all: the nearest of all training maps is searched for each."""


class Floors(Section[FloorsResult]):
    """Nearest-map retrieval and painting on some of the label maps, beside the model on the same ones."""

    name: ClassVar[str] = "floors"
    question: ClassVar[Question] = "model"
    needs: ClassVar[tuple[Need, ...]] = (a_learned_model, real_images)
    streams: ClassVar[bool] = True
    quiet: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        rows = subject.test_rows
        first: dict[int, int] = {}
        for place, row in enumerate(rows):
            first.setdefault(row.row, place)  # of several images of one map, the first
        kept = evenly([rows[place] for place in first.values()], _MOST)
        self._chosen = {id(subject.entries[first[row.row]]) for row in kept}
        self._retrieval, self._painting = NearestMap.of(subject.dataset), Painting.of(subject.dataset)
        self._counts: dict[str, list[ConfusionCounts]] = {"ours": [], "nearest": []}
        self._patients: list[str] = []
        self._measured = {name: Measuring(subject.encoder) for name in ("ours", "painted", "real")}

    def add(self, block: Block) -> None:
        """Take the chosen label maps of `block` into account."""
        places = [i for i, entry in enumerate(block.entries) if id(entry) in self._chosen]
        if not places:
            return
        assert block.real is not None
        asked, given = block.asked[places], (block.given & block.known)[places]
        queries = [
            Query(labels.astype(np.int64), ClassStates(tuple(map(bool, states))), block.entries[place].seed)
            for labels, states, place in zip(asked, block.given[places], places, strict=True)
        ]
        nearest = np.stack([image for _, image in self._retrieval.generate(queries)])
        classes = len(self.subject.dataset.schema.names) + 1
        found = {"ours": block.found[places], "nearest": self.subject.segmenter(nearest)}
        for name, segmented in found.items():
            self._counts[name].append(confusion_counts(segmented, asked, classes, counted=given, surfaces=False))
        patients = [block.real.rows[place].patient for place in places]
        self._patients += patients
        painted = np.stack([image for _, image in self._painting.generate(queries)])
        images = {"ours": block.generated[places], "painted": painted, "real": block.real.images.numpy()[places]}
        for name, each in images.items():
            self._measured[name].add(each, patients)

    def finish(self) -> Finding[FloorsResult]:
        """The scores of the floors, and in sentences which of them the model does not beat."""
        names, patients = self.subject.dataset.schema.names, np.array(self._patients)
        ours, nearest = (
            score(names, ConfusionCounts.joined(self._counts[name]).dice_by(patients), np.unique(patients))
            for name in ("ours", "nearest")
        )
        real = self._measured["real"].result
        fid = {name: compare(self._measured[name].result, real, paired=True).fid for name in ("ours", "painted")}
        sentences = [
            *below_retrieval("The model", ours, nearest),
            *below_painting("The model", fid["ours"], fid["painted"]),
        ]
        apart = difference(ours, nearest)
        without = {"per_patient": None}
        return Finding(
            FloorsResult(
                images=len(self._patients),
                dice=ours.model_copy(update=without),
                dice_retrieval=nearest.model_copy(update=without),
                difference=apart.mean if apart is not None else None,
                difference_ci95=apart.ci95 if apart is not None else None,
                fid=fid["ours"],
                fid_painting=fid["painted"],
                sentences=tuple(sentences),
            )
        )
