"""What could not be asked of the images, and why."""

from __future__ import annotations

from anatogen.reporting.results import Report

SECTION_NAMES = {
    "faithfulness": "faithfulness",
    "similarity": "similarity to real images",
    "utility": "utility",
    "utility_nnunet": "utility by nnU-Net",
    "realism": "realism",
    "privacy": "copies of training images",
    "membership": "membership inference",
    "left_free": "classes left free",
    "variation": "variation between seeds",
    "dice_against_steps": "Dice against solver steps",
}


def not_applicable_in_words(report: Report) -> str:
    """One line: "variation between seeds (the run was not found)"; "" where everything could be run."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.not_applicable.items():
        by_reason.setdefault(reason, []).append(SECTION_NAMES.get(name, name))
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
