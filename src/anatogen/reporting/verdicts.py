"""The verdict on copies in plain sentences."""

from __future__ import annotations

import math

from anatogen.metrics.copies import CopyRate
from anatogen.metrics.membership import MembershipAttack


def certainty(copies: CopyRate, attack: MembershipAttack | None = None) -> str:
    """The verdict in plain sentences: flagged, not flagged or undecided, and with what certainty."""
    count, chance = int(copies.flagged.sum()), copies.expected * copies.n_generated
    finding = (
        f"{count} of {copies.n_generated} images {'lies' if count == 1 else 'lie'} nearer to a training image than "
        f"{100 * (1 - copies.level):.3g} % of {copies.n_heldout} real images of unseen patients do "
        f"({_short(chance)} expected by chance; {_p(copies.p_value)}{' by patient' if copies.grouped else ''}; "
        f"95 % interval {_percent(copies.ci95)})"
    )
    if copies.above_chance:
        text = f"Flagged for copying: {finding}."
    elif math.isnan(copies.detectable):
        text = f"Undecided: {finding}. There are too few images or patients to tell any rate of copies from chance."
    else:
        text = (
            f"No copying found: {finding}. "
            f"A rate of {_short(100 * copies.detectable)} % or more would have been told from chance."
        )
    if attack is None:
        return text
    low, high = attack.ci95
    finding = (
        f"training images from unseen ones by its loss with an AUC of {attack.auc:.2f} (95 % interval {low:.2f} to "
        f"{high:.2f}, 0.5 is chance; {_short(100 * attack.tpr_at_1)} % of them at 1 % false alarms)"
    )
    if attack.above_chance:
        return f"{text} The model tells {finding}: it has kept something of the patients it was trained on."
    return f"{text} The model does not reliably tell {finding}."


def _short(value: float) -> str:
    """Two digits, and all of those before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _p(value: float) -> str:
    return "p < 1e-6" if value < 1e-6 else f"p = {value:.2g}"


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
