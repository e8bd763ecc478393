"""The verdicts on copies and on membership inference, in plain sentences."""

from __future__ import annotations

import math

from anatogen.metrics.copies import CopyRate
from anatogen.metrics.membership import MembershipAttack

SELECTED_BY_COPIES = (
    "These images were selected by this very measure (--reject-copies): the copy rate is what the gate left over and "
    "does not say how often the model copies."
)


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
    return text if attack is None else f"{text} {membership_sentence(attack)}"


def membership_sentence(attack: MembershipAttack) -> str:
    """What the model's loss reveals of its training images, beyond what their difficulty explains, in a plain
    sentence.
    """
    low, high = attack.ci95
    calibrated = not math.isnan(attack.difficulty_auc)
    finding = (
        f"training images from unseen ones by its loss{', their difficulty accounted for,' if calibrated else ''} with "
        f"an AUC of {attack.auc:.2f} (95 % interval {low:.2f} to {high:.2f}, 0.5 is chance; "
        f"{_short(100 * attack.tpr_at_1)} % of them at 1 % false alarms)"
    )
    if not attack.comparable:
        return (
            "Whether the model's loss reveals training images cannot be told: they differ so much from the unseen "
            f"ones that fixed filters tell them apart, with an AUC of {attack.difficulty_auc:.2f}."
        )
    if attack.above_chance:
        return f"The model tells {finding}: it retains information about training patients."
    because = ""
    if calibrated and abs(attack.uncalibrated_auc - 0.5) > max(0.03, abs(attack.auc - 0.5)):
        because = (
            f" (by the loss alone the AUC is {attack.uncalibrated_auc:.2f}, but the images differ in difficulty: "
            f"{attack.difficulty_auc:.2f} would be expected of a model that saw neither)"
        )
    return f"The model does not reliably tell {finding}{because}."


def _short(value: float) -> str:
    """Two digits, and all of those before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _p(value: float) -> str:
    return "p < 1e-6" if value < 1e-6 else f"p = {value:.2g}"


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
