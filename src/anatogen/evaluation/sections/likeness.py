"""Images alike to real ones: does likeness follow --similarity, and is the anatomy still obeyed? (Konz et al. 2024, 3.2.2)"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation.sections.base import Block, Subject, summary
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.reporting import figures
from anatogen.reporting.report import Figure


class Likeness:
    """Correlation with the real image, and Dice on given and on free classes, at each similarity of an interpolated set."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._parts: dict[str, list[NDArray[Any]]] = {"similarity": [], "alike": [], "rms": [], "given": []}
        self._counts: list[ConfusionCounts] = []
        self._found: list[ConfusionCounts] = []

    def add(self, block: Block) -> None:
        """Compare the images of `block` that are alike to a real one."""
        if block.real is None or block.found_in_real is None or any(e.similarity is None for e in block.entries):
            return
        real = block.real.images.numpy()
        self._parts["similarity"].append(np.array([entry.similarity for entry in block.entries]))
        self._parts["alike"].append(correlation(block.generated, real))
        self._parts["rms"].append(np.sqrt(((block.generated - real) ** 2).mean(axis=tuple(range(1, real.ndim)))))
        self._parts["given"].append(block.given)
        count = self.subject.dataset.schema.count
        self._counts.append(confusion_counts(block.found, block.asked, count, 1.0, block.known, surfaces=False))
        self._found.append(confusion_counts(block.found, block.found_in_real, count, 1.0, block.known, surfaces=False))

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """A row a similarity, and a plot where there are several."""
        if not self._counts:
            return {}, []
        parts = {name: np.concatenate(values) for name, values in self._parts.items()}
        patients, names = self.subject.patients(), self.subject.dataset.schema.names
        given = ConfusionCounts.joined(self._counts).where(parts["given"])
        free = ConfusionCounts.joined(self._found).where(~parts["given"])
        rows = []
        for value in np.unique(parts["similarity"]):
            chosen = parts["similarity"] == value
            row: dict[str, Any] = {"similarity": float(value), "n": int(chosen.sum())}
            row["correlation"] = float(parts["alike"][chosen].mean())
            row["rms_difference"] = float(parts["rms"][chosen].mean())
            row["dice_given"] = summary(names, given.of(chosen).dice_by(patients[chosen]))
            row["dice_free_with_real"] = summary(names, free.of(chosen).dice_by(patients[chosen]))
            rows.append(row)
        if len(rows) < 2:
            return {"by_similarity": rows}, []
        picture = figures.likeness(rows)
        caption = (
            "Correlation of the generated with the real image, and Dice(m_gen, m) on the classes that were given, against --similarity; "
            f"{rows[0]['n']} images at each."
        )
        return {"by_similarity": rows}, [Figure("likeness", "Does likeness follow --similarity?", picture, caption)]


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson's correlation of the pixels of two images, for each pair of (N, C, *spatial): (N,), 1 alike, 0 unrelated."""
    x, y = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    return np.asarray((x * y).sum(axis=1) / np.maximum(np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1)), 1e-12))
