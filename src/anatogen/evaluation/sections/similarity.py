"""Images made similar to real ones: does the similarity follow --similarity, and is the anatomy still followed? (Konz
et al. 2024, 3.2.2)
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation.needs import real_images, similar_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, score
from anatogen.evaluation.subject import Block, Subject
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import SimilarityResult, SimilarityRow


class Similarity(Section[SimilarityResult]):
    """Correlation with the real image, and Dice on given and on free classes, at each similarity of an interpolated
    set.
    """

    name: ClassVar[str] = "similarity"
    question: ClassVar[Question] = "faithfulness"
    needs: ClassVar[tuple[Need, ...]] = (similar_images, real_images)
    streams: ClassVar[bool] = True
    without: ClassVar[Any] = SimilarityResult()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._parts: dict[str, list[NDArray[Any]]] = {"similarity": [], "correlation": [], "rms": [], "given": []}
        self._asked: list[ConfusionCounts] = []
        self._real: list[ConfusionCounts] = []

    def add(self, block: Block) -> None:
        """Compare the images of `block` with the real ones."""
        if block.real is None or block.found_in_real is None:
            return
        real = block.real.images.numpy()
        self._parts["similarity"].append(np.array([entry.similarity for entry in block.entries]))
        self._parts["correlation"].append(correlation(block.generated, real))
        self._parts["rms"].append(np.sqrt(((block.generated - real) ** 2).mean(axis=tuple(range(1, real.ndim)))))
        self._parts["given"].append(block.given)
        count = self.subject.dataset.schema.count
        self._asked.append(confusion_counts(block.found, block.asked, count, 1.0, block.known, surfaces=False))
        self._real.append(confusion_counts(block.found, block.found_in_real, count, 1.0, block.known, surfaces=False))

    def finish(self) -> Finding[SimilarityResult]:
        """A row a similarity, and a plot where there are several."""
        parts = {name: np.concatenate(values) for name, values in self._parts.items()}
        patients, names = self.subject.patients(), self.subject.dataset.schema.names
        given = ConfusionCounts.joined(self._asked).where(parts["given"])
        free = ConfusionCounts.joined(self._real).where(~parts["given"])
        rows = []
        for value in np.unique(parts["similarity"]):
            chosen = parts["similarity"] == value
            rows.append(
                SimilarityRow(
                    similarity=float(value),
                    n=int(chosen.sum()),
                    correlation=float(parts["correlation"][chosen].mean()),
                    rms_difference=float(parts["rms"][chosen].mean()),
                    dice_given=score(names, given.of(chosen).dice_by(patients[chosen])),
                    dice_free_with_real=score(names, free.of(chosen).dice_by(patients[chosen])),
                )
            )
        result = SimilarityResult(by_similarity=tuple(rows))
        if len(rows) < 2:
            return Finding(result)
        caption = (
            "Correlation of the generated with the real image, and Dice(m_gen, m) on the classes that were given, "
            f"against --similarity; {rows[0].n} images at each."
        )
        heading = "Does the similarity follow --similarity?"
        return Finding(result, [Figure("similarity", heading, figures.similarity(rows), caption)])


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson's correlation of the pixels of two images, for each pair of (N, C, *spatial): (N,), 1 the same, 0
    unrelated.
    """
    x, y = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    return np.asarray((x * y).sum(axis=1) / np.maximum(np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)), 1e-12))
