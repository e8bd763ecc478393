"""Input checks and the confidence interval of a proportion, shared by the privacy measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anatogen.errors import DataError

Floats = NDArray[np.floating]


def finite(values: Floats, which: str) -> NDArray[np.float64]:
    """`values` (N,) as float64.

    Raises:
        DataError: There are no values, or one is not a finite number; the message names `which`.
    """
    exact = np.asarray(values, np.float64)
    if exact.ndim != 1 or not len(exact) or not np.isfinite(exact).all():
        raise DataError(f"the {which} values are not one finite number per image", hint="Check the images")
    return exact


def require_groups(*pairs: tuple[NDArray[np.float64], NDArray[np.generic] | None]) -> None:
    """Check that the groups of each pair (values, groups) are as many as its values.

    Raises:
        DataError: They are not.
    """
    for values, groups in pairs:
        if groups is not None and groups.shape != values.shape:
            raise DataError(
                f"{groups.size} patients do not match {len(values)} images", hint="Pass one patient per image"
            )


def proportion_interval(hits: NDArray[np.bool_], groups: NDArray[np.generic] | None) -> tuple[float, float]:
    """The 95 % interval of a proportion.

    Clopper and Pearson 1934; with groups, Korn and Graubard 1998 (Clopper-Pearson with the effective sample size).

    Args:
        hits: Bool (N,), N > 0.
        groups: (N,), for instance the patient of each; None for independent values.

    Returns:
        (low, high) in [0, 1]; (0, 1) for a single group.
    """
    n, share = len(hits), float(hits.mean())
    effective = float(n)
    if groups is not None:
        _, which = np.unique(groups, return_inverse=True)
        sizes = np.bincount(which)
        if (count := len(sizes)) < 2:
            return 0.0, 1.0
        scatter = count / (count - 1) * ((np.bincount(which, hits) - share * sizes) ** 2).sum() / n**2
        effective = share * (1 - share) / scatter if scatter > 0 else count
        effective *= float(stats.t.ppf(0.975, max(n - 1, 1)) / stats.t.ppf(0.975, count - 1)) ** 2
        effective = min(max(effective, 1.0), float(n))
    x = share * effective
    low = float(stats.beta.ppf(0.025, x, effective - x + 1)) if share > 0 else 0.0
    high = float(stats.beta.ppf(0.975, x + 1, effective - x)) if share < 1 else 1.0
    return low, high
