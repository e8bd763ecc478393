"""Are they useful for training?"""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers.base import Answer, capital, mean_in_words, per_class, without_interval
from anatogen.reporting.results import NnunetUtilityResult, Report, Trained, UtilityResult
from anatogen.reporting.tables import (
    NOTHING,
    Table,
    TableRow,
    amount,
    counted,
    in_words,
    interval,
    ratio,
    signed,
    with_interval,
)


def answer(report: Report, classes: Sequence[str]) -> Answer:
    """How well segmenters do that were trained on real images, on synthetic ones, and on both."""
    found = report.utility or UtilityResult()
    question, topic = "Are they useful for training?", "Useful for training"
    real, synthetic = found.real or Trained(), found.synthetic or Trained()
    mixtures = found.mixtures or ((found.both,) if found.both else ())
    if not (real or synthetic or mixtures):
        return Answer("utility", question, topic, measured=False)
    apart = _between_seeds((real, synthetic, *mixtures))
    notes: tuple[str, ...] = (
        "The same segmenter, steps, seeds and validation for each row, tested on real patients of the split test. "
        "Intervals are over patients; differences are paired by patient. A difference whose interval holds 0 is not "
        "significant.",
        "One training a row: variation between seeds is not in the intervals; --utility-seeds 3 measures it."
        if apart is None
        else f"Between seeds the mean Dice of a row differs by up to {ratio(apart)}: no smaller difference is claimed "
        "either.",
    )
    rows = [_training(name, e, classes) for name, e in (("real", real), ("synthetic", synthetic)) if e]
    rows += [_training("mixed", e, classes) for e in mixtures]
    columns = ("trained on", *_HEADS, *classes)
    caption = "A segmenter trained on real, on synthetic and on both, tested on real patients"
    return Answer(
        "utility",
        question,
        topic,
        value=ratio(synthetic.mean),
        brief=f"Dice when trained on them alone; real images give {ratio(real.mean)}",
        verdict=f"{capital(_verdict(found, mixtures, apart))}.",
        tables=(Table(caption, columns, tuple(rows)), *_by_nnunet(found.nnunet, classes)),
        notes=(*notes, *without_interval((real, synthetic, *mixtures))),
    )


_HEADS = ("Dice [95 % interval]", "difference to real alone", "real images", "synthetic images")


def _verdict(found: UtilityResult, mixtures: Sequence[Trained], apart: float | None) -> str:
    real, synthetic = found.real or Trained(), found.synthetic or Trained()
    counts = (each.n.test_patients for each in (synthetic, *mixtures, real) if each.n)
    where, parts = f"on {counted(next(counts, None), 'real test patient')}", []
    if synthetic:
        against = f" against {mean_in_words(real)}" if real else ""
        parts.append(
            f"a segmenter trained on synthetic images alone {_compared(synthetic, apart)} {where}: "
            f"Dice {mean_in_words(synthetic)}{against}"
        )
    if both := (found.both or (mixtures[0] if mixtures else None)):
        change = in_words(both.difference_to_real, both.difference_ci95, signed, both.no_difference_interval)
        parts.append(f"one trained on both ({both.name or 'mixed'}) {_compared(both, apart)}: Dice {change}")
    return "; ".join(parts) or f"only training on real images was measured, {where}"


def _by_nnunet(found: NnunetUtilityResult | None, classes: Sequence[str]) -> tuple[Table, ...]:
    """The same table with nnU-Net as the segmenter, where it was trained."""
    rows = tuple(_training(name, each, classes) for name, each in (found.trainings() if found else {}).items())
    if not found or not rows:
        return ()
    caption = (
        f"nnU-Net {found.version or 'v2'} ({found.configuration}, {counted(found.epochs, 'epoch')}) trained on the "
        "same images and tested on the same patients; it plans each training from the images that it is given. One "
        "training a row: variation between two trainings on the same images is not in the intervals"
    )
    return (Table(caption, ("trained on", *_HEADS, *classes), rows),)


def _between_seeds(trainings: Sequence[Trained]) -> float | None:
    """The largest range of a row's mean Dice over its seeds; None where each has one."""
    means = [[mean for mean in each.mean_of_each_seed if mean is not None] for each in trainings]
    return max((max(each) - min(each) for each in means if len(each) > 1), default=None)


def _compared(training: Trained, apart: float | None) -> str:
    """In words, and no difference where it may be chance: of patients, by its interval, or of seeds, by how far they
    are `apart`.
    """
    ends, difference = interval(training.difference_ci95), training.difference_to_real
    if difference is None:
        return "was not compared with one trained on real ones"
    if ends is None or ends[0] <= 0 <= ends[1] or abs(difference) <= (apart or 0):
        return "does not differ significantly from one trained on real ones"
    return f"does {'better' if ends[0] > 0 else 'worse'} than one trained on real ones"


def _training(name: str, training: Trained, classes: Sequence[str]) -> TableRow:
    difference = with_interval(training.difference_to_real, training.difference_ci95, signed)
    cells = (
        with_interval(training.mean, training.ci95),
        NOTHING if name == "real" else difference,
        amount(training.n.real_images or None),
        amount(training.n.synthetic_images),
        *per_class(training, classes, ratio),
    )
    return TableRow(training.name or name, cells)
