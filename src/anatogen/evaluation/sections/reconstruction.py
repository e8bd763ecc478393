"""What the autoencoder of a latent model makes of real images: the ceiling that the model can never pass."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation.needs import an_autoencoder, real_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, score
from anatogen.evaluation.subject import Block, Subject
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.model import HasReconstruction
from anatogen.reporting.results import ReconstructionResult

_BATCH = 16
_RANGE = 2.0  # of images in [-1, 1]


class Reconstruction(Section[ReconstructionResult]):
    """Dice and PSNR of the real images of the label maps, once through the autoencoder."""

    name: ClassVar[str] = "reconstruction"
    question: ClassVar[Question] = "faithfulness"
    needs: ClassVar[tuple[Need, ...]] = (an_autoencoder, real_images)
    streams: ClassVar[bool] = True
    quiet: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._counts: list[ConfusionCounts] = []
        self._decibels: list[NDArray[np.float64]] = []

    def add(self, block: Block) -> None:
        """Take the real images of `block` into account."""
        generator = self.subject.required_generator
        assert isinstance(generator, HasReconstruction) and block.real is not None
        real = block.real.images.numpy()
        made = np.concatenate([generator.reconstruct(real[i : i + _BATCH]) for i in range(0, len(real), _BATCH)])
        labels = block.real.truth.numpy()
        names = self.subject.dataset.schema.names
        found = self.subject.segmenter(made)
        self._counts.append(confusion_counts(found, labels, len(names) + 1, counted=block.known, surfaces=False))
        self._decibels.append(decibels(made, real))

    def finish(self) -> Finding[ReconstructionResult]:
        """Dice by patient, and the mean PSNR over images."""
        patients = self.subject.patients()
        dice = ConfusionCounts.joined(self._counts).dice_by(patients)
        values = np.concatenate(self._decibels)
        finite = values[np.isfinite(values)]
        return Finding(
            ReconstructionResult(
                dice=score(self.subject.dataset.schema.names, dice, np.unique(patients)),
                psnr=float(finite.mean()) if len(finite) else float("nan"),
                images=len(values),
            )
        )


def decibels(made: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.float64]:
    """The peak signal-to-noise ratio of each image (N, C, *spatial) in [-1, 1], in dB; infinite for equal ones."""
    error = np.square(made.astype(np.float64) - real).reshape(len(made), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(_RANGE**2 / error))
