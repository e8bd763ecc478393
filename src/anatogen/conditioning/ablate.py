"""Mask ablation: the choice of the classes that a training sample leaves free."""

from __future__ import annotations

from torch import Tensor


def draw_given(annotated: Tensor, chance: Tensor, *, ablated_share: float = 1.0) -> Tensor:
    """Class states (B, C-1) for one training step with mask ablation (Konz et al. 2024, Algorithm 1).

    Each sample keeps its full map with probability 1 - ablated_share; otherwise each of its classes is left free with
    probability 1/2, so that all 2^(C-1) subsets are equally likely (ablated_share = 1 is the paper's).

    Args:
        annotated: bool (B, C-1), the classes annotated in each case; the others are always free.
        chance: (B, C), uniform in [0, 1): a random number for each class and one for the sample.
        ablated_share: Share of the samples that are ablated, 0 to 1.
    """
    kept, whole = chance[:, :-1] < 0.5, chance[:, -1:] >= ablated_share
    return annotated & (kept | whole)
