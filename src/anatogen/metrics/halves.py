"""Can generated images be told from real ones? Generated images of patients A against real images of patients B.

Generated images follow the label maps of real patients. Compared with real images of the same patients they look closer
than independent images could be, and compared with those of other patients farther away than they should. So patients
are halved repeatedly: the distance between generated A and real B is compared with that between real A and real B, with
the same anatomies and the same counts on both sides. The excess, averaged over the halvings, is tested by permutation
of patients: if the generator draws from the distribution of real images, a patient's generated and real images are
exchangeable.

Images of one patient are not independent, so a patient counts as one observation throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError
from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.metrics.distances import (
    FeatureMoments,
    cubic_kernel,
    frechet_distance,
    gaussian_kernel,
    median_distance,
    precision_recall,
)
from anatogen.metrics.intervals import TOO_FEW, Mean, mean_interval

Floats = NDArray[np.float64]
Kernel = Callable[[Floats, Floats], Floats]

_BLOCK = 2048
_BLOCK_VALUES = 2**20  # compared at a time
_FLOOR = 1e-6  # of noise, in the model's range; below it an image is flat
TOLERATED: Mapping[str, float] = {
    "kid": 0.001,
    "mmd": 0.001,
    "noise": 0.05,
    "spectrum": 0.1,
    "diversity": 0.02,
    "variety": 0.02,
    "slices_D": 0.001,
    "slices_H": 0.001,
    "slices_W": 0.001,
}
"""Differences up to these do not count even if significant; storing images in 8 bits causes such, for instance.

mmd, slices: over the distance of two single real images. noise: relative. spectrum: relative power of a ring.
diversity: MS-SSIM. variety: over the typical distance.
"""


@dataclass(frozen=True)
class Cohort:
    """Which image belongs to which patient on both sides, and how patients are halved and permuted.

    The patients of both sides are positions 0..n-1, the generated ones first.

    Attributes:
        generated: (N,), the position of each generated image.
        real: (M,), the position of each real image.
        sizes: (n,), the number of images of each position.
        paired: Whether the p-th position of either side is the same patient.
        made_a: Bool (splits, n), the generated patients of A.
        real_a: Bool (splits, n), the real patients of A.
        real_b: Bool (splits, n), the real patients of B.
        deals: (draws + 1, n), permutations: whose images take each position; the first is the identity.
    """

    generated: NDArray[np.int64]
    real: NDArray[np.int64]
    sizes: NDArray[np.int64]
    paired: bool
    made_a: NDArray[np.bool_]
    real_a: NDArray[np.bool_]
    real_b: NDArray[np.bool_]
    deals: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        generated: NDArray[np.generic],
        real: NDArray[np.generic],
        *,
        paired: bool = True,
        splits: int = 32,
        draws: int = 999,
        seed: int = 0,
    ) -> Cohort:
        """Draw halvings and permutations.

        Args:
            generated: (N,), the patient of each generated image.
            real: (M,), the patient of each real image.
            paired: The i-th generated image follows the label map of the i-th real one; otherwise the generated images
                follow maps of other patients.
            splits: Number of halvings.
            draws: Number of permutations.
            seed: Of both.

        Raises:
            DataError: A side has fewer than two patients, or `paired` sides differ in their patients.
        """
        made, of_made = np.unique(generated, return_inverse=True)
        true, of_true = np.unique(real, return_inverse=True)
        if paired and (len(generated) != len(real) or not np.array_equal(generated, real)):
            raise DataError("generated and real images are not paired", hint="Pass the real image of each label map")
        if min(len(made), len(true)) < 2:
            raise DataError("realism needs images of at least two patients", hint="Generate images of more label maps")
        rng = np.random.default_rng(seed)
        roles = _halves(len(made), len(true), paired, splits, rng)
        deals = _swaps(len(made), draws, rng) if paired else _deals(len(made) + len(true), draws, rng)
        sizes = np.concatenate([np.bincount(of_made), np.bincount(of_true)])
        return cls(of_made, of_true + len(made), sizes, paired, *roles, deals)

    @property
    def patients(self) -> int:
        """Number of generated patients, also of the real ones where `paired`."""
        return int(self.generated.max()) + 1

    @property
    def least_p(self) -> float:
        """The smallest p-value that this number of patients allows."""
        both = len(self.sizes)
        orders = 2 ** (self.patients - 1) if self.paired else math.comb(both, self.patients)
        return 1 / min(orders, len(self.deals))

    def sides(self, split: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which generated images are of A (N,), and which real ones are of A and of B (M,)."""
        return self.made_a[split][self.generated], self.real_a[split][self.real], self.real_b[split][self.real]

    def block_means(self, generated: Floats, real: Floats) -> Floats:
        """Means (n, ...) by position of image values (N, ...), (M, ...), NaN left out; NaN where nothing is left."""
        values, who = np.concatenate([generated, real]), np.concatenate([self.generated, self.real])
        there = np.isfinite(values)
        sums, counts = (np.zeros((len(self.sizes), *values.shape[1:])) for _ in range(2))
        np.add.at(sums, who, np.where(there, values, 0))
        np.add.at(counts, who, there)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


@dataclass(frozen=True)
class Excess:
    """A distance between generated A and real B, beside that between real A and real B.

    Attributes:
        value: Generated A against real B, averaged over the halvings.
        real: Real A against real B, averaged over the halvings.
        value_spread: Standard deviation of `value` over the halvings.
        real_spread: Standard deviation of `real` over the halvings.
        of_deals: (draws + 1,), the statistic of every permutation, the identity first; None where it is not tested.
        scale: The distance between two single real images, in which `statistic` is measured.
        by_patient: (patients, 1), or (n, 2) where the sides are not paired: scores whose mean is that of all generated
            against all real images, and whose spread between patients is its error; None where it was not asked for.
    """

    value: float
    real: float
    value_spread: float
    real_spread: float
    of_deals: Floats | None = None
    scale: float = math.nan
    by_patient: Floats | None = None

    @property
    def statistic(self) -> Floats:
        """(draws + 1,), the statistic of every permutation in units of its scale; empty where it is not tested."""
        if self.of_deals is None:
            return np.zeros(0)
        return self.of_deals / self.scale if self.scale > 0 else np.zeros_like(self.of_deals)

    @property
    def overall(self) -> Mean:
        """The distance between all generated and all real images, of different patients, and its interval.

        It is what `value` exceeds `real` by, over every possible halving: between real images, that is 0 by itself. The
        95 % interval over patients is that of `mean_interval` over the jackknife's scores: what the distance loses with
        each patient. In simulations of 4 to 30 patients with four images each (Gaussian kernel; equal distributions,
        and such apart by 0.3 and 1 standard deviation) it covers the true distance in 93 to 99.7 % of 150 to 300 draws,
        most where both distributions are equal. NaN where `value` is.

        Raises:
            ValueError: No interval was asked for.
        """
        if self.of_deals is None or self.by_patient is None:
            raise ValueError("no interval was asked for")
        if not math.isfinite(self.value):
            return Mean(math.nan, None, TOO_FEW)
        if np.isnan(self.by_patient).all(axis=0).any():  # a side of two patients has no spread between three
            return Mean(float(self.of_deals[0]), None, TOO_FEW)
        return mean_interval(self.by_patient)


@dataclass(frozen=True)
class ToldApart:
    """The verdict over several measures.

    Attributes:
        p_value: Probability by chance of a difference as large in any measure.
        p_of: The p-value of each measure, corrected for the number of measures.
        by: The measures in which generated images differ from real ones, by more than `TOLERATED`.
        patients: Number of patients.
        least_p: The smallest p-value that this number of patients allows.
    """

    p_value: float
    p_of: dict[str, float]
    by: tuple[str, ...]
    patients: int
    least_p: float

    @property
    def decided(self) -> bool:
        """Whether there are enough patients for a single measure to be significant."""
        return len(self.p_of) * self.least_p < SIGNIFICANCE


def kernel_excess(cohort: Cohort, generated: Floats, real: Floats, kernel: Kernel, *, interval: bool = False) -> Excess:
    """The squared MMD (Gretton et al. 2012, eq. 3) between two sides under `kernel`, tested by permutation.

    Only images of different patients are compared, so the estimate is unbiased by patient: around 0 between real A and
    real B, whatever the images of one patient have in common. The statistic compares all generated with all real
    images. Everything follows from sums of the kernel over pairs of patients, so that a permutation costs a matrix
    product and no kernel evaluation.

    Args:
        cohort: The patients.
        generated: Features (N, F).
        real: Features (M, F).
        kernel: A function of two sets of features.
        interval: Whether its interval is wanted, which takes as long as a permutation for each patient.

    Returns:
        The excess; NaN, with 0 for all permutations, for fewer than four patients.
    """
    sums, selves = _block_sums(cohort, generated, real, kernel)
    own, count = sums.diagonal(), cohort.patients
    sizes = cohort.sizes.astype(np.float64)
    made_a, real_a, real_b = (
        np.asarray(side, dtype=np.float64) for side in (cohort.made_a, cohort.real_a, cohort.real_b)
    )
    of_made, of_real = (_between(sums, sizes, side, real_b) for side in (made_a, real_a))
    dealt = np.zeros((len(cohort.deals), len(sizes)))
    np.put_along_axis(dealt, cohort.deals[:, :count], 1.0, axis=1)
    partners = count if cohort.paired else 0
    of_deals = _between(sums, sizes, dealt, 1 - dealt, partners)
    true = np.arange(len(sizes)) >= count
    typical = (sums[np.ix_(true, true)].sum() - own[true].sum()) / (sizes[true].sum() ** 2 - (sizes[true] ** 2).sum())
    scale = float(selves[true].sum() / sizes[true].sum() - typical)
    return Excess(
        float(of_made.mean()),
        float(of_real.mean()),
        float(of_made.std()),
        float(of_real.std()),
        of_deals,
        scale,
        _by_patient(sums, sizes, true, partners) if interval else None,
    )


def kid_excess(cohort: Cohort, generated: Floats, real: Floats) -> Excess:
    """KID (Binkowski et al. 2018), of whole halves instead of subsets."""
    return kernel_excess(cohort, generated, real, cubic_kernel)


def mmd_excess(cohort: Cohort, generated: Floats, real: Floats, *, seed: int = 0, interval: bool = False) -> Excess:
    """MMD with a Gaussian kernel. Its bandwidth is the median distance of all images, which no permutation changes."""
    width = median_distance(np.concatenate([generated, real]), seed=seed)
    return kernel_excess(cohort, generated, real, gaussian_kernel(width if width > 0 else 1.0), interval=interval)


def frechet_excess(cohort: Cohort, generated: Floats, real: Floats, *, splits: int = 8) -> Excess:
    """FID over the first `splits` halvings; not tested. Its bias for few images is the same on both sides."""
    found = []
    for split in range(min(splits, len(cohort.made_a))):
        made, a, b = cohort.sides(split)
        of_b = FeatureMoments.of(real[b])
        found.append([frechet_distance(FeatureMoments.of(side), of_b) for side in (generated[made], real[a])])
    return _over_splits(np.array(found))


def precision_recall_excess(
    cohort: Cohort, generated: Floats, real: Floats, *, splits: int = 8
) -> tuple[Excess, Excess]:
    """Precision and recall (Kynkaanniemi et al. 2019) over the first `splits` halvings; not tested."""
    found = []
    for split in range(min(splits, len(cohort.made_a))):
        made, a, b = cohort.sides(split)
        found.append([precision_recall(side, real[b]) for side in (generated[made], real[a])])
    values = np.array(found)  # (splits, 2 sides, precision and recall)
    return _over_splits(values[..., 0]), _over_splits(values[..., 1])


def noise_statistic(cohort: Cohort, generated: Floats, real: Floats) -> Floats:
    """(draws + 1,): the difference of the patients' mean log `local_noise` (N,), (M,), for every permutation."""
    logs = (np.log(np.maximum(values, _FLOOR)) for values in (generated, real))
    return np.abs(_differences(cohort, cohort.block_means(*logs)[:, None])[:, 0])


def spectrum_statistic(cohort: Cohort, generated: Floats, real: Floats) -> Floats:
    """(draws + 1,): the largest difference of any ring's mean log power (N, rings), (M, rings), for every permutation.

    Differences are in units of the ring's spread between patients.
    """
    means = cohort.block_means(*(np.log(np.maximum(values, 1e-12)) for values in (generated, real)))
    count = cohort.patients
    apart = means[:count] - means[count:] if cohort.paired else means - np.nanmean(means, axis=0)
    scale = np.sqrt(np.nanmean(apart**2, axis=0))  # the same for every permutation
    differences = np.abs(_differences(cohort, means))
    return np.asarray(np.divide(differences, scale, out=np.zeros_like(differences), where=scale > 0).max(axis=1))


def diversity_statistic(cohort: Cohort, first: NDArray[np.int64], second: NDArray[np.int64], scores: Floats) -> Floats:
    """(draws + 1,): the difference between the mean MS-SSIM of generated and of real pairs, for every permutation.

    Args:
        cohort: A paired cohort.
        first: (K,), the patient of the first image of each pair.
        second: (K,), the patient of the second image.
        scores: (K, 2, 2), of the first image, generated or real, with the second; see `pair_similarities`.
    """
    pairs, count = np.arange(len(first)), cohort.patients
    swapped = (cohort.deals[:, :count] >= count).astype(np.int64)  # (draws + 1, patients)
    i, j = swapped[:, first], swapped[:, second]
    return np.abs((scores[pairs, i, j] - scores[pairs, 1 - i, 1 - j]).mean(axis=1))


def variety_statistic(cohort: Cohort, generated: Floats, real: Floats) -> tuple[Floats, float, float]:
    """How much closer generated images lie to each other than real ones.

    For each image the distance of its features to the nearest image of another patient on its side counts. A generator
    that repeats few images scores near 0, however realistic each of them is.

    Args:
        cohort: The patients.
        generated: Features (N, F).
        real: Features (M, F).

    Returns:
        The statistic (draws + 1,) of every permutation in units of the typical distance, and the observed mean
        distances of the generated and of the real side.
    """
    from scipy.spatial.distance import cdist

    features, who = np.concatenate([generated, real]), np.concatenate([cohort.generated, cohort.real])
    order = np.argsort(who, kind="stable")
    features, who = np.asarray(features, dtype=np.float64)[order], who[order]
    starts = np.concatenate([[0], np.cumsum(cohort.sizes)[:-1]])
    nearest = np.empty((len(who), len(cohort.sizes)))  # to the images of each position
    for start in range(0, len(who), _BLOCK):
        distances = cdist(features[start : start + _BLOCK], features)
        nearest[start : start + _BLOCK] = np.minimum.reduceat(distances, starts, axis=1)
    typical = float(nearest.mean())
    nearest[np.arange(len(who)), who] = np.inf
    means = np.empty((len(cohort.deals), 2))
    own = np.zeros((len(cohort.deals), len(cohort.sizes)), dtype=bool)
    np.put_along_axis(own, cohort.deals[:, : cohort.patients], True, axis=1)
    at_once = max(1, _BLOCK_VALUES // nearest.size)
    for start in range(0, len(own), at_once):
        some = slice(start, start + at_once)
        for side, chosen in enumerate((own[some], ~own[some])):
            closest = np.where(chosen[:, None], nearest, np.inf).min(axis=2)  # (deals, images)
            there = chosen[:, who]
            means[some, side] = np.where(there, closest, 0.0).sum(axis=1) / there.sum(axis=1)
    return (means[:, 1] - means[:, 0]) / max(typical, np.finfo(float).tiny), float(means[0, 0]), float(means[0, 1])


def told_apart(cohort: Cohort, statistics: Mapping[str, Floats], sizes: Mapping[str, float]) -> ToldApart:
    """The verdict over several measures, by the single-step minimum p of Westfall and Young (1993).

    The correction keeps the level whatever the number of measures. Where one measure alone exceeds all other
    permutations, its p-value is at most the number of measures times the smallest p-value that this number of patients
    allows: `decided` follows from this.

    Args:
        cohort: The patients.
        statistics: (draws + 1,) of each measure, at most of order 1, larger for larger differences, the identity first.
        sizes: The observed difference in each measure, in the units of `TOLERATED`.
    """
    table = np.stack([np.asarray(values, dtype=np.float64) for values in statistics.values()], axis=1)
    table = np.where(np.isfinite(table), table, 0.0)
    count = len(table)
    ordered = np.sort(table, axis=0)
    # Differences below 1e-9 are rounding.
    lower = np.stack([column.searchsorted(of - 1e-9) for column, of in zip(ordered.T, table.T, strict=True)], axis=1)
    chance = (count - lower) / count  # of each permutation in each measure
    smallest = chance.min(axis=1)
    p_of = {name: float((smallest <= own + 1e-12).mean()) for name, own in zip(statistics, chance[0], strict=True)}
    by = tuple(name for name, p in p_of.items() if p < SIGNIFICANCE and sizes[name] > TOLERATED.get(name, 0))
    return ToldApart(min(p_of.values()), p_of, by, cohort.patients, cohort.least_p)


def pairs_of_patients(
    patients: NDArray[np.generic], count: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places (at most `count` each) of distinct random pairs of images of different patients, of `patients` (N,)."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(len(patients), size=20 * count) for _ in range(2))
    low, high = np.minimum(first, second), np.maximum(first, second)
    keep = patients[low] != patients[high]
    _, places = np.unique(low[keep] * len(patients) + high[keep], return_index=True)
    places = np.sort(places)[:count]
    return low[keep][places], high[keep][places]


def _halves(
    made: int, true: int, paired: bool, splits: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Generated A, real A and real B, bool (splits, made + true) each; a halving is followed by its reverse."""
    half = min(true // 2, made)
    made_a, real_a, real_b = (np.zeros((splits, made + true), dtype=bool) for _ in range(3))
    order = np.arange(true)
    for split in range(splits):
        if split % 2 == 0:
            order = rng.permutation(true)
        else:
            order = np.concatenate([order[half : 2 * half], order[:half]])
        a, b = order[:half], order[half : 2 * half]
        real_a[split, made + a] = real_b[split, made + b] = True
        made_a[split, a if paired else rng.permutation(made)[:half]] = True
    return made_a, real_a, real_b


def _swaps(patients: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Permutations that exchange some patients' generated and real images: all of them where there are at most `draws`.

    The first patient is never exchanged: every statistic is invariant to exchanging the two sides.
    """
    others = patients - 1
    if 2 ** min(others, 62) <= draws + 1:
        swapped = (np.arange(2**others)[:, None] >> np.arange(others)) & 1
    else:
        swapped = np.concatenate([np.zeros((1, others), np.int64), rng.integers(2, size=(draws, others))])
    swapped = np.concatenate([np.zeros((len(swapped), 1), np.int64), swapped], axis=1)
    places = np.arange(patients) + patients * swapped
    return np.concatenate([places, (places + patients) % (2 * patients)], axis=1)


def _deals(both: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random permutations of all patients over both sides."""
    return np.stack([np.arange(both), *(rng.permutation(both) for _ in range(draws))])


def _differences(cohort: Cohort, means: Floats) -> Floats:
    """(draws + 1, columns): generated minus real mean of the permuted `means` (n, columns).

    A patient without a value is left out, on both sides where they are paired.
    """
    count = cohort.patients
    there = np.isfinite(means)
    if cohort.paired:
        both = there[:count] & there[count:]
        there = np.concatenate([both, both])
    filled = np.where(there, means, 0.0)
    result = np.empty((len(cohort.deals), means.shape[1]))
    for i, deal in enumerate(cohort.deals):
        sums, counts = filled[deal], there[deal]
        made, true = (
            sums[side].sum(axis=0) / np.maximum(counts[side].sum(axis=0), 1)
            for side in (slice(count), slice(count, None))
        )
        result[i] = made - true
    return result


def _block_sums(cohort: Cohort, generated: Floats, real: Floats, kernel: Kernel) -> tuple[Floats, Floats]:
    """Sums of the kernel over the pairs of two positions' images (n, n), and over each image with itself (n,)."""
    features = np.concatenate([np.asarray(side, dtype=np.float64) for side in (generated, real)])
    who, n = np.concatenate([cohort.generated, cohort.real]), len(cohort.sizes)
    order = np.argsort(who, kind="stable")
    features, who = features[order], who[order]
    starts = np.concatenate([[0], np.cumsum(cohort.sizes)[:-1]])
    sums, selves = np.zeros((n, n)), np.zeros(n)
    for start in range(0, len(features), _BLOCK):
        part, whose = features[start : start + _BLOCK], who[start : start + _BLOCK]
        values = kernel(part, features)
        np.add.at(sums, whose, np.add.reduceat(values, starts, axis=1))
        np.add.at(selves, whose, values[np.arange(len(part)), start + np.arange(len(part))])
    return sums, selves


def _between(sums: Floats, sizes: Floats, x: Floats, y: Floats, partners: int = 0) -> Floats:
    """The squared MMD (K,) between sides x and y, (K, n) in {0, 1}, from sums of the kernel (n, n) over pairs of
    positions with `sizes` (n,) images; never of images of one position.

    partners: the number of patients where position p and p + partners are the same one, so that the pair is left out.
    """

    def within(z: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(
                (np.einsum("kn,kn->k", z @ sums, z) - z @ sums.diagonal()) / ((z @ sizes) ** 2 - z @ sizes**2)
            )

    cross, pairs = np.einsum("kn,kn->k", x @ sums, y), (x @ sizes) * (y @ sizes)
    if partners:
        mates = x[:, :partners] * y[:, partners:] + x[:, partners:] * y[:, :partners]
        cross = cross - mates @ sums[:partners, partners:].diagonal()
        pairs = pairs - mates @ (sizes[:partners] * sizes[partners:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(within(x) + within(y) - 2 * cross / pairs)


def _by_patient(sums: Floats, sizes: Floats, true: NDArray[np.bool_], partners: int) -> Floats:
    """The jackknife's scores of `_between` all generated and all real images: see `Excess.by_patient`.

    A patient's score is the distance, plus what it loses without that patient times the number of the others. Where the
    sides have different patients, a side's scores move about the distance by twice that, because `mean_interval` takes
    the mean of both columns.
    """
    n = len(sizes)
    sides = [np.arange(partners)] if partners else [np.flatnonzero(~true), np.flatnonzero(true)]
    whole = np.ones((1, n))
    value = _between(sums, sizes, whole * ~true, whole * true, partners)[0]
    scores = np.full((partners or n, len(sides)), np.nan)
    for column, patients in enumerate(sides):
        left = np.ones((len(patients), n))
        left[np.arange(len(patients)), patients] = 0
        if partners:
            left[np.arange(len(patients)), patients + partners] = 0
        lost = value - _between(sums, sizes, left * ~true, left * true, partners)
        scores[patients, column] = value + len(sides) * (len(patients) - 1) * (lost - lost.mean())
    return scores


def _over_splits(values: Floats) -> Excess:
    """From (splits, 2): generated A against real B, and real A against real B."""
    means, spreads = values.mean(axis=0), values.std(axis=0)
    return Excess(float(means[0]), float(means[1]), float(spreads[0]), float(spreads[1]))
