"""Membership inference: does a model's loss reveal whom it was trained on?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anatogen.errors import DataError
from anatogen.metrics.proportions import finite, proportion_interval, require_groups

Floats = NDArray[np.floating]
Exact = NDArray[np.float64]

_RIDGE = 1e-2  # of the variance of standardised difficulties, which are strongly correlated
_COMPARABLE = (0.05, 0.95)


@dataclass(frozen=True)
class MembershipAttack:
    """How well a model's loss separates the images it was trained on from others.

    Attributes:
        auc: Probability that a training image has the lower loss of the two, adjusted for their difficulty where it is
            known; 0.5 is chance, 1 a model that reveals everything.
        ci95: 95 % interval of `auc`, by patient.
        tpr_at_1: Share of training images recognised at a false-positive rate of 1 %.
        tpr_at_10: Share of training images recognised at a false-positive rate of 10 %.
        n_members: Number of training images.
        n_nonmembers: Number of other images.
        uncalibrated_auc: AUC of the loss alone.
        difficulty_auc: AUC that the difficulty of the images alone predicts for any model; NaN where it is not known.
    """

    auc: float
    ci95: tuple[float, float]
    tpr_at_1: float
    tpr_at_10: float
    n_members: int
    n_nonmembers: int
    uncalibrated_auc: float = math.nan
    difficulty_auc: float = math.nan

    @property
    def comparable(self) -> bool:
        """Whether training and other images overlap in difficulty; otherwise the attack says nothing of the model."""
        return math.isnan(self.difficulty_auc) or _COMPARABLE[0] < self.difficulty_auc < _COMPARABLE[1]

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5 and the two sets of images are comparable."""
        return self.ci95[0] > 0.5 and self.comparable


def membership_inference(
    loss_members: Floats,
    loss_nonmembers: Floats,
    member_groups: NDArray[np.generic] | None = None,
    nonmember_groups: NDArray[np.generic] | None = None,
    *,
    difficulty: tuple[Floats, Floats] | None = None,
) -> MembershipAttack:
    """Run the attack that predicts "training image" where the denoiser's loss is low.

    The attack is Matsumoto et al. 2023 ("Membership Inference Attacks against Diffusion Models"; Duan et al. 2023,
    SecMI, refine it), the AUC that of Mann and Whitney 1947. An average hides the few images that are revealed with
    certainty, hence the true-positive rates at low false-positive rates (Carlini et al. 2022, "Membership Inference
    Attacks From First Principles").

    Where training patients happen to be easier than others, any model has a lower loss on them. With `difficulty`, the
    score is therefore the logarithm of the loss minus the part that difficulty explains. Its slopes come from an
    analysis of covariance, which keeps members and others apart and so does not remove the effect of membership (Watson
    et al. 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks", use a second model for
    the same purpose). Difficulty that no measure captures remains.

    The interval is a jackknife over the patients of both sides, with new slopes each time, on the logit scale, with
    Student's t and the degrees of freedom of the side with fewer patients (Obuchowski 1997 gives the variance by
    patients). Where the two sides do not overlap at all, it is the exact interval of as many wins as there are pairs of
    patients.

    Args:
        loss_members: (N,), `denoising_losses` of the training images.
        loss_nonmembers: (M,), of other images.
        member_groups: (N,), the patient of each training image; by default each image is its own group.
        nonmember_groups: (M,), the patient of each other image.
        difficulty: (N, K) and (M, K), logarithms of K model-free difficulty measures of the images (`difficulties`).

    Returns:
        The attack; its interval is (0, 1) where a side has a single patient.

    Raises:
        DataError: Losses or difficulties are not finite, or the numbers of values do not match.
    """
    sides = finite(loss_members, "members'"), finite(loss_nonmembers, "non-members'")
    require_groups((sides[0], member_groups), (sides[1], nonmember_groups))
    groups = [
        np.unique(np.arange(len(side)) if of is None else of, return_inverse=True)[1]
        for side, of in zip(sides, (member_groups, nonmember_groups), strict=True)
    ]
    hard = _checked(difficulty, sides)
    scores = sides if hard is None else tuple(np.log(np.maximum(side, np.finfo(float).tiny)) for side in sides)
    members, others = _adjusted(scores[0], scores[1], hard)
    auc = _area(members, others)
    ordered = np.sort(others)
    told = [float((members < ordered[int(len(others) * share)]).mean()) for share in (0.01, 0.1)]
    expected = math.nan
    if hard is not None:
        slopes = _slopes(scores[0], scores[1], hard)
        expected = _area(hard[0] @ slopes, hard[1] @ slopes)
    interval = _interval(auc, scores[0], scores[1], hard, groups)
    return MembershipAttack(
        auc, interval, told[0], told[1], len(members), len(others), _area(sides[0], sides[1]), expected
    )


def _checked(difficulty: tuple[Floats, Floats] | None, sides: tuple[Exact, Exact]) -> tuple[Exact, Exact] | None:
    """Both sides' difficulties, (N, K) and (M, K), standardised together.

    Raises:
        DataError: They do not fit the losses.
    """
    if difficulty is None:
        return None
    both = [np.asarray(each, dtype=np.float64) for each in difficulty]
    fits = all(each.ndim == 2 and len(each) == len(side) for each, side in zip(both, sides, strict=True))
    if not fits or both[0].shape[1] != both[1].shape[1] or not all(np.isfinite(each).all() for each in both):
        raise DataError(
            "difficulties must be finite, with the same number of measures for each image", hint="Check the images"
        )
    together = np.concatenate(both)
    centre, scale = together.mean(axis=0), together.std(axis=0)
    scale[scale < 1e-9] = 1
    return (both[0] - centre) / scale, (both[1] - centre) / scale


def _slopes(members: Exact, others: Exact, hard: tuple[Exact, Exact]) -> Exact:
    """(K,): slopes of the scores on the difficulties within each side."""
    z = np.concatenate([each - each.mean(axis=0) for each in hard])
    y = np.concatenate([members - members.mean(), others - others.mean()])
    return np.asarray(np.linalg.solve(z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1]), z.T @ y))


def _adjusted(members: Exact, others: Exact, hard: tuple[Exact, Exact] | None) -> tuple[Exact, Exact]:
    """The scores minus the part that difficulty explains."""
    if hard is None:
        return members, others
    slopes = _slopes(members, others, hard)
    return members - hard[0] @ slopes, others - hard[1] @ slopes


def _area(members: Exact, others: Exact) -> float:
    """The probability that a member's score is the lower one; ties count half."""
    ordered = np.sort(others)
    higher = len(others) - (ordered.searchsorted(members, "left") + ordered.searchsorted(members, "right")) / 2
    return float(higher.sum() / (len(members) * len(others)))


def _interval(
    auc: float, members: Exact, others: Exact, hard: tuple[Exact, Exact] | None, groups: list[NDArray[np.int64]]
) -> tuple[float, float]:
    """The 95 % interval of the AUC, by patient."""
    patients = [int(of.max()) + 1 for of in groups]
    fewest = min(patients)
    if fewest < 2:
        return 0.0, 1.0
    if auc in (0.0, 1.0):
        return proportion_interval(np.full(fewest, auc > 0), None)
    variance = 0.0
    for side in (0, 1):
        without = []
        for patient in range(patients[side]):
            kept = [np.ones(len(of), dtype=bool) for of in groups]
            kept[side] = groups[side] != patient
            some = None if hard is None else (hard[0][kept[0]], hard[1][kept[1]])
            without.append(_area(*_adjusted(members[kept[0]], others[kept[1]], some)))
        variance += (patients[side] - 1) * float(np.var(without))
    reach = float(stats.t.ppf(0.975, fewest - 1)) * math.sqrt(variance) / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    low, high = (1 / (1 + math.exp(-min(max(centre + end, -700), 700))) for end in (-reach, reach))
    return low, high
