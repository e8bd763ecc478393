"""How far apart two sets of images are, by their features (N, F): of any encoder, for instance features.Encoder.

FID needs only moments, which are kept for any number of images; the others need the features of some thousands, which a
Reservoir draws fairly from a stream of unknown length. A value means something beside the same value between two sets of
real images of the same counts and by the same encoder, and nothing by itself: FID and KID here have another scale than
those on Inception features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, SettingsError, nearest

CAUTION = (
    "Konz et al. (2024) caution against FID and other distances of CNN features: they may look good (a feature FID near "
    "0.5 for their breast MRI) on images whose anatomy is globally unrealistic. Read them beside faithfulness and usefulness."
)

Features = NDArray[np.float32] | NDArray[np.float64]
Kernel = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


class FeatureMoments:
    """Count, mean and covariance of features (N, F) that come in pieces; the memory it takes does not depend on N.

    Sums of squares are kept about the mean and merged (Chan, Golub and LeVeque 1979), so nothing cancels.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._scatter = np.zeros((size, size))

    @classmethod
    def of(cls, features: Features) -> FeatureMoments:
        """The moments of features (N, F) that are there at once."""
        return cls(features.shape[1]).update(features)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(F, F), unbiased; NaN of fewer than two images."""
        return self._scatter / (self.count - 1) if self.count > 1 else np.full_like(self._scatter, np.nan)

    def update(self, features: Features) -> FeatureMoments:
        """Take in features (N, F). Raises DataError where one is not a finite number, or for another F."""
        part = FeatureMoments(len(self.mean))
        values = _checked(features, len(self.mean))
        if len(values):
            part.count, part.mean = len(values), values.mean(axis=0)
            part._scatter = (values - part.mean).T @ (values - part.mean)
        merged = self.merge(part)
        self.count, self.mean, self._scatter = merged.count, merged.mean, merged._scatter
        return self

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """The moments of both sets together; neither is changed."""
        merged = FeatureMoments(len(self.mean))
        merged.count = self.count + other.count
        share = other.count / max(1, merged.count)
        apart = other.mean - self.mean
        merged.mean = self.mean + share * apart
        merged._scatter = self._scatter + other._scatter + self.count * share * np.outer(apart, apart)
        return merged


class Reservoir:
    """A fair sample of at most `capacity` rows of a stream (Vitter 1985, algorithm R), the same for the same stream and seed."""

    def __init__(self, capacity: int = 5000, seed: int = 0) -> None:
        if capacity < 1:
            raise SettingsError(f"a reservoir cannot hold {capacity} rows", hint="Give it a capacity of 1 or more")
        self.capacity, self.count = capacity, 0
        self._rng = np.random.default_rng(seed)
        self._kept: list[NDArray[np.float32]] = []

    def update(self, rows: Features) -> Reservoir:
        """Offer rows (N, ...). How a stream is cut into pieces makes no difference."""
        for row, draw in zip(np.asarray(rows, dtype=np.float32), self._rng.random(len(rows)), strict=True):
            self.count += 1
            if len(self._kept) < self.capacity:
                self._kept.append(row.copy())
            elif (place := int(draw * self.count)) < self.capacity:
                self._kept[place] = row.copy()
        return self

    @property
    def sample(self) -> NDArray[np.float32]:
        """The rows that are kept, (at most capacity, ...)."""
        return np.stack(self._kept) if self._kept else np.zeros((0, 0), dtype=np.float32)


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): FID, on whatever features (Heusel et al. 2017, eq. 6).

    0 for equal moments. Biased upwards for small sets: for equal normal distributions by about 2F/n + F(F+1)/(2n). NaN
    where a set has fewer than two images.
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

    The mean over random subsets of `subset_size` from each set, or of half the smaller set where that is less. Unbiased:
    around 0, and also below, for equal distributions. Sets of equal count may be pairs, as a generated image and the real
    one of its label map are: the i-th of one is never compared with the i-th of the other (Gretton et al. 2012, eq. 4),
    which would make such sets seem closer than they are. The standard error treats images as independent. NaN for fewer
    than four images in a set.
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
    """The unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 h^2)) (Gretton et al. 2012, eq. 3), and its standard error.

    bandwidth: h; by default the median distance in `b`, the real images, so that it is the same for every generator. Subsets,
    pairs, error and NaN as in `kernel_distance`. (MONAI's MMDMetric has the kernel x.y, which sees the means alone.)
    """
    if bandwidth is None:
        bandwidth = median_distance(b, seed=seed)
    return _over_subsets(gaussian_kernel(bandwidth), a, b, subsets, subset_size, seed)


def cubic_kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """KID's kernel (x.y / F + 1)^3 of features (N, F) and (M, F): (N, M)."""
    base = x @ y.T / x.shape[1] + 1
    return np.asarray(base * base * base)  # several times as fast as base**3


def gaussian_kernel(bandwidth: float) -> Kernel:
    """The kernel exp(-|x - y|^2 / (2 h^2)), h = `bandwidth`. Raises SettingsError unless it is above 0."""
    if bandwidth <= 0:
        raise SettingsError(f"the bandwidth must be above 0, got {bandwidth:g}", hint="Give a bandwidth above 0")

    def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(_squared_distances(x, y) / (-2 * bandwidth**2))

    return kernel


def median_distance(features: Features, *, most: int = 1000, seed: int = 0) -> float:
    """The median distance of two of the features (N, F), over a random `most` of them: the usual bandwidth. NaN for N < 2."""
    values = _checked(features)
    if len(values) < 2:
        return float("nan")
    values = values[np.random.default_rng(seed).permutation(len(values))[:most]]
    squared = _squared_distances(values, values)[np.triu_indices(len(values), 1)]
    return float(np.sqrt(np.median(squared)))


def precision_recall(generated: Features, real: Features, *, neighbours: int = 3) -> tuple[float, float]:
    """The share of generated images among the real ones, and of real among the generated (Kynkaanniemi et al. 2019, eq. 1, 2).

    Low precision: images that are unlike any real one. Low recall: kinds of real images that are never made. Both depend on
    the counts, so take equally many. For intervals, by patient for instance, take `in_manifold`, whose means these are.
    NaN where a set has no more than `neighbours` images.
    """
    if min(len(generated), len(real)) <= neighbours:
        return float("nan"), float("nan")
    precision = in_manifold(generated, real, neighbours=neighbours).mean()
    return float(precision), float(in_manifold(real, generated, neighbours=neighbours).mean())


def in_manifold(
    features: Features, reference: Features, *, neighbours: int = 3, block: int = 1024
) -> NDArray[np.bool_]:
    """(N,): whether each of the features (N, F) is no farther from one of `reference` than that one's k-th nearest neighbour.

    At most `block` rows of distances are held at a time. Raises SettingsError unless 0 < neighbours < len(reference).
    """
    from scipy.spatial.distance import cdist

    known = _checked(reference)
    asked = _checked(features, known.shape[1])
    if not 0 < neighbours < len(known):
        raise SettingsError(
            f"{len(known)} images have no {neighbours} neighbours each", hint="Take more images or fewer neighbours"
        )
    starts = range(0, len(known), block)
    # Each is its own nearest, at 0, so the k-th neighbour is at place k.
    radii = np.concatenate(
        [np.partition(cdist(known[i : i + block], known), neighbours)[:, neighbours] for i in starts]
    )
    found = [(cdist(asked[i : i + block], known) <= radii).any(axis=1) for i in range(0, len(asked), block)]
    return np.concatenate([*found, np.zeros(0, dtype=bool)])


# The least count in the smaller set. FID: the rank of the covariances, and a bias that falls as F / n, ask for several F.
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
    """The count of images in each set below which `metric` means little: a rule of thumb, stated beside the value.

    metric: fid, kid, mmd, precision_recall, diversity, local_noise or power. Raises SettingsError for another.
    """
    if metric not in _SMALLEST:
        raise SettingsError(f"there is no metric '{metric}'", hint=nearest(metric, _SMALLEST))
    return _SMALLEST[metric](feature_size)


def count_warning(metric: str, count: int, feature_size: int = 128) -> str | None:
    """A sentence for the report where `count` images in the smaller set are too few for `metric`; None where they do."""
    least = smallest_count(metric, feature_size)
    if count >= least:
        return None
    why = f", 5 times its {feature_size} features" if metric == "fid" else ""
    return f"{metric} of {count} images means little: it wants {least} in each set{why}."


def _over_subsets(
    kernel: Kernel, a: Features, b: Features, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """The mean of the unbiased MMD^2 over random subsets and, by the delete-d jackknife (Shao and Wu 1989), its error.

    Subsets of r of n overlap, so their spread over sqrt(subsets) would be far too small an error; the jackknife's variance
    is their variance times r / (n - r), which asks for r of at most about n / 2.
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
        # Where they may be pairs, the two subsets share no index.
        in_y = in_x[::-1] if len(x) == len(y) else rng.permutation(len(y))
        values.append(_unbiased_mmd(kernel, x[in_x[:size]], y[in_y[:size]]))
    return float(np.mean(values)), float(np.std(values, ddof=1) * np.sqrt(size / (count - size)))


def _unbiased_mmd(kernel: Kernel, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Gretton et al. 2012, eq. 3: nothing is paired with itself."""

    def within(z: NDArray[np.float64]) -> float:
        products = kernel(z, z)
        return float((products.sum() - np.trace(products)) / (len(z) * (len(z) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def _squared_distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.maximum(squares, 0.0))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def _checked(features: Features, size: int | None = None) -> NDArray[np.float64]:
    if features.ndim != 2 or (size is not None and features.shape[1] != size):
        raise DataError(
            f"features have the shape {features.shape}, not (images, {size or 'features'})",
            hint="Take both sets' from the same encoder",
        )
    values = np.asarray(features, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise DataError(f"the features of {bad} images are not finite numbers", hint="Check these images")
    return values
