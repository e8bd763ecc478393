"""Do the images follow the anatomy?"""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers.base import (
    Answer,
    images_in_words,
    mean_in_words,
    per_class,
    split_in_words,
    without_interval,
)
from anatogen.reporting.results import (
    Absences,
    FaithfulnessResult,
    Measure,
    Overlaps,
    Pair,
    ReconstructionResult,
    Report,
    Score,
)
from anatogen.reporting.tables import (
    Show,
    Table,
    TableRow,
    amount,
    counted,
    decibels,
    general,
    interval,
    millimetres,
    percent,
    ratio,
    signed_percent,
    with_interval,
)

_MEASURES: tuple[tuple[Measure, str, str, Show], ...] = (
    ("dice", "Dice", "Dice: overlap, 1 is best", ratio),
    ("hd95", "HD95", "HD95: 95 % Hausdorff distance in mm, where both have the class; 0 is best", millimetres),
    ("missed", "missed", "Missed: share of the images with the class in their map that lack it; 0 is best", percent),
    ("nsd", "NSD", "NSD: normalised surface Dice, share of surfaces within one pixel of the other; 1 is best", ratio),
    ("volume_error", "volume error", "Volume error: relative and signed, 0 is best", signed_percent),
)  # fmt: skip
_PAIRS: tuple[tuple[Pair, str, str], ...] = (
    ("gen_map", "m_gen, m", ""),
    ("gen_real", "m_gen, m_real", ""),
    ("real_map", "m_real, m", "the ceiling"),
)
_DEGREES = ((0.95, "closely"), (0.8, "largely"), (0.5, "in part"), (float("-inf"), "poorly"))
_OF_EDITED_MAPS = (
    "The label maps are edited, and no real image has such a map. So {} of the real images that the segmenter learnt "
    "from, and as many of those that give the ceiling, are warped so that a class is larger or smaller. A "
    "segmenter of real shapes only can miss much of a growth, in right images too."
)
_POOR_SEGMENTER = 0.5  # a ceiling below this says more of the segmenter than of the images


def answer(report: Report, classes: Sequence[str]) -> Answer:
    """How well the anatomy was followed, in percent of what real images reach, and the table of every overlap."""
    found = report.faithfulness
    question, topic = "Do the images follow the anatomy?", "Anatomy followed"
    if not found:
        return Answer("faithfulness", question, topic, measured=False)
    obeyed, ceiling = found.dice_gen_map or Score(), found.dice_real_map or Score()
    verdict, brief = _verdict(report, obeyed, ceiling.mean)
    tables = [_overlaps("Generated and real images, as the segmenter sees them", found, classes, ceiling=True)]
    tables += _absent(found.absent)
    tables += _reconstruction(report.reconstruction or ReconstructionResult())
    if found.free:
        caption = "Free classes, which the model was left to infer: agreement is not asked for"
        tables.append(_overlaps(caption, found.free, classes, ceiling=False))
    notes = tuple(_notes(found, obeyed, ceiling.mean, warped=_warped(report)))
    return Answer("faithfulness", question, topic, ratio(obeyed.mean), brief, f"{verdict}.", tuple(tables), notes)


def _verdict(report: Report, obeyed: Score, highest: float | None) -> tuple[str, str]:
    """The sentence and the few words for the summary."""
    measured = f"n {images_in_words(report)} ({split_in_words(report)})"
    if obeyed.mean is None:
        brief = "mean Dice; the ceiling was not measured"
        return f"O{measured} Dice is not defined: no given class is in a label map", brief
    verdict = f"{measured} the auxiliary segmenter finds the given anatomy with a mean Dice of {mean_in_words(obeyed)}"
    if not highest:
        return f"O{verdict}", "mean Dice; the ceiling was not measured"
    share = f"{100 * obeyed.mean / highest:.0f} % of the ceiling"
    own = " of the model's own data set" if report.from_elsewhere else ""
    own += f", {percent(_warped(report))} of them warped" if _warped(report) else ""
    verdict += f", {share} of {ratio(highest)} that it reaches on real images{own}"
    brief = f"mean Dice; {share}, {ratio(highest)}"
    if ends := interval(obeyed.ci95):
        return f"They follow it {_degree(ends, highest)}: o{verdict}", brief
    return f"O{verdict}", brief


def _warped(report: Report) -> float:
    return (report.segmenter.warped if report.segmenter else None) or 0.0


def _notes(found: FaithfulnessResult, obeyed: Score, highest: float | None, *, warped: float) -> list[str]:
    notes = [
        "m is the label map, m_gen the segmentation of the image that was generated from it, m_real that of the real "
        "image of the map. (m_real, m) is the ceiling: what real images reach.",
        "The auxiliary segmenter is a UNet, trained on real images of held-out patients that the generator never saw. "
        "Each measure is taken over a patient's slices together, then averaged over patients; intervals are over "
        "patients, by Student's t after Hall's removal of skewness. Only classes that were given and annotated count.",
        "Closely means 95 % of the ceiling or more, largely 80 %, in part 50 %, poorly less; two words where the "
        "interval spans two; without an interval, no word. More than 100 % is possible: generated images can be "
        "easier to segment than real ones.",
    ]
    if warped:
        notes.insert(2, _OF_EDITED_MAPS.format(percent(warped)))
    if highest is not None and highest < _POOR_SEGMENTER:
        notes.insert(0, f"The ceiling is low ({ratio(highest)}): the auxiliary segmenter does poorly on this data set.")
    return [*notes, *without_interval(found.scores()), *_not_defined(obeyed, found.absent)]


def _absent(found: Absences) -> list[Table]:
    """The classes where they are to be absent."""
    rows = []
    for name, made in found.gen_map.items():
        real = found.real_map.get(name)
        cells = (amount(made.images), amount(made.patients), percent(made.invented), general(made.volume))
        rows.append(TableRow(name, (*cells, percent(real.invented if real else None))))
    unit = {"mm2": "mm²", "mm3": "mm³"}.get(found.unit or "", "mm")
    heads = ("class", "images", "patients", "invented in", f"mean {unit} where invented", "in real images")
    caption = (
        "Where a given class is absent from the label map: found all the same, on more than "
        f"{amount(found.stray.voxels)} pixels and {percent(found.stray.share)} of the image. Dice is not defined there"
    )
    return [Table(caption, heads, tuple(rows))] if rows else []


def _reconstruction(found: ReconstructionResult) -> list[Table]:
    """What the autoencoder of a latent model makes of the real images."""
    if found.dice is None:
        return []
    cells = (with_interval(found.dice.mean, found.dice.ci95), decibels(found.psnr), amount(found.images))
    caption = "Real images through the model's autoencoder alone: what the model can never pass"
    return [Table(caption, ("", "Dice(m_rec, m)", "PSNR", "images"), (TableRow("reconstructed real images", cells),))]


def _not_defined(obeyed: Score, found: Absences) -> list[str]:
    """Which classes have no Dice, and which images show no given class."""
    notes = []
    if names := [name for name, value in obeyed.per_class.items() if value is None]:
        notes.append(f"Not defined, because no label map shows it where it was given: the Dice of {', '.join(names)}.")
    if count := found.not_defined.images:
        named = found.not_defined.named
        more = ", ..." if count > len(named) else ""
        notes.append(f"{counted(count, 'image')} without a given class in the label map: {', '.join(named)}{more}.")
    return notes


def _degree(ends: tuple[float, float], ceiling: float) -> str:
    words = [next(word for least, word in _DEGREES if end / ceiling >= least) for end in ends]
    return " to ".join(dict.fromkeys(words))


def _overlaps(caption: str, found: Overlaps, classes: Sequence[str], *, ceiling: bool) -> Table:
    rows = []
    for measure, name, meaning, show in _MEASURES:
        for pair, formula, text in _PAIRS:
            if score := found.of(measure, pair):
                cells = (with_interval(score.mean, score.ci95, show), *per_class(score, classes, show))
                rows.append(TableRow(f"{name}({formula})", cells, text, meaning))
        obeyed, highest = found.of(measure, "gen_map"), found.of(measure, "real_map")
        if ceiling and measure == "dice" and obeyed and highest:
            pairs = [(obeyed.mean, highest.mean)]
            pairs += [(obeyed.per_class.get(c), highest.per_class.get(c)) for c in classes]
            shares = tuple(percent(a / b if a is not None and b else None) for a, b in pairs)
            rows.append(TableRow("share of the ceiling reached", shares, "", meaning))
    return Table(caption, ("", "mean [95 % interval]", *classes), tuple(rows))
