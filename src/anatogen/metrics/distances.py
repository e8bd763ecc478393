"""Distances between two sets of images in feature space: features (N, F) of any encoder, for instance `Encoder`.

FID needs only moments, kept for any number of images. The others need the features of some thousands of images, which
a `Reservoir` samples uniformly from a stream of unknown length. A value has no meaning by itself: compare it with the
value between two sets of real images of the same size and encoder. FID and KID here are on another scale than those on
Inception features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError, nearest

CAUTION = (
    "Konz et al. (2024) caution against FID and other distances of CNN features: they may look good (a feature FID of "
    "about 0.5 for their breast MRI) on images with globally unrealistic anatomy. Consider faithfulness and utility as "
    "well."
)

Features = NDArray[np.float32] | NDArray[np.float64]
Kernel = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


class FeatureMoments:
    """Count, mean and covariance of a stream of features (N, F), in memory that does not depend on N.

    Sums of squares are taken about the mean and merged (Chan, Golub and LeVeque 1979), which avoids cancellation.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._scatter = np.zeros((size, size))

    @classmethod
    def of(cls, features: Features) -> FeatureMoments:
        """The moments of features (N, F) in memory."""
        return cls(features.shape[1]).update(features)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(F, F), unbiased; NaN for fewer than two images."""
        return self._scatter / (self.count - 1) if self.count > 1 else np.full_like(self._scatter, np.nan)

    def update(self, features: Features) -> FeatureMoments:
        """Add features (N, F), in place.

        Raises:
            DataError: A feature is not finite, or F differs.
        """
        part = FeatureMoments(len(self.mean))
        values = _checked(features, len(self.mean))
        if len(values):
            part.count, part.mean = len(values), values.mean(axis=0)
            part._scatter = (values - part.mean).T @ (values - part.mean)
        merged = self.merge(part)
        self.count, self.mean, self._scatter = merged.count, merged.mean, merged._scatter
        return self

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """The moments of both sets together; both stay unchanged."""
        merged = FeatureMoments(len(self.mean))
        merged.count = self.count + other.count
        share = other.count / max(1, merged.count)
        apart = other.mean - self.mean
        merged.mean = self.mean + share * apart
        merged._scatter = self._scatter + other._scatter + self.count * share * np.outer(apart, apart)
        return merged


class Reservoir:
    """A uniform sample of at most `capacity` rows of a stream (Vitter 1985, algorithm R), reproducible by its seed."""

    def __init__(self, capacity: int = 5000, seed: int = 0) -> None:
        if capacity < 1:
            raise SettingsError(f"the capacity of a reservoir must be 1 or more, got {capacity}", hint="Set 1 or more")
        self.capacity, self.count = capacity, 0
        self._rng = np.random.default_rng(seed)
        self._kept: list[NDArray[np.float32]] = []

    def update(self, rows: Features) -> Reservoir:
        """Offer rows (N, ...). The sample does not depend on how the stream is split into pieces."""
        for row, draw in zip(np.asarray(rows, dtype=np.float32), self._rng.random(len(rows)), strict=True):
            self.count += 1
            if len(self._kept) < self.capacity:
                self._kept.append(row.copy())
            elif (place := int(draw * self.count)) < self.capacity:
                self._kept[place] = row.copy()
        return self

    @property
    def sample(self) -> NDArray[np.float32]:
        """The sampled rows, (at most capacity, ...)."""
        return np.stack(self._kept) if self._kept else np.zeros((0, 0), dtype=np.float32)


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """FID on any features: |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al. 2017, eq. 6).

    0 for equal moments. Biased upwards for small sets: for equal normal distributions by about 2F/n + F(F+1)/(2n).

    Args:
        a: Moments of one set.
        b: Moments of the other set.

    Returns:
        The distance; NaN where a set has fewer than two images.
    """
    if min(a.count, b.count) < 2:
        return float("nan")
    # tr (S_a S_b)^(1/2) is the sum of the singular values of S_a^(1/2) S_b^(1/2): real and stable for singular S too.
    cross = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(max(0.0, ((a.mean - b.mean) ** 2).sum() + spread))


def kernel_distance(
    a: Features, b: Features, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: the unbiased squared MMD with the kernel (x.y / F + 1)^3 (Binkowski et al. 2018), and its standard error.

    The estimate is unbiased: around 0, also below 0, for equal distributions. Sets of equal size may be paired, like
    generated images and the real images of their label maps: the i-th of one set is never compared with the i-th of the
    other (Gretton et al. 2012, eq. 4), which would make such sets seem closer than they are.

    Args:
        a: Features (N, F).
        b: Features (M, F).
        subsets: Number of random subsets to average over.
        subset_size: Images in a subset, at most half the smaller set.
        seed: Of the subsets.

    Returns:
        (KID, standard error), the error for independent images; NaN for fewer than four images in a set.

    Raises:
        DataError: Features are not finite or differ in F.
    """

    return _over_subsets(cubic_kernel, a, b, subsets, subset_size, seed)


def mmd(
    a: Features,
    b: Features,
    *,
    bandwidth: float | None = None,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 h^2)) (Gretton et al. 2012, eq. 3), and its error.

    MONAI's MMDMetric has the kernel x.y, which sees the means only.

    Args:
        a: Features (N, F) of the generated images.
        b: Features (M, F) of the real images.
        bandwidth: h; by default the median distance in `b`, so that it is the same for every generator.
        subsets: See `kernel_distance`.
        subset_size: See `kernel_distance`.
        seed: See `kernel_distance`.

    Returns:
        (MMD^2, standard error), as in `kernel_distance`.

    Raises:
        DataError: Features are not finite or differ in F.
        SettingsError: The bandwidth is not above 0.
    """
    if bandwidth is None:
        bandwidth = median_distance(b, seed=seed)
    return _over_subsets(gaussian_kernel(bandwidth), a, b, subsets, subset_size, seed)


def cubic_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """KID's kernel (x.y / F + 1)^3 of features (N, F) and (M, F): (N, M)."""
    base = x @ y.T / x.shape[1] + 1
    return np.asarray(base * base * base)  # several times as fast as base**3


def gaussian_kernel(bandwidth: float) -> Kernel:
    """The kernel exp(-|x - y|^2 / (2 h^2)) with h = `bandwidth`.

    Raises:
        SettingsError: `bandwidth` is not above 0.
    """
    if bandwidth <= 0:
        raise SettingsError(f"the bandwidth must be above 0, got {bandwidth:g}", hint="Set a bandwidth above 0")

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(_squared_distances(x, y) / (-2 * bandwidth**2))

    return kernel


def median_distance(features: Features, *, most: int = 1000, seed: int = 0) -> float:
    """The median distance between two of the features (N, F), the usual bandwidth; over a random `most` of them.

    NaN for fewer than two images.
    """
    values = _checked(features)
    if len(values) < 2:
        return float("nan")
    values = values[np.random.default_rng(seed).permutation(len(values))[:most]]
    squared = _squared_distances(values, values)[np.triu_indices(len(values), 1)]
    return float(np.sqrt(np.median(squared)))


def precision_recall(generated: Features, real: Features, *, neighbours: int = 3) -> tuple[float, float]:
    """Precision and recall of the generated distribution (Kynkaanniemi et al. 2019, eq. 1 and 2).

    Precision is the share of generated images in the manifold of the real ones, recall the share of real images in that
    of the generated ones. Low precision: images unlike any real one. Low recall: kinds of real images that are never
    generated. Both depend on the set sizes, so use equal ones. `in_manifold` gives the values of each image, for
    instance for intervals by patient.

    Args:
        generated: Features (N, F).
        real: Features (M, F).
        neighbours: k of the k-th nearest neighbour that sets the radius.

    Returns:
        (precision, recall) in [0, 1]; NaN where a set has no more than `neighbours` images.

    Raises:
        DataError: Features are not finite or differ in F.
    """
    if min(len(generated), len(real)) <= neighbours:
        return float("nan"), float("nan")
    precision = in_manifold(generated, real, neighbours=neighbours).mean()
    return float(precision), float(in_manifold(real, generated, neighbours=neighbours).mean())


def in_manifold(
    features: Features, reference: Features, *, neighbours: int = 3, block: int = 1024
) -> NDArray[np.bool_]:
    """Whether each image lies within the k-nearest-neighbour radius of any reference image.

    Args:
        features: (N, F).
        reference: (M, F).
        neighbours: k, with 0 < k < M.
        block: Most rows of the distance matrix in memory at a time.

    Returns:
        Bool (N,).

    Raises:
        DataError: Features are not finite or differ in F.
        SettingsError: k is out of range.
    """
    from scipy.spatial.distance import cdist

    known = _checked(reference)
    asked = _checked(features, known.shape[1])
    if not 0 < neighbours < len(known):
        raise SettingsError(
            f"k = {neighbours} neighbours are not possible among {len(known)} images",
            hint="Use more images, or a k of 1 or more",
        )
    starts = range(0, len(known), block)
    # Each is its own nearest neighbour, at 0, so the k-th one is at place k.
    radii = np.concatenate(
        [np.partition(cdist(known[i : i + block], known), neighbours)[:, neighbours] for i in starts]
    )
    found = [(cdist(asked[i : i + block], known) <= radii).any(axis=1) for i in range(0, len(asked), block)]
    return np.concatenate([*found, np.zeros(0, dtype=bool)])


# The smallest reliable set. FID needs several F images: for full-rank covariances, and because its bias falls as F / n.
_SMALLEST: dict[str, Callable[[int], int]] = {
    "fid": lambda size: 5 * size,
    "kid": lambda size: 200,
    "mmd": lambda size: 200,
    "precision_recall": lambda size: 500,
    "diversity": lambda size: 50,
    "local_noise": lambda size: 30,
    "power": lambda size: 30,
}


def smallest_count(metric: str, feature_size: int = 128) -> int:
    """The number of images in each set below which `metric` is unreliable: a rule of thumb, reported with the value.

    Args:
        metric: fid, kid, mmd, precision_recall, diversity, local_noise or power.
        feature_size: F, the number of features of an image.

    Raises:
        SettingsError: The metric is unknown.
    """
    if metric not in _SMALLEST:
        raise SettingsError(f"there is no metric '{metric}'", hint=nearest(metric, _SMALLEST))
    return _SMALLEST[metric](feature_size)


def count_warning(metric: str, count: int, feature_size: int = 128) -> str | None:
    """A sentence for the report where `count` images in the smaller set are too few for `metric`; otherwise None."""
    least = smallest_count(metric, feature_size)
    if count >= least:
        return None
    why = f" (5 times its {feature_size} features)" if metric == "fid" else ""
    return f"{metric} is unreliable with {count} images; at least {least} per set{why} are recommended."


def _over_subsets(
    kernel: Kernel, a: Features, b: Features, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """The mean unbiased MMD^2 over random subsets, and its error by the delete-d jackknife (Shao and Wu 1989).

    Subsets of r of n overlap, so their spread over sqrt(subsets) would underestimate the error. The jackknife's
    variance is their variance times r / (n - r), which requires r of at most about n / 2.
    """
    x, y = _checked(a), _checked(b, a.shape[1])
    count = min(len(x), len(y))
    size = min(subset_size, count // 2)
    if size < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        in_x = rng.permutation(len(x))
        # Sets of equal size may be paired, so the two subsets share no index.
        in_y = in_x[::-1] if len(x) == len(y) else rng.permutation(len(y))
        values.append(_unbiased_mmd(kernel, x[in_x[:size]], y[in_y[:size]]))
    return float(np.mean(values)), float(np.std(values, ddof=1) * np.sqrt(size / (count - size)))


def _unbiased_mmd(kernel: Kernel, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Gretton et al. 2012, eq. 3: no image is paired with itself."""

    def within(z: NDArray[np.float64]) -> float:
        products = kernel(z, z)
        return float((products.sum() - np.trace(products)) / (len(z) * (len(z) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.maximum(squares, 0.0))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _checked(features: Features, size: int | None = None) -> NDArray[np.float64]:
    if features.ndim != 2 or (size is not None and features.shape[1] != size):
        raise DataError(
            f"features have the shape {features.shape}, not (images, {size or 'features'})",
            hint="Compute both sets with the same encoder",
        )
    values = np.asarray(features, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise DataError(f"the features of {bad} images are not finite numbers", hint="Check these images")
    return values
