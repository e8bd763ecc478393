"""Do the images look like real ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import Row
from anatogen.errors import DataError
from anatogen.evaluation.sections.base import Finding, Question, Section, evenly
from anatogen.evaluation.sections.slices import DRAWS, ComparedSlices, Slices, Slicing, compare_slices
from anatogen.evaluation.subject import Block, Subject
from anatogen.generation.sample_set import patient_of
from anatogen.judges.encoder import FEATURES, Encoder
from anatogen.judges.frd import frd_available, radiomics_distance
from anatogen.metrics.distances import CAUTION, Reservoir, count_warning
from anatogen.metrics.halves import (
    TOLERATED,
    Cohort,
    Excess,
    diversity_statistic,
    frechet_excess,
    kid_excess,
    mmd_excess,
    noise_statistic,
    pairs_of_patients,
    precision_recall_excess,
    spectrum_statistic,
    told_apart,
    variety_statistic,
)
from anatogen.metrics.texture import (
    SMALLEST_SIDE,
    compare_noise,
    local_noise,
    neighbour_steps,
    pair_similarities,
    ratio_of_powers,
    ring_powers,
)
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import RealismCount, RealismResult, RealismTest

_IMAGES_HELD = 256
_FEATURES_HELD = 5000
_PAIRS = 128
YARDSTICK = (
    "generated images of patients A beside real images of patients B; _real: real images of A beside the same; means "
    "over halvings of the patients"
)


@dataclass(frozen=True)
class Measured:
    """What realism keeps of N images of a set: features (N, F), rings (N, bands) of their spectra, noise (N,), steps
    between neighbouring pixels along each axis (N, d), and whose they are (N,).

    images: (K, C, H, W), some of them, and their places (K,): the same ones of both sets where these are pairs. slices:
    of volumes, along each axis.
    """

    features: NDArray[np.float64]
    rings: NDArray[np.float64]
    noise: NDArray[np.float64]
    steps: NDArray[np.float64]
    patients: NDArray[np.str_]
    images: NDArray[np.float32]
    places: NDArray[np.int64]
    slices: tuple[Slices, ...] = ()

    def __len__(self) -> int:
        return len(self.noise)


class Measuring:
    """Measures a set that comes in pieces; 1 KB an image is kept (and 24 KB of a volume's slices), and some images.

    slice_encoders: of volumes, one for the slices along each axis; without them slices are not measured.
    """

    def __init__(self, encoder: Encoder, slice_encoders: Sequence[Encoder] = ()) -> None:
        self._encoder, self._slicing = encoder, Slicing(slice_encoders)
        self._parts: list[tuple[NDArray[np.floating], ...]] = []
        self._patients: list[str] = []
        self._images, self._places = Reservoir(_IMAGES_HELD), Reservoir(_IMAGES_HELD)  # the same draws

    def add(
        self, images: NDArray[np.float32], patients: Sequence[str], labels: NDArray[np.integer] | None = None
    ) -> None:
        """Take in images (N, C, *spatial) of `patients` (N,).

        labels: (N, *spatial), through whose labelled part volumes are cut into slices; None: through all of them.
        """
        if not len(images):
            return
        shape = (len(images), *images.shape[2:])
        self._slicing.add(images, np.zeros(shape, np.int64) if labels is None else labels, patients)
        places = np.arange(len(self._patients), len(self._patients) + len(images))
        self._images.update(images)
        self._places.update(places[:, None].astype(np.float32))
        rings = ring_powers(images).astype(np.float32)
        self._parts.append((self._encoder(images), rings, local_noise(images), neighbour_steps(images)))
        self._patients += patients

    def __len__(self) -> int:
        return len(self._patients)

    @property
    def result(self) -> Measured:
        """What was measured. Raises DataError where nothing was added."""
        if not self._patients:
            raise DataError("there are no images to compare", hint="Evaluate a set that holds images")
        parts = (np.concatenate(part).astype(np.float64) for part in zip(*self._parts, strict=True))
        features, rings, noise, steps = parts
        return Measured(
            features,
            rings,
            noise,
            steps,
            np.array(self._patients),
            self._images.sample,
            self._places.sample[:, 0].astype(np.int64),
            self._slicing.result,
        )


class Realism(Section[RealismResult]):
    """Features, texture, noise and variety of generated images of patients A against real images of patients B, beside
    real images of A against the same; see `metrics.halves`.

    Of the images of one label map the first counts, so that both sides are equally many. Where the label maps are from
    elsewhere, the real images are the data set's own test images. Volumes are looked at as slices as well: generated
    and real ones at the same places, those of the real label map, where there is one.
    """

    name: ClassVar[str] = "realism"
    question: ClassVar[Question] = "realism"
    streams: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        encoders = subject.encoder, subject.slice_encoders
        self.generated, self.real = Measuring(*encoders), Measuring(*encoders)
        self._seen: set[int] = set()

    def add(self, block: Block) -> None:
        """Take the images of `block` and the real ones of the same maps into account."""
        if block.real is None:
            self.generated.add(block.generated, [patient_of(entry) for entry in block.entries], block.asked)
            return
        first = [place for place, row in enumerate(block.real.rows) if self._is_first(row)]
        patients = [block.real.rows[place].patient for place in first]
        labels = block.real.labels.numpy()[first]
        self.generated.add(block.generated[first], patients, labels)
        self.real.add(block.real.images.numpy()[first], patients, labels)

    def _is_first(self, row: Row) -> bool:
        before = len(self._seen)
        self._seen.add(row.row)
        return len(self._seen) > before

    def finish(self) -> Finding[RealismResult]:
        """The measures, each beside that between real images (`_real`), the verdict, and the figures of texture."""
        paired = len(self.real) > 0
        if not paired:
            rows = evenly(self.subject.dataset.split("test"), len(self.generated))
            for batch in self.subject.dataset.batches(rows):
                self.real.add(batch.images.numpy(), [row.patient for row in batch.rows], batch.labels.numpy())
        made, real = self.generated.result, self.real.result
        found = compare(made, real, paired=paired)
        about = {"encoder": self.subject.encoder.digest, "yardstick": YARDSTICK, "caution": CAUTION}
        result = found.model_copy(update={**about, "warnings": (*found.warnings, *self._warnings(made))})
        return Finding(result, self._figures(made, real))

    def _figures(self, made: Measured, real: Measured) -> list[Figure]:
        sampling = self.subject.samples.header.sampling
        own = f"{sampling.steps} steps" if sampling is not None else "generated"
        curves = {own: _power_ratio(made, real), **self.subject.power_curves}
        caption = (
            "Power of generated over real images in rings of spatial frequency. 1 is right, below is too smooth, above "
            "too noisy. Dice does not see it."
        )
        noise_caption = (
            "The local noise (Immerkaer 1996) of each image, in units of the model's range, of the generated images "
            "and of the real ones beside them. Too low is lost texture."
        )
        noise = {name: each.noise[np.isfinite(each.noise)] for name, each in (("generated", made), ("real", real))}
        return [
            Figure("power", "Is the texture right?", figures.power_against_frequency(curves), caption, "realism"),
            Figure("noise", "Is the noise right?", figures.distributions(noise), noise_caption, "realism"),
        ]

    def _warnings(self, made: Measured) -> list[str]:
        heldout = {row.patient for row in self.subject.dataset.rows if row.split == "heldout"}
        if heldout & set(made.patients):
            return [
                "The encoder was trained on real images of these patients (split heldout); evaluate images of test "
                "patients instead."
            ]
        return []


def _power_ratio(made: Measured, real: Measured) -> NDArray[np.float64]:
    """(rings,): power of generated over real images."""
    return ratio_of_powers(made.rings.mean(axis=0), real.rings.mean(axis=0)).round(4)


def _continuity(made: Measured, real: Measured) -> tuple[float, ...]:
    """Of volumes along D, H, W: the steps between neighbouring voxels, generated over real; () of slices."""
    if made.steps.shape[1] < 3:
        return ()
    return tuple((made.steps.mean(axis=0) / real.steps.mean(axis=0)).round(4).tolist())


def compare(made: Measured, real: Measured, *, paired: bool) -> RealismResult:
    """What can be said of `made` beside `real`.

    paired: the i-th image of `made` follows the label map of the i-th of `real`. With fewer than two patients on a side
    there is nothing but the texture.
    """
    noise_ratio, noise_distance = compare_noise(made.noise, real.noise)
    patients = len(np.unique(made.patients))
    texture: dict[str, Any] = {
        "n": RealismCount(generated=len(made), real=len(real), patients=patients),
        "noise_ratio": noise_ratio,
        "noise_distance": noise_distance,
        "power_ratio": tuple(_power_ratio(made, real).tolist()),
        "continuity": _continuity(made, real),
        "warnings": (),
    }
    slices = compare_slices(made.slices, real.slices, paired=paired)
    if slices.results:
        texture["slices"] = slices.results
    if min(len(np.unique(side.patients)) for side in (made, real)) < 2:
        nan = float("nan")
        nothing = _entries(dict.fromkeys(("fid", "kid", "mmd", "precision", "recall"), Excess(nan, nan, nan, nan)))
        return RealismResult.model_validate({**texture, **nothing, "test": None})
    found = _over_halves(made, real, slices, paired)
    half = min(len(made), len(real)) // 2
    warnings = [count_warning(m, half, FEATURES) for m in ("fid", "kid", "mmd", "precision_recall")]
    return RealismResult.model_validate(
        {**texture, **found, "warnings": tuple(warning for warning in warnings if warning)}
    )


def _over_halves(made: Measured, real: Measured, slices: ComparedSlices, paired: bool) -> dict[str, Any]:
    """The measures that compare patients A and B, and the verdict."""
    draws = DRAWS if made.slices else 999
    cohort = Cohort.of(made.patients, real.patients, paired=paired, draws=draws)
    kept = [_some(len(side)) for side in (made, real)]
    features = [side.features[places] for side, places in zip((made, real), kept, strict=True)]
    of_features = Cohort.of(made.patients[kept[0]], real.patients[kept[1]], paired=paired, draws=draws)
    kid, mmd = kid_excess(of_features, *features), mmd_excess(of_features, *features)
    precision, recall = precision_recall_excess(of_features, *features)
    excesses = {"fid": frechet_excess(of_features, *features), "kid": kid, "mmd": mmd}
    excesses |= {"precision": precision, "recall": recall}
    noise = np.array([compare_noise(real.noise[a], real.noise[b])[0] for _, a, b in map(cohort.sides, range(8))])
    variety, *nearest = variety_statistic(of_features, *features)
    statistics = {
        "mmd": mmd.statistic,
        "noise": noise_statistic(cohort, made.noise, real.noise),
        "spectrum": spectrum_statistic(cohort, made.rings, real.rings),
        "variety": variety,
        **slices.statistics,
    }
    sizes = {
        "mmd": float(mmd.statistic[0]),
        **{name: float(statistic[0]) for name, statistic in slices.statistics.items()},
        "noise": float(np.expm1(statistics["noise"][0])),
        "variety": float(variety[0]),
        "spectrum": float(np.abs(_power_ratio(made, real) - 1).max()),
    }
    found: dict[str, Any] = _entries(excesses) | {
        "noise_ratio_real": float(np.mean(noise)),
        "variety": nearest[0],
        "variety_real": nearest[1],
    }
    if min(made.images.shape[2:]) >= SMALLEST_SIDE:
        found |= _diversity(cohort, made, real, statistics, sizes)
    if frd_available():
        found |= _radiomics(cohort, made, real)
    verdict = told_apart(cohort, statistics, sizes)
    found["test"] = RealismTest(
        p_value=verdict.p_value,
        p_of=dict(verdict.p_of),
        told_apart_by=tuple(verdict.by),
        decided=bool(verdict.decided),
        patients=verdict.patients,
        least_p=verdict.least_p,
        tolerated=dict(TOLERATED),
        same_maps=paired,
    )
    return found


def _entries(excesses: dict[str, Excess]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, each in excesses.items():
        found |= {name: each.value, f"{name}_real": each.real}
        found |= {f"{name}_spread": each.value_spread, f"{name}_real_spread": each.real_spread}
    return found


def _some(count: int) -> NDArray[np.int64]:
    """All places, or as many as features are compared of, in their order; the same for sets of one count."""
    if count <= _FEATURES_HELD:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, _FEATURES_HELD, replace=False))


def _diversity(
    cohort: Cohort, made: Measured, real: Measured, statistics: dict[str, NDArray[np.float64]], sizes: dict[str, float]
) -> dict[str, float]:
    """MS-SSIM of pairs of images of different patients; tested where both sides have the same label maps."""
    if cohort.paired:
        first, second = pairs_of_patients(made.patients[made.places], _PAIRS)
        scores = pair_similarities(made.images, real.images, first, second)
        whose = cohort.generated[made.places]
        statistics["diversity"] = diversity_statistic(cohort, whose[first], whose[second], scores)
        sizes["diversity"] = float(statistics["diversity"][0])
        return {"diversity": float(scores[:, 0, 0].mean()), "diversity_real": float(scores[:, 1, 1].mean())}
    found = {}
    for name, side in (("diversity", made), ("diversity_real", real)):
        pairs = pairs_of_patients(side.patients[side.places], _PAIRS)
        found[name] = float(pair_similarities(side.images, side.images, *pairs)[:, 0, 0].mean())
    return found


def _radiomics(cohort: Cohort, made: Measured, real: Measured) -> dict[str, float]:
    """FRD of the images that were kept, in one halving."""
    of_made, a, b = cohort.sides(0)
    other = real.images[b[real.places]]
    return {
        "frd": radiomics_distance(made.images[of_made[made.places]], other),
        "frd_real": radiomics_distance(real.images[a[real.places]], other),
    }
