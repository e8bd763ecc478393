"""The losses of discriminators of patches, an item at a time (Park et al. 2019, section 3; Lim and Ye 2017).

MONAI's `PatchAdversarialLoss` squashes the scores by tanh first, which takes the gradient where they are far off, and
hinges the generator's loss as well; the papers do not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def by_item(scores: Tensor) -> Tensor:
    """The mean of each item, (B, ...) -> (B,)."""
    return scores.flatten(1).mean(1)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The loss of a discriminator with scores `real` and `fake`, (B,)."""
    return by_item(functional.relu(1 - real)) + by_item(functional.relu(1 + fake))


def fooled(fake: list[list[Tensor]]) -> Tensor:
    """The loss of a generator, (B,), from the features of each layer of each scale, the last of them the scores."""
    return torch.stack([-by_item(scale[-1]) for scale in fake]).mean(0)


def told_apart(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """The loss of the discriminators of all scales, (B,)."""
    return torch.stack([hinge(r[-1], f[-1]) for r, f in zip(real, fake, strict=True)]).mean(0)


def feature_loss(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    """The mean L1 distance between the features of fake and real images over layers and scales, (B,)."""
    terms = [
        by_item((ours - theirs).abs())
        for of_fake, of_real in zip(fake, real, strict=True)
        for ours, theirs in zip(of_fake[:-1], of_real[:-1], strict=True)
    ]
    return torch.stack(terms).sum(0) / len(fake)
