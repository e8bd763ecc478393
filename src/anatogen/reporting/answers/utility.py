"""Are they useful?"""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers.base import Answer, Results, capital, mean_in_words, per_class, without_interval
from anatogen.reporting.tables import (
    NOTHING,
    Line,
    Table,
    amount,
    counted,
    in_words,
    interval,
    number,
    ratio,
    signed,
    with_interval,
)


def answer(results: Results, classes: Sequence[str]) -> Answer:
    """What segmenters are worth that were trained on real images, on synthetic ones, and on both."""
    found: Results = results.get("utility") or {}
    question, topic = "Are they useful?", "Useful for training"
    real, synthetic = found.get("real") or {}, found.get("synthetic") or {}
    mixtures = found.get("mixtures") or [entry for entry in (found.get("both"),) if entry]
    if not (real or synthetic or mixtures):
        return Answer("utility", question, topic, measured=False)
    patients = next((e["n"].get("test_patients") for e in (synthetic, *mixtures, real) if e.get("n")), None)
    where, parts = f"on {counted(patients, 'real test patient')}", []
    apart = _between_seeds((real, synthetic, *mixtures))
    if synthetic:
        against = f" against {mean_in_words(real)}" if real else ""
        parts.append(
            f"a segmenter trained on synthetic images alone {_compared(synthetic, apart)} {where}: "
            f"Dice {mean_in_words(synthetic)}{against}"
        )
    if both := (found.get("both") or (mixtures[0] if mixtures else {})):
        reason = both.get("no_difference_interval")
        change = in_words(both.get("difference_to_real"), both.get("difference_ci95"), signed, reason)
        parts.append(f"one trained on both ({both.get('name', 'mixed')}) {_compared(both, apart)}: Dice {change}")
    verdict = "; ".join(parts) or f"only training on real images was measured, {where}"
    brief = f"Dice when trained on them alone; real images give {ratio(real.get('mean'))}"
    notes: tuple[str, ...] = (
        "The same segmenter, steps, seeds and validation for each line, tested on real patients of the split test. Intervals are "
        "over patients; differences are paired by patient. A difference whose interval holds 0 is not told from none.",
        "One training a line: what another seed would change is not in the intervals; --utility-seeds 3 measures it."
        if apart is None
        else f"Between seeds the mean Dice of a line differs by up to {ratio(apart)}: no smaller difference is told from none either.",
    )
    notes += without_interval((real, synthetic, *mixtures))
    lines = [_training(name, e, classes) for name, e in (("real", real), ("synthetic", synthetic)) if e]
    lines += [_training("mixed", e, classes) for e in mixtures]
    columns = (
        "trained on",
        "Dice [95 % interval]",
        "difference to real alone",
        "real images",
        "synthetic images",
        *classes,
    )
    table = Table(
        "A segmenter trained on real, on synthetic and on both, tested on real patients", columns, tuple(lines)
    )
    value = ratio(synthetic.get("mean"))
    tables = (table, *_by_nnunet(found.get("nnunet") or {}, classes))
    return Answer("utility", question, topic, value, brief, f"{capital(verdict)}.", tables, notes)


def _by_nnunet(found: Results, classes: Sequence[str]) -> tuple[Table, ...]:
    """The same table with nnU-Net as the segmenter, where it was trained."""
    lines = tuple(_training(name, found[name], classes) for name in ("real", "synthetic", "both") if found.get(name))
    heads = ("Dice [95 % interval]", "difference to real alone", "real images", "synthetic images")
    caption = (
        f"nnU-Net {found.get('version') or 'v2'} ({found.get('configuration')}, {counted(found.get('epochs'), 'epoch')}) "
        "trained on the same images and tested on the same patients; it plans each training from the images that it is given. "
        "One training a line: how far two trainings on the same images lie apart is not in the intervals"
    )
    return (Table(caption, ("trained on", *heads, *classes), lines),) if lines else ()


def _between_seeds(entries: Sequence[Results]) -> float | None:
    """The largest range of a line's mean Dice over its seeds; None where each has one."""
    means = [entry.get("mean_of_each_seed") or () for entry in entries]
    return max((max(each) - min(each) for each in means if len(each) > 1), default=None)


def _compared(entry: Results, apart: float | None) -> str:
    """In words, and no difference where it may be chance: of patients, by its interval, or of seeds, by how far they are `apart`."""
    ends, difference = interval(entry.get("difference_ci95")), number(entry.get("difference_to_real"))
    if difference is None:
        return "was not compared with one trained on real ones"
    if ends is None or ends[0] <= 0 <= ends[1] or abs(difference) <= (apart or 0):
        return "cannot be told from one trained on real ones"
    return f"does {'better' if ends[0] > 0 else 'worse'} than one trained on real ones"


def _training(name: str, entry: Results, classes: Sequence[str]) -> Line:
    n = entry.get("n") or {}
    difference = with_interval(entry.get("difference_to_real"), entry.get("difference_ci95"), signed)
    cells = (
        with_interval(entry.get("mean"), entry.get("ci95")),
        NOTHING if name == "real" else difference,
        amount(n.get("real_images")),
        amount(n.get("synthetic_images")),
        *per_class(entry, classes, ratio),
    )
    return Line(str(entry.get("name", name)), cells)
