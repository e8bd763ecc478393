"""Do the images look like real ones?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation.sections.base import Block, Subject, evenly
from anatogen.judges.encoder import FEATURES, Encoder
from anatogen.judges.frd import frd_available, radiomics_distance
from anatogen.metrics.distances import (
    CAUTION,
    FeatureMoments,
    Reservoir,
    count_warning,
    frechet_distance,
    kernel_distance,
    mmd,
    precision_recall,
)
from anatogen.metrics.texture import RadialPower, compare_noise, diversity, local_noise
from anatogen.reporting import figures
from anatogen.reporting.report import Figure

_IMAGES_HELD = 512
_FEATURES_HELD = 5000


class Realism:
    """Features, texture, noise and variety of generated images beside those of the real images of the same maps, equally many.

    Each distance is also taken between real images of other patients and these: what a perfect generator would reach. Where
    the label maps are from elsewhere, the real images are the data set's own test images.
    """

    def __init__(self, subject: Subject, encoder: Encoder) -> None:
        self.subject, self.encoder = subject, encoder
        self.generated, self.real = _Side(encoder), _Side(encoder)
        self.more_curves: dict[str, NDArray[np.float64]] = {}

    def add(self, block: Block) -> None:
        """Take the images of `block` and the real ones of the same maps into the statistics."""
        self.generated.add(block.generated)
        if block.real is not None:
            self.real.add(block.real.images.numpy())

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """The measures, each beside that between real images (`_real`), and the figures of texture."""
        made, real = self.generated, self.real
        if not real.count:
            _add_rows(real, self.subject, "test", made.count)
        others = _Side(self.encoder)
        _add_rows(others, self.subject, "val", made.count)
        ratio = made.power.mean / real.power.mean
        noise = made.noises, real.noises, others.noises
        results: dict[str, Any] = {
            "n": {"generated": made.count, "real": real.count, "other_real": others.count},
            **_distances("", made, real),
            **_distances("_real", others, real),
            "noise_ratio": compare_noise(noise[0], noise[1])[0],
            "noise_distance": compare_noise(noise[0], noise[1])[1],
            "noise_ratio_real": compare_noise(noise[2], noise[1])[0],
            "power_ratio": ratio.round(4).tolist(),
            "encoder": self.encoder.digest,
            "caution": CAUTION,
        }
        if frd_available():
            results["frd"] = radiomics_distance(made.images.sample, real.images.sample)
        counts = min(made.count, real.count)
        warnings = [count_warning(m, counts, FEATURES) for m in ("fid", "kid", "mmd", "precision_recall", "diversity")]
        results["warnings"] = [warning for warning in warnings if warning]
        curves = {f"{self.subject.samples.header.sampling.steps} steps": ratio, **self.more_curves}
        caption = (
            "Power of generated over real images in rings of spatial frequency. 1 is right, below is too smooth, above too "
            "noisy. Dice does not see it."
        )
        noise_caption = (
            "The local noise (Immerkaer 1996) of each image, in units of the model's range. Too low is lost texture. "
            "The third curve is of real images of other patients."
        )
        return results, [
            Figure("power", "Is the texture right?", figures.power_against_frequency(curves), caption, "realism"),
            Figure("noise", "Is the noise right?", figures.distributions(_named(*noise)), noise_caption, "realism"),
        ]


class _Side:
    """The running statistics of one set of images; its memory does not depend on their count."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.count = 0
        self.power, self.moments = RadialPower(), FeatureMoments(FEATURES)
        self.features, self.images = Reservoir(_FEATURES_HELD), Reservoir(_IMAGES_HELD)
        self._noise: list[NDArray[np.float64]] = []

    def add(self, images: NDArray[np.float32]) -> None:
        features = self._encoder(images)
        self.count += len(images)
        self.power.update(images)
        self.moments.update(features)
        self.features.update(features)
        self.images.update(images)
        self._noise.append(local_noise(images))

    @property
    def noises(self) -> NDArray[np.float64]:
        return np.concatenate([*self._noise, np.zeros(0)])


def _add_rows(side: _Side, subject: Subject, split: str, most: int) -> None:
    """Add at most `most` real images of a split, spread over it."""
    rows = evenly(subject.dataset.split(split), most)
    for batch in subject.dataset.batches(rows):
        side.add(batch.images.numpy())


def _distances(ending: str, side: _Side, real: _Side) -> dict[str, float]:
    kid, kid_error = kernel_distance(side.features.sample, real.features.sample)
    apart, apart_error = mmd(side.features.sample, real.features.sample)
    precision, recall = precision_recall(side.features.sample, real.features.sample)
    alike, alike_error = diversity(side.images.sample)
    values = {
        "fid": frechet_distance(side.moments, real.moments),
        "kid": kid,
        "kid_error": kid_error,
        "mmd": apart,
        "mmd_error": apart_error,
        "precision": precision,
        "recall": recall,
        "diversity": alike,
        "diversity_error": alike_error,
    }
    return {name + ending: value for name, value in values.items()}


def _named(made: NDArray[np.float64], real: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, Any]:
    named = {"generated": made, "real": real, "other real": others}
    return {name: values[np.isfinite(values)] for name, values in named.items()}
