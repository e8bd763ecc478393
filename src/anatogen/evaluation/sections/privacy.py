"""Copies of training images: are generated images nearer to them than real images of unseen patients are?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import Row
from anatogen.evaluation.copies import require_training_data, write_privacy
from anatogen.evaluation.sections.base import Finding, Question, Section
from anatogen.evaluation.subject import Block, Subject
from anatogen.judges.copy_search import CopySearch
from anatogen.metrics.copies import CopyRate, copy_rate
from anatogen.metrics.neighbours import Neighbours, closest_pairs, nearest_features
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import CopyFinding, PrivacyResult
from anatogen.reporting.verdicts import certainty

_PAIRS = 10


class Privacy(Section[PrivacyResult]):
    """Nearest training images in pixels and in learned features, beside those of real unseen patients.

    Raises SettingsError where the model was trained on other data.
    """

    name: ClassVar[str] = "privacy"
    question: ClassVar[Question] = "privacy"
    streams: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        require_training_data(subject.samples.header.about_model, subject.dataset)
        super().__init__(subject)
        self.search = CopySearch(subject.dataset)
        self._features_of_training = self._features(self.search.train_rows)
        self._in_pixels: list[Neighbours] = []
        self._in_features: list[Neighbours] = []

    def add(self, block: Block) -> None:
        """Look for the nearest training images of `block`."""
        self._in_pixels.append(self.search.nearest(block.generated))
        self._in_features.append(nearest_features(self.subject.encoder(block.generated), self._features_of_training))

    def finish(self) -> Finding[PrivacyResult]:
        """The copy rate with its verdict, and the closest pairs; the rate is written to the set's privacy.json too."""
        patients, unseen = self.subject.patients(), self.search.heldout_patients
        with stage("unseen patients' nearest", len(self.search.heldout_rows), "images") as bar:
            heldout = self.search.heldout(lambda done, _: bar.update(done))
        made = Neighbours.joined(self._in_pixels)
        rate = copy_rate(made.relative, heldout.relative, patients, unseen)
        unseen_features = nearest_features(self._features(self.search.heldout_rows), self._features_of_training)
        made_features = Neighbours.joined(self._in_features)
        in_features = copy_rate(made_features.relative, unseen_features.relative, patients, unseen)
        write_privacy(self.subject.samples, rate)
        result = PrivacyResult.model_validate(
            {
                **copy_finding(rate).model_dump(),
                "verdict": certainty(rate),
                "features": copy_finding(in_features),
                "attack": None,
            }
        )
        return Finding(result, [self._pairs_figure(made), self._distances_figure(made, heldout, rate)])

    def _features(self, rows: list[Row]) -> NDArray[np.float32]:
        return np.concatenate([self.subject.encoder(batch.images) for batch in self.subject.dataset.batches(rows)])

    def _pairs_figure(self, made: Neighbours) -> Figure:
        cells: list[figures.Picture] = []
        view = figures.View(spacing_mm=self.subject.samples.header.about_model.spacing_mm)
        for image, training in closest_pairs(made, _PAIRS):
            row = self.search.train_rows[training]
            real = self.subject.dataset.load([row]).images[0].numpy()
            generated = self.subject.samples.image(self.subject.entries[image])
            cells.append((f"generated, {made.distance[image]:.3f} from", figures.gray(generated, view)))
            cells.append((f"training: {row.id}", figures.gray(real, view)))
        caption = (
            f"The {len(cells) // 2} generated images that are nearest to a training image, each beside it; the "
            "distance is 1 - correlation of pixels under shifts of up to 2. Look: is it the same image?"
        )
        lines = [cells[start : start + 10] for start in range(0, len(cells), 10)]
        return Figure("closest", "The closest pairs", figures.grid(lines), caption, "privacy")

    def _distances_figure(self, made: Neighbours, heldout: Neighbours, rate: CopyRate) -> Figure:
        values = {"generated": made.relative, "real, unseen patients": heldout.relative}
        caption = (
            "Distance to the nearest training image, over the median distance to the 32 nearest. The dashed line is "
            f"the threshold: about {100 * rate.level:g} % of unseen patients' real images lie below it."
        )
        return Figure(
            "copies",
            "Nearer to the training images than real ones are?",
            figures.distributions(values, line=rate.threshold),
            caption,
            "privacy",
        )


def copy_finding(rate: CopyRate) -> CopyFinding:
    """A copy rate as report.json holds it."""
    return CopyFinding(
        copy_rate=rate.rate,
        ci95=rate.ci95,
        expected=rate.expected,
        p_value=rate.p_value,
        threshold=rate.threshold,
        flagged=int(rate.flagged.sum()),
        above_chance=bool(rate.above_chance),
        detectable=rate.detectable,
        n_generated=rate.n_generated,
        n_heldout=rate.n_heldout,
    )
