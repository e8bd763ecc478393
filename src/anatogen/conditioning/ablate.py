"""Mask ablation: which classes a training sample leaves free."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_given(annotated: Tensor, generator: torch.Generator, *, ablated_share: float = 1.0) -> Tensor:
    """Class states (B, C-1) for one training step of the mask-ablated model (Konz et al. 2024, Algorithm 1).

    annotated: bool (B, C-1), the classes whose contours a case has; the others are always free.
    Each sample for itself is left whole with probability 1 - ablated_share; otherwise each of its classes is freed
    with probability 1/2, so that all 2^(C-1) subsets are equally likely (ablated_share = 1 is the paper's).
    """
    shape, device = annotated.shape, annotated.device
    kept = torch.rand(shape, generator=generator, device=device) < 0.5
    whole = torch.rand(shape[0], 1, generator=generator, device=device) >= ablated_share
    return annotated & (kept | whole)
