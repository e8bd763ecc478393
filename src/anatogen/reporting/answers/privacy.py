"""Are they anybody's copy?"""

from __future__ import annotations

from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.reporting.answers.base import Answer, Results, capital
from anatogen.reporting.tables import (
    Line,
    Table,
    amount,
    counted,
    in_words,
    number,
    p_value,
    percent,
    ratio,
    with_interval,
)


def answer(results: Results) -> Answer:
    """Whether copies of training images are suspected, and whether the model's loss tells them."""
    found: Results = results.get("privacy") or {}
    question, topic = "Are they anybody's copy?", "Copies of patients"
    if not found:
        return Answer("privacy", question, topic, measured=False)
    status = privacy_status(results)
    rate = in_words(found.get("copy_rate"), found.get("ci95"), percent)
    generated, unseen = (
        counted(found.get("n_generated"), "generated image"),
        counted(found.get("n_heldout"), "real image"),
    )
    verdict = found.get("verdict") or (
        f"{capital(status)}: the copy rate of {generated} is {rate}, {percent(found.get('expected'))} expected by chance "
        f"({p_value(found.get('p_value'))}), measured against {unseen} of unseen patients."
    )
    columns = ("compared by", "copy rate [95 % interval]", "by chance", "p", "least rate told from chance", "threshold")
    features: Results = found.get("features") or {}
    lines = [_copies("pixels", found)] + ([_copies("learned features", features)] if features else [])
    tables = [
        Table(
            f"Nearest training images of {generated}, against those of {unseen} of unseen patients",
            columns,
            tuple(lines),
        )
    ]
    notes = [
        "A copy is suspected where an image lies nearer to a training image, set against its further neighbours, than 99 % of real "
        "images of unseen patients do. Chance alone flags some; the rate counts where it is above that."
    ]
    if status == "flagged by learned features":
        notes.insert(0, "The verdict above is by pixels; by learned features the images are flagged for copying.")
    if attack := found.get("attack"):
        cells = (
            with_interval(attack.get("auc"), attack.get("ci95")),
            ratio(attack.get("uncalibrated_auc")),
            ratio(attack.get("difficulty_auc")),
            percent(attack.get("tpr_at_1")),
            percent(attack.get("tpr_at_10")),
            amount(attack.get("n_members")),
            amount(attack.get("n_nonmembers")),
        )
        heads = (
            "AUC [95 % interval], 0.5 is chance",
            "AUC by the loss alone",
            "AUC by difficulty alone",
            "told at 1 % false alarms",
            "at 10 %",
            "training images",
            "unseen images",
        )
        caption = "Membership inference: does the model's loss tell its training images?"
        tables.append(Table(caption, ("attack by", *heads), (Line("loss", cells),)))
        if number(attack.get("difficulty_auc")) is not None:
            notes.append(
                "Any model has a lower loss on easier images. So the attack is by the loss less what fixed filters, which were trained on "
                "nothing, have as theirs on the same images. Differences between training and unseen patients that such filters do "
                "not see still count; only a second model, trained on neither, would tell these from memory."
            )
    else:
        notes.append(f"Membership inference was not measured: it needs the run ({Answer('privacy', '', '').hint}).")
    brief = f"copy rate, {percent(found.get('expected'))} by chance; {status}"
    return Answer(
        "privacy", question, topic, percent(found.get("copy_rate")), brief, verdict, tuple(tables), tuple(notes)
    )


def privacy_status(results: Results) -> str:
    """ "flagged for copying", "flagged by learned features", "no copying found", "undecided" or "not measured"."""
    found: Results = results.get("privacy") or {}
    if not found:
        return "not measured"
    chance, by_features = number(found.get("p_value")), number((found.get("features") or {}).get("p_value"))
    if found.get("flagged") is True or (chance is not None and chance < SIGNIFICANCE):
        return "flagged for copying"
    if by_features is not None and by_features < SIGNIFICANCE:
        return "flagged by learned features"
    return "undecided" if number(found.get("detectable")) is None else "no copying found"


def _copies(name: str, found: Results) -> Line:
    cells = (
        with_interval(found.get("copy_rate"), found.get("ci95"), percent),
        percent(found.get("expected")),
        p_value(found.get("p_value")),
        percent(found.get("detectable")),
        ratio(found.get("threshold")),
    )
    return Line(name, cells)
