"""Whether a model's loss gives away whom it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen.metrics.proportions import finite, proportion_interval, require_groups

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class MembershipAttack:
    """How well a model's loss tells the images that it was trained on from others.

    auc: the probability that a training image has the lower loss of the two; 0.5 is chance, 1 a model that gives all
    away. ci95: by patient. tpr_at_1, tpr_at_10: the share of training images told where 1 % and 10 % of others are
    taken for one.
    """

    auc: float
    ci95: tuple[float, float]
    tpr_at_1: float
    tpr_at_10: float
    n_members: int
    n_nonmembers: int

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.ci95[0] > 0.5


def membership_inference(
    loss_members: Floats,
    loss_nonmembers: Floats,
    member_groups: NDArray[np.generic] | None = None,
    nonmember_groups: NDArray[np.generic] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> MembershipAttack:
    """The attack that takes an image for a training image where the denoiser's loss on it is low.

    loss_members (N,), loss_nonmembers (M,): of `denoising_losses`. Groups: the patient of each; both sides' patients
    are drawn again for the interval, images where there are none. The attack is Matsumoto et al. 2023 ("Membership
    Inference Attacks against Diffusion Models"; Duan et al. 2023, SecMI, refine it), the AUC that of Mann and Whitney
    1947. An average hides the few who are given away with certainty, therefore the two rates at few false alarms
    (Carlini et al. 2022, "Membership Inference Attacks From First Principles"). Where the two sides do not overlap at
    all, the interval is the exact one of as many wins as there are pairs of patients. One patient alone on a side gives
    no interval: (0, 1).
    """
    members, others = finite(loss_members, "members'"), finite(loss_nonmembers, "non-members'")
    require_groups((members, member_groups), (others, nonmember_groups))
    _, who = np.unique(np.arange(len(members)) if member_groups is None else member_groups, return_inverse=True)
    _, whom = np.unique(np.arange(len(others)) if nonmember_groups is None else nonmember_groups, return_inverse=True)
    a, b = np.bincount(who), np.bincount(whom)
    wins = np.empty((len(a), len(b)))  # of each patient's images over each other patient's, ties by half
    for other in range(len(b)):
        theirs = np.sort(others[whom == other])
        lost = (theirs.searchsorted(members, "left") + theirs.searchsorted(members, "right")) / 2
        wins[:, other] = np.bincount(who, len(theirs) - lost)
    auc = float(wins.sum() / (len(members) * len(others)))
    pairs = min(len(a), len(b))
    if pairs < 2:
        interval = 0.0, 1.0
    elif auc in (0.0, 1.0):
        interval = proportion_interval(np.full(pairs, auc > 0), None)
    else:
        rng = np.random.default_rng(seed)
        w, v = (rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64) for n in (len(a), len(b)))
        again = np.einsum("db,db->d", w @ wins, v) / ((w @ a) * (v @ b))
        low, high = np.quantile(again, [0.025, 0.975])
        interval = float(low), float(high)
    ordered = np.sort(others)
    told = [float((members < ordered[int(len(others) * share)]).mean()) for share in (0.01, 0.1)]
    return MembershipAttack(auc, interval, told[0], told[1], len(members), len(others))
