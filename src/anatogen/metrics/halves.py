"""Can generated images be told from real ones? Generated images of patients A against real images of patients B, beside real
images of A against real images of B.

Generated images follow the label maps of real patients. Beside the real images of the same patients they look closer than any
independent images could be, and beside those of other patients farther away than they should. So patients are halved, again and
again: what lies between generated A and real B has its yardstick in what lies between real A and real B, with the same anatomies and
the same counts on both sides. The excess, averaged over the halvings, is tested by permutation of patients: under the hypothesis
that the generator draws from the distribution of real images, a patient's generated and real images may change places.

Images of one patient are not independent; everything here treats a patient as one observation.
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

Floats = NDArray[np.float64]
Kernel = Callable[[Floats, Floats], Floats]

_BLOCK = 2048
_FLOOR = 1e-6  # of noise, in the model's range: less is flat
TOLERATED: Mapping[str, float] = {
    "kid": 0.001,
    "mmd": 0.001,
    "noise": 0.05,
    "spectrum": 0.1,
    "diversity": 0.02,
    "variety": 0.02,
}
"""Up to here a difference does not count, however certain it is: what storing an image in 8 bits does, for instance. mmd: over
what lies between two single real images; noise: relative; spectrum: relative power of a ring; diversity: MS-SSIM; variety: over the typical distance."""


@dataclass(frozen=True)
class Cohort:
    """Whose image is whose, on both sides, and how patients are halved and dealt anew.

    The sides' patients are positions 0..n-1, the generated ones first. generated, real: (N,), (M,), the position of each image. sizes:
    (n,), images of each. paired: the p-th position of either side is the same patient. made_a, real_a, real_b: bool (splits, n),
    who is generated A, real A and real B. deals: (draws + 1, n), whose images take each position; in the first, its own.
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
        """generated (N,), real (M,): the patient of each image. paired: the i-th generated image follows the label map of the i-th
        real one; otherwise the generated images follow maps from elsewhere, of other patients.

        Raises DataError where a side has fewer than two patients, or where `paired` sides differ in their patients.
        """
        made, of_made = np.unique(generated, return_inverse=True)
        true, of_true = np.unique(real, return_inverse=True)
        if paired and (len(generated) != len(real) or not np.array_equal(generated, real)):
            raise DataError("generated and real images are no pairs", hint="Give the real image of each label map")
        if min(len(made), len(true)) < 2:
            raise DataError("realism needs images of two patients or more", hint="Judge images of more label maps")
        rng = np.random.default_rng(seed)
        roles = _halves(len(made), len(true), paired, splits, rng)
        deals = _swaps(len(made), draws, rng) if paired else _deals(len(made) + len(true), draws, rng)
        sizes = np.concatenate([np.bincount(of_made), np.bincount(of_true)])
        return cls(of_made, of_true + len(made), sizes, paired, *roles, deals)

    @property
    def patients(self) -> int:
        """Generated patients, which are the real ones too where `paired`."""
        return int(self.generated.max()) + 1

    @property
    def least_p(self) -> float:
        """The smallest p that so few patients allow."""
        both = len(self.sizes)
        orders = 2 ** (self.patients - 1) if self.paired else math.comb(both, self.patients)
        return 1 / min(orders, len(self.deals))

    def sides(self, split: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which generated images are of A (N,), which real ones of A and of B (M,)."""
        return self.made_a[split][self.generated], self.real_a[split][self.real], self.real_b[split][self.real]

    def block_means(self, generated: Floats, real: Floats) -> Floats:
        """Means (n, ...) of values of images (N, ...), (M, ...) by position, NaN left out; NaN where nothing is left."""
        values, who = np.concatenate([generated, real]), np.concatenate([self.generated, self.real])
        there = np.isfinite(values)
        sums, counts = (np.zeros((len(self.sizes), *values.shape[1:])) for _ in range(2))
        np.add.at(sums, who, np.where(there, values, 0))
        np.add.at(counts, who, there)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


@dataclass(frozen=True)
class Excess:
    """What lies between generated A and real B (value), between real A and real B (real), each with its deviation over the
    halvings. Where it is tested, also the statistic (draws + 1,) of every deal, the true one first, and its scale: what lies between
    two single real images.
    """

    value: float
    real: float
    value_spread: float
    real_spread: float
    of_deals: Floats | None = None
    scale: float = math.nan

    @property
    def statistic(self) -> Floats:
        """(draws + 1,), the statistic of every deal in units of its scale; empty where it is not tested."""
        if self.of_deals is None:
            return np.zeros(0)
        return self.of_deals / self.scale if self.scale > 0 else np.zeros_like(self.of_deals)


@dataclass(frozen=True)
class ToldApart:
    """The verdict. p_value: how often chance alone does as much in any measure. p_of: of each, the number of measures counted in.

    by: the measures by which generated images can be told from real ones, more than `TOLERATED`. least_p: the smallest p that so few
    patients allow.
    """

    p_value: float
    p_of: dict[str, float]
    by: tuple[str, ...]
    patients: int
    least_p: float

    @property
    def decided(self) -> bool:
        """Whether there are patients enough for any one of the measures to tell something."""
        return len(self.p_of) * self.least_p < SIGNIFICANCE


def kernel_excess(cohort: Cohort, generated: Floats, real: Floats, kernel: Kernel) -> Excess:
    """The squared MMD (Gretton et al. 2012, eq. 3) of features (N, F), (M, F) under `kernel`.

    Only images of different patients are compared, so that it is unbiased for patients: around 0 between real A and real B, whatever
    the images of one patient have in common. The statistic is that of all generated against all real images. All follows from the
    sums of the kernel over pairs of patients, so that a deal costs a matrix product and no kernel. NaN, and 0 for all deals, for fewer
    than four patients.
    """
    sums, selves = _block_sums(cohort, generated, real, kernel)
    own, count = sums.diagonal(), cohort.patients
    sizes = cohort.sizes.astype(np.float64)

    def between(x: Floats, y: Floats, *, partners: bool) -> Floats:
        """(K,), of positions x and y (K, n) in {0, 1}. partners: leave out the two images of each patient on either side."""

        def within(z: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray((np.einsum("kn,kn->k", z @ sums, z) - z @ own) / ((z @ sizes) ** 2 - z @ sizes**2))

        cross, pairs = np.einsum("kn,kn->k", x @ sums, y), (x @ sizes) * (y @ sizes)
        if partners:
            cross = cross - np.trace(sums[:count, count:])
            pairs = pairs - (sizes[:count] * sizes[count:]).sum()
        return within(x) + within(y) - 2 * cross / pairs

    made_a, real_a, real_b = (
        np.asarray(side, dtype=np.float64) for side in (cohort.made_a, cohort.real_a, cohort.real_b)
    )
    halves = between(made_a, real_b, partners=False), between(real_a, real_b, partners=False)
    dealt = np.zeros((len(cohort.deals), len(sizes)))
    np.put_along_axis(dealt, cohort.deals[:, :count], 1.0, axis=1)
    of_deals = between(dealt, 1 - dealt, partners=cohort.paired)
    true = np.arange(len(sizes)) >= count
    typical = (sums[np.ix_(true, true)].sum() - own[true].sum()) / (sizes[true].sum() ** 2 - (sizes[true] ** 2).sum())
    scale = float(selves[true].sum() / sizes[true].sum() - typical)
    return Excess(
        float(halves[0].mean()),
        float(halves[1].mean()),
        float(halves[0].std()),
        float(halves[1].std()),
        of_deals,
        scale,
    )


def kid_excess(cohort: Cohort, generated: Floats, real: Floats) -> Excess:
    """KID (Binkowski et al. 2018), of whole halves and not of subsets."""
    return kernel_excess(cohort, generated, real, cubic_kernel)


def mmd_excess(cohort: Cohort, generated: Floats, real: Floats, *, seed: int = 0) -> Excess:
    """MMD with a Gaussian kernel, as wide as the median distance of all images: who is generated must not change the kernel."""
    width = median_distance(np.concatenate([generated, real]), seed=seed)
    return kernel_excess(cohort, generated, real, gaussian_kernel(width if width > 0 else 1.0))


def frechet_excess(cohort: Cohort, generated: Floats, real: Floats, *, splits: int = 8) -> Excess:
    """FID over the first `splits` halvings. It is not tested; its bias for few images is the same on both sides."""
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
    """(draws + 1,): how far the means by patient of the logarithm of `local_noise` (N,), (M,) lie apart, in every deal."""
    logs = (np.log(np.maximum(values, _FLOOR)) for values in (generated, real))
    return np.abs(_differences(cohort, cohort.block_means(*logs)[:, None])[:, 0])


def spectrum_statistic(cohort: Cohort, generated: Floats, real: Floats) -> Floats:
    """(draws + 1,): the largest difference of any ring's mean log power (N, rings), (M, rings), set against how far patients'
    differ, in every deal.
    """
    means = cohort.block_means(*(np.log(np.maximum(values, 1e-12)) for values in (generated, real)))
    count = cohort.patients
    apart = means[:count] - means[count:] if cohort.paired else means - np.nanmean(means, axis=0)
    scale = np.sqrt(np.nanmean(apart**2, axis=0))  # the same in every deal
    differences = np.abs(_differences(cohort, means))
    return np.asarray(np.divide(differences, scale, out=np.zeros_like(differences), where=scale > 0).max(axis=1))


def diversity_statistic(cohort: Cohort, first: NDArray[np.int64], second: NDArray[np.int64], scores: Floats) -> Floats:
    """(draws + 1,): how far the mean MS-SSIM of pairs of generated images lies from that of the real ones, in every deal.

    first, second: (K,), patients of each pair, of a paired cohort. scores: (K, 2, 2), of its first image, generated or real, with its
    second.
    """
    pairs, count = np.arange(len(first)), cohort.patients
    swapped = (cohort.deals[:, :count] >= count).astype(np.int64)  # (draws + 1, patients)
    i, j = swapped[:, first], swapped[:, second]
    return np.abs((scores[pairs, i, j] - scores[pairs, 1 - i, 1 - j]).mean(axis=1))


def variety_statistic(cohort: Cohort, generated: Floats, real: Floats) -> tuple[Floats, float, float]:
    """How much nearer generated images lie to each other than real ones: (draws + 1,), in every deal, in units of the typical distance.

    Of each image the distance of its features (N, F), (M, F) to the nearest image of another patient on its side counts. Few images that
    are made again and again lie at 0, however well each of them would do by itself. Also returns the true means, generated and real.
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
    for i, deal in enumerate(cohort.deals):
        for side, patients in enumerate((deal[: cohort.patients], deal[cohort.patients :])):
            there = np.isin(who, patients)
            means[i, side] = nearest[np.ix_(there, patients)].min(axis=1).mean()
    return (means[:, 1] - means[:, 0]) / max(typical, np.finfo(float).tiny), float(means[0, 0]), float(means[0, 1])


def told_apart(cohort: Cohort, statistics: Mapping[str, Floats], sizes: Mapping[str, float]) -> ToldApart:
    """The verdict over several measures: Westfall and Young's (1993) single-step smallest p, so that no number of them raises chance.

    statistics: (draws + 1,) of each, of order 1 at most, larger for farther apart, the true one first. sizes: by how much each differs,
    in the units of `TOLERATED`. Where one measure alone is larger than in every other deal, its p is at most the number of measures times
    the smallest p that so many patients allow: by this it is `decided` whether there are enough.
    """
    table = np.stack([np.asarray(values, dtype=np.float64) for values in statistics.values()], axis=1)
    table = np.where(np.isfinite(table), table, 0.0)
    count = len(table)
    ordered = np.sort(table, axis=0)
    # Less than 1e-9 apart is rounding.
    lower = np.stack([column.searchsorted(of - 1e-9) for column, of in zip(ordered.T, table.T, strict=True)], axis=1)
    chance = (count - lower) / count  # of each deal in each measure
    smallest = chance.min(axis=1)
    p_of = {name: float((smallest <= own + 1e-12).mean()) for name, own in zip(statistics, chance[0], strict=True)}
    by = tuple(name for name, p in p_of.items() if p < SIGNIFICANCE and sizes[name] > TOLERATED.get(name, 0))
    return ToldApart(min(p_of.values()), p_of, by, cohort.patients, cohort.least_p)


def pairs_of_patients(
    patients: NDArray[np.generic], count: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places (at most `count` each) of random pairs of images of different patients, of `patients` (N,); no pair twice."""
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
    """Who is on the sides generated A, real A and real B, (splits, made + true) each; a halving is followed by its reverse."""
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
    """Deals in which some patients' generated and real images change places: all of them where they are no more than `draws`.

    The first patient's never do: every statistic is the same where the sides change places as a whole.
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
    """Deals of all patients into generated and real."""
    return np.stack([np.arange(both), *(rng.permutation(both) for _ in range(draws))])


def _differences(cohort: Cohort, means: Floats) -> Floats:
    """(draws + 1, columns): mean over the generated positions less that over the real ones, of `means` (n, columns) dealt anew.

    A patient without a value is left out, on both sides where they are pairs.
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


def _over_splits(values: Floats) -> Excess:
    """Of (splits, 2): generated A against real B, and real A against real B."""
    means, spreads = values.mean(axis=0), values.std(axis=0)
    return Excess(float(means[0]), float(means[1]), float(spreads[0]), float(spreads[1]))
