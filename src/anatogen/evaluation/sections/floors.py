"""What a learned model has to beat: the nearest training image in Dice, painted classes in realism."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.baselines.painting import Painting
from anatogen.baselines.retrieval import NearestMap
from anatogen.evaluation.comparing import below_painting, below_retrieval, difference
from anatogen.evaluation.needs import a_learned_model, real_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, evenly, score
from anatogen.evaluation.sections.realism import Measured, Measuring, compare
from anatogen.evaluation.subject import Block, Subject
from anatogen.labels import ClassStates
from anatogen.metrics.confusion import confusion_counts
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
        self._queries: list[Query] = []
        self._given: list[NDArray[np.bool_]] = []
        self._found: list[NDArray[np.int64]] = []
        self._images: list[NDArray[np.float32]] = []
        self._real: list[NDArray[np.float32]] = []
        self._patients: list[str] = []

    def add(self, block: Block) -> None:
        """Keep the chosen label maps of `block` and what was made of them."""
        assert block.real is not None
        for place, entry in enumerate(block.entries):
            if id(entry) not in self._chosen:
                continue
            states = ClassStates(tuple(map(bool, block.given[place])))
            self._queries.append(Query(block.asked[place].astype(np.int64), states, entry.seed))
            self._given.append(block.given[place] & block.known[place])
            self._found.append(block.found[place])
            self._images.append(block.generated[place])
            self._real.append(block.real.images[place].numpy())
            self._patients.append(block.real.rows[place].patient)

    def finish(self) -> Finding[FloorsResult]:
        """The scores of the floors, and in sentences which of them the model does not beat."""
        dataset, patients = self.subject.dataset, np.array(self._patients)
        names, asked, given = dataset.schema.names, self._queries, np.stack(self._given)
        truth = np.stack([query.labels for query in asked])
        # All at once, so that the training split is read once.
        nearest = np.stack([image for _, image in NearestMap.of(dataset).generate(asked, batch_size=len(asked))])
        found = {"ours": np.stack(self._found), "nearest": self.subject.segmenter(nearest)}
        counts = {
            name: confusion_counts(each, truth, len(names) + 1, counted=given, surfaces=False)
            for name, each in found.items()
        }
        ours, nearest_score = (score(names, counts[name].dice_by(patients), np.unique(patients)) for name in found)
        painted = np.stack([image for _, image in Painting.of(dataset).generate(asked)])
        real = self._measured(np.stack(self._real))
        fid = {
            name: compare(self._measured(images), real, paired=True).fid
            for name, images in (("ours", np.stack(self._images)), ("painted", painted))
        }
        sentences = [
            *below_retrieval("The model", ours, nearest_score),
            *below_painting("The model", fid["ours"], fid["painted"]),
        ]
        apart = difference(ours, nearest_score)
        without = {"per_patient": None}
        return Finding(
            FloorsResult(
                images=len(self._patients),
                dice=ours.model_copy(update=without),
                dice_retrieval=nearest_score.model_copy(update=without),
                difference=apart.mean if apart is not None else None,
                difference_ci95=apart.ci95 if apart is not None else None,
                fid=fid["ours"],
                fid_painting=fid["painted"],
                sentences=tuple(sentences),
            )
        )

    def _measured(self, images: NDArray[np.float32]) -> Measured:
        measuring = Measuring(self.subject.encoder)
        measuring.add(images, self._patients)
        return measuring.result
