"""Do the images follow the anatomy?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anatogen.reporting.answers.base import (
    Answer,
    Results,
    images_in_words,
    mean_in_words,
    per_class,
    split_in_words,
    without_interval,
)
from anatogen.reporting.tables import (
    Line,
    Show,
    Table,
    amount,
    counted,
    general,
    interval,
    millimetres,
    number,
    percent,
    ratio,
    signed_percent,
    with_interval,
)

_MEASURES: tuple[tuple[str, str, str, Show], ...] = (
    ("dice", "Dice", "Dice: overlap, 1 is best", ratio),
    ("hd95", "HD95", "HD95: 95 % Hausdorff distance in mm, where both have the class; 0 is best", millimetres),
    ("missed", "missed", "Missed: share of the images whose map shows the class in which it is not found; 0 is best", percent),
    ("nsd", "NSD", "NSD: normalised surface Dice, the share of both surfaces that lie on each other; 1 is best", ratio),
    ("volume_error", "volume error", "Volume error: relative and signed, 0 is best", signed_percent),
)  # fmt: skip
_PAIRS = (("gen_map", "m_gen, m", ""), ("gen_real", "m_gen, m_real", ""), ("real_map", "m_real, m", "the ceiling"))
_DEGREES = ((0.95, "closely"), (0.8, "largely"), (0.5, "in part"), (float("-inf"), "poorly"))
_POOR_JUDGE = 0.5  # a ceiling below this says more of the segmenter than of the images


def answer(results: Results, classes: Sequence[str]) -> Answer:
    """How well the anatomy was followed, in percent of what real images reach, and the table of every overlap."""
    found: Results = results.get("faithfulness") or {}
    question, topic = "Do the images follow the anatomy?", "Anatomy followed"
    if not found:
        return Answer("faithfulness", question, topic, measured=False)
    obeyed, ceiling = found.get("dice_gen_map") or {}, found.get("dice_real_map") or {}
    mean, highest = number(obeyed.get("mean")), number(ceiling.get("mean"))
    own = " of the model's own data set" if results.get("split") == ["elsewhere"] else ""
    verdict = (
        f"On {images_in_words(results)} ({split_in_words(results)}) a segmenter finds the anatomy that was asked for with "
        f"a mean Dice of {mean_in_words(obeyed)}"
    )
    if mean is None:
        verdict = f"On {images_in_words(results)} ({split_in_words(results)}) Dice is not defined: no given class is in a label map"
    brief = "mean Dice; the ceiling was not measured"
    if mean is not None and highest:
        share = f"{100 * mean / highest:.0f} % of the ceiling"
        verdict += f", {share} of {ratio(highest)} that it reaches on real images{own}"
        if ends := interval(obeyed.get("ci95")):
            verdict = f"They follow it {_degree(ends, highest)}: on{verdict[2:]}"
        brief = f"mean Dice; {share}, {ratio(highest)}"
    notes = [
        "m is the label map, m_gen what a segmenter finds in the image that was generated from it, m_real what it finds in the real "
        "image of the map. (m_real, m) is the ceiling: what real images reach.",
        "The segmenter is a UNet, trained on real images of held-out patients that the generator never saw. Each measure is "
        "taken over a patient's slices together, then averaged over patients; intervals are over patients, by Student's t after "
        "Hall's removal of skewness. "
        "Only classes that were given and annotated count.",
        "Closely means 95 % of the ceiling or more, largely 80 %, in part 50 %, poorly less; two words where the interval "
        "spans two; without an interval, no word. More than 100 % is possible: generated images can be easier to segment than real ones.",
    ]
    if highest is not None and highest < _POOR_JUDGE:
        notes.insert(0, f"The ceiling is low ({ratio(highest)}): the segmenter is a poor judge of this data set.")
    notes += without_interval(e for key, e in found.items() if isinstance(e, dict) and key != "free")
    tables = [_overlaps("Generated and real images, as the segmenter sees them", found, classes, ceiling=True)]
    tables += _absent(found.get("absent") or {})
    notes += _not_defined(obeyed, found.get("absent") or {})
    if free := found.get("free"):
        caption = "Free classes, which the model was left to infer: agreement is not asked for"
        tables.append(_overlaps(caption, free, classes, ceiling=False))
    return Answer("faithfulness", question, topic, ratio(mean), brief, f"{verdict}.", tuple(tables), tuple(notes))


def _absent(found: Results) -> list[Table]:
    """The classes where they are to be absent."""
    made, real = found.get("gen_map") or {}, found.get("real_map") or {}
    lines = []
    for name, entry in made.items():
        in_real = real.get(name) or {}
        cells = (amount(entry.get("images")), amount(entry.get("patients")), percent(entry.get("invented")))
        lines.append(Line(name, (*cells, general(entry.get("volume")), percent(in_real.get("invented")))))
    unit = {"mm2": "mm²", "mm3": "mm³"}.get(str(found.get("unit")), "mm")
    heads = ("class", "images", "patients", "invented in", f"mean {unit} where invented", "in real images")
    stray = found.get("stray") or {}
    caption = (
        "Where a given class is absent from the label map: found all the same, on more than "
        f"{amount(stray.get('voxels'))} pixels and {percent(stray.get('share'))} of the image. Dice has no value there and leaves it out"
    )
    return [Table(caption, heads, tuple(lines))] if lines else []


def _not_defined(obeyed: Results, found: Results) -> list[str]:
    """Which classes have no Dice, and which images show no given class."""
    notes = []
    if names := [name for name, value in (obeyed.get("per_class") or {}).items() if number(value) is None]:
        notes.append(f"Not defined, because no label map shows it where it was given: the Dice of {', '.join(names)}.")
    empty = found.get("not_defined") or {}
    if count := number(empty.get("images")):
        named = [str(name) for name in empty.get("named") or ()]
        more = ", ..." if count > len(named) else ""
        notes.append(f"{counted(count, 'image')} without a given class in the label map: {', '.join(named)}{more}.")
    return notes


def _degree(ends: tuple[float, float], ceiling: float) -> str:
    words = [next(word for least, word in _DEGREES if end / ceiling >= least) for end in ends]
    return " to ".join(dict.fromkeys(words))


def _overlaps(caption: str, found: Results, classes: Sequence[str], *, ceiling: bool) -> Table:
    lines = []
    for key, name, meaning, show in _MEASURES:
        for pair, formula, text in _PAIRS:
            if entry := found.get(f"{key}_{pair}"):
                cells = (with_interval(entry.get("mean"), entry.get("ci95"), show), *per_class(entry, classes, show))
                lines.append(Line(f"{name}({formula})", cells, text, meaning))
        obeyed, highest = found.get(f"{key}_gen_map"), found.get(f"{key}_real_map")
        if ceiling and key == "dice" and obeyed and highest:
            pairs = [(obeyed.get("mean"), highest.get("mean"))]
            pairs += [
                ((obeyed.get("per_class") or {}).get(c), (highest.get("per_class") or {}).get(c)) for c in classes
            ]
            shares = tuple(percent(_quotient(a, b)) for a, b in pairs)
            lines.append(Line("share of the ceiling reached", shares, "", meaning))
    return Table(caption, ("", "mean [95 % interval]", *classes), tuple(lines))


def _quotient(a: Any, b: Any) -> float | None:
    over, under = number(a), number(b)
    return over / under if over is not None and under else None
