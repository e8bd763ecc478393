"""Does the model memorise training images?"""

from __future__ import annotations

from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.reporting.answers.base import Answer, capital
from anatogen.reporting.results import CopyFinding, MembershipResult, PrivacyResult, Report
from anatogen.reporting.tables import (
    Table,
    TableRow,
    amount,
    counted,
    in_words,
    p_value,
    percent,
    ratio,
    with_interval,
)


def answer(report: Report) -> Answer:
    """Whether copies of training images are suspected, and whether the model's loss tells them."""
    found = report.privacy
    question, topic = "Does the model memorise training images?", "Memorisation"
    if not found:
        return Answer("privacy", question, topic, measured=False)
    status = privacy_status(report)
    notes = [
        "A copy is suspected where an image lies nearer to a training image, relative to its further neighbours, than "
        "99 % of real images of unseen patients do. Chance alone flags some; the rate counts where it is above that."
    ]
    if status == "flagged by learned features":
        notes.insert(0, "The verdict above is by pixels; by learned features the images are flagged for copying.")
    tables = [_nearest(found)]
    if found.attack:
        tables.append(_membership(found.attack))
        if found.attack.difficulty_auc is not None:
            notes.append(
                "Any model has a lower loss on easier images. The attack therefore subtracts from the loss what fixed "
                "filters, which were trained on nothing, have as theirs on the same images. Differences between "
                "training and unseen patients that such filters do not see still count; only a second model, trained "
                "on neither, would tell these from memorisation."
            )
    else:
        notes.append(f"Membership inference was not measured: it needs the run ({Answer('privacy', '', '').hint}).")
    return Answer(
        "privacy",
        question,
        topic,
        value=percent(found.copy_rate),
        brief=f"copy rate, {percent(found.expected)} by chance; {status}",
        verdict=found.verdict or _verdict(found, status),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def privacy_status(report: Report) -> str:
    """ "flagged for copying", "flagged by learned features", "no copying found", "undecided" or "not measured"."""
    found = report.privacy
    if not found:
        return "not measured"
    if found.above_chance or (found.p_value is not None and found.p_value < SIGNIFICANCE):
        return "flagged for copying"
    by_features = found.features.p_value if found.features else None
    if by_features is not None and by_features < SIGNIFICANCE:
        return "flagged by learned features"
    return "undecided" if found.detectable is None else "no copying found"


def _counts(found: CopyFinding) -> tuple[str, str]:
    return counted(found.n_generated, "generated image"), counted(found.n_heldout, "real image")


def _verdict(found: PrivacyResult, status: str) -> str:
    """Of a report that holds none."""
    generated, unseen = _counts(found)
    return (
        f"{capital(status)}: the copy rate of {generated} is {in_words(found.copy_rate, found.ci95, percent)}, "
        f"{percent(found.expected)} expected by chance ({p_value(found.p_value)}), measured against {unseen} of unseen "
        "patients."
    )


def _nearest(found: PrivacyResult) -> Table:
    generated, unseen = _counts(found)
    columns = ("compared by", "copy rate [95 % interval]", "by chance", "p", "least rate told from chance", "threshold")
    rows = [_copies("pixels", found), *([_copies("learned features", found.features)] if found.features else [])]
    caption = f"Nearest training images of {generated}, against those of {unseen} of unseen patients"
    return Table(caption, columns, tuple(rows))


def _copies(name: str, found: CopyFinding) -> TableRow:
    cells = (
        with_interval(found.copy_rate, found.ci95, percent),
        percent(found.expected),
        p_value(found.p_value),
        percent(found.detectable),
        ratio(found.threshold),
    )
    return TableRow(name, cells)


def _membership(attack: MembershipResult) -> Table:
    cells = {
        "AUC [95 % interval], 0.5 is chance": with_interval(attack.auc, attack.ci95),
        "AUC by the loss alone": ratio(attack.uncalibrated_auc),
        "AUC by difficulty alone": ratio(attack.difficulty_auc),
        "told at 1 % false alarms": percent(attack.tpr_at_1),
        "at 10 %": percent(attack.tpr_at_10),
        "training images": amount(attack.n_members),
        "unseen images": amount(attack.n_nonmembers),
    }
    caption = "Membership inference: does the model's loss tell its training images?"
    return Table(caption, ("attack by", *cells), (TableRow("loss", tuple(cells.values())),))
