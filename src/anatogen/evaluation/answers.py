"""The four questions that are asked of generated images, answered in words and tables from the numbers of report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anatogen.evaluation.privacy import SIGNIFICANCE
from anatogen.evaluation.tables import (
    NOTHING,
    Line,
    Show,
    Table,
    amount,
    counted,
    general,
    in_words,
    interval,
    millimetres,
    number,
    p_value,
    percent,
    ratio,
    signed,
    signed_percent,
    with_error,
    with_interval,
)

Section = Literal["faithfulness", "utility", "realism", "privacy", "model"]
Results = dict[str, Any]

_MEASURES: tuple[tuple[str, str, str, Show], ...] = (
    ("dice", "Dice", "Dice: overlap, 1 is best", ratio),
    ("hd95", "HD95", "HD95: 95 % Hausdorff distance in mm, where both have the class; 0 is best", millimetres),
    ("missed", "missed", "Missed: share of images with the class in only one of the two, which HD95 leaves out; 0 is best", percent),
    ("nsd", "NSD", "NSD: normalised surface Dice, the share of both surfaces that lie on each other; 1 is best", ratio),
    ("volume_error", "volume error", "Volume error: relative and signed, 0 is best", signed_percent),
)  # fmt: skip
_PAIRS = (("gen_map", "m_gen, m", ""), ("gen_real", "m_gen, m_real", ""), ("real_map", "m_real, m", "the ceiling"))
_DEGREES = ((0.95, "closely"), (0.8, "largely"), (0.5, "in part"), (float("-inf"), "poorly"))
_POOR_JUDGE = 0.5  # a ceiling below this says more of the segmenter than of the images


@dataclass(frozen=True)
class Answer:
    """The answer to one question. value, brief: a number and a few words, for the summary.

    verdict: a sentence. notes: how to read it. measured: False where there are no numbers; then `remedy` says how to get them.
    """

    section: Section
    question: str
    topic: str
    value: str = NOTHING
    brief: str = "not measured"
    verdict: str = ""
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    measured: bool = True

    @property
    def remedy(self) -> str:
        """The command that measures it."""
        return f"anatogen evaluate RUN --dataset DATASET --out REPORT --only {self.section}"


def answers(results: Results, classes: Sequence[str] = ()) -> tuple[Answer, ...]:
    """Of the four questions, in their order. classes: in the order of the tables' columns; by default those of the results.

    results: what report.json holds; any key may be missing, and any number None or NaN.
    """
    classes = classes or class_names(results)
    return (
        _faithfulness(results, classes),
        _utility(results, classes),
        _realism(results),
        _privacy(results),
    )


def class_names(results: Results) -> tuple[str, ...]:
    """The classes that `results` have numbers for."""
    entries = [*(results.get("faithfulness") or {}).values(), *(results.get("utility") or {}).values()]
    return tuple(dict.fromkeys(name for e in entries if isinstance(e, dict) for name in e.get("per_class") or ()))


def images_in_words(results: Results) -> str:
    """ "500 images of 24 patients"."""
    n = results.get("n") or {}
    return f"{counted(n.get('images'), 'image')} of {counted(n.get('patients'), 'patient')}"


def split_in_words(results: Results) -> str:
    """ "split test", or that the label maps are from elsewhere."""
    names = [str(name) for name in results.get("split") or ()]
    if names == ["elsewhere"]:
        return "label maps of another data set"
    return f"split{'s' * (len(names) > 1)} {' and '.join(names)}" if names else "split not recorded"


def seed_of(results: Results) -> Any:
    """The seed of the images, None where it is not known."""
    return results.get("seed", (results.get("sampling") or {}).get("seed"))


def provenance(results: Results, n: str = "") -> str:
    """What a figure rests on: n, split, seed, version and command. n: where it was not made from all images."""
    seed, version, command = seed_of(results), results.get("version"), results.get("command")
    return "; ".join(
        (
            f"n = {n or images_in_words(results)}",
            split_in_words(results),
            f"seed {seed}" if seed is not None else "seed not recorded",
            f"anatogen {version}" if version else "version not recorded",
            f"command: {command}" if command else "command not recorded",
        )
    )


def generator_tables(results: Results) -> tuple[Table, ...]:
    """What was measured of the generator itself: seeds, steps, similarity."""
    tables = [_variation(results.get("variation") or {}), _steps(results.get("dice_against_steps") or {})]
    tables.append(_likeness((results.get("likeness") or {}).get("by_similarity") or ()))
    return tuple(table for table in tables if table is not None)


def _faithfulness(results: Results, classes: Sequence[str]) -> Answer:
    found: Results = results.get("faithfulness") or {}
    question, topic = "Do the images follow the anatomy?", "Anatomy followed"
    if not found:
        return Answer("faithfulness", question, topic, measured=False)
    obeyed, ceiling = found.get("dice_gen_map") or {}, found.get("dice_real_map") or {}
    mean, highest = number(obeyed.get("mean")), number(ceiling.get("mean"))
    own = " of the model's own data set" if results.get("split") == ["elsewhere"] else ""
    verdict = (
        f"On {images_in_words(results)} ({split_in_words(results)}) a segmenter finds the anatomy that was asked for with "
        f"a mean Dice of {in_words(mean, obeyed.get('ci95'))}"
    )
    brief = "mean Dice; the ceiling was not measured"
    if mean is not None and highest:
        share = f"{100 * mean / highest:.0f} % of the ceiling"
        degree = _degree(interval(obeyed.get("ci95")) or (mean, mean), highest)
        verdict = (
            f"They follow it {degree}: on{verdict[2:]}, {share} of {ratio(highest)} that it reaches on real images{own}"
        )
        brief = f"mean Dice; {share}, {ratio(highest)}"
    notes = [
        "m is the label map, m_gen what a segmenter finds in the image that was generated from it, m_real what it finds in the real "
        "image of the map. (m_real, m) is the ceiling: what real images reach.",
        "The segmenter is a UNet, trained on real images of held-out patients that the generator never saw. Each measure is "
        "taken over a patient's slices together, then averaged over patients; intervals by drawing patients again (2,000 times). "
        "Only classes that were given and annotated count.",
        "Closely means 95 % of the ceiling or more, largely 80 %, in part 50 %, poorly less; two words where the interval "
        "spans two. More than 100 % is possible: generated images can be easier to segment than real ones.",
    ]
    if highest is not None and highest < _POOR_JUDGE:
        notes.insert(0, f"The ceiling is low ({ratio(highest)}): the segmenter is a poor judge of this data set.")
    tables = [_overlaps("Generated and real images, as the segmenter sees them", found, classes, ceiling=True)]
    if free := found.get("free"):
        caption = "Free classes, which the model was left to infer: agreement is not asked for"
        tables.append(_overlaps(caption, free, classes, ceiling=False))
    return Answer("faithfulness", question, topic, ratio(mean), brief, f"{verdict}.", tuple(tables), tuple(notes))


def _degree(ends: tuple[float, float], ceiling: float) -> str:
    words = [next(word for least, word in _DEGREES if end / ceiling >= least) for end in ends]
    return " to ".join(dict.fromkeys(words))


def _overlaps(caption: str, found: Results, classes: Sequence[str], *, ceiling: bool) -> Table:
    lines = []
    for key, name, meaning, show in _MEASURES:
        for pair, formula, text in _PAIRS:
            if entry := found.get(f"{key}_{pair}"):
                cells = (with_interval(entry.get("mean"), entry.get("ci95"), show), *_per_class(entry, classes, show))
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


def _utility(results: Results, classes: Sequence[str]) -> Answer:
    found: Results = results.get("utility") or {}
    question, topic = "Are they useful?", "Useful for training"
    real, synthetic = found.get("real") or {}, found.get("synthetic") or {}
    mixtures = found.get("mixtures") or [entry for entry in (found.get("both"),) if entry]
    if not (real or synthetic or mixtures):
        return Answer("utility", question, topic, measured=False)
    patients = next((e["n"].get("test_patients") for e in (synthetic, *mixtures, real) if e.get("n")), None)
    where, parts = f"on {counted(patients, 'real test patient')}", []
    if synthetic:
        against = f" against {in_words(real.get('mean'), real.get('ci95'))}" if real else ""
        parts.append(
            f"a segmenter trained on synthetic images alone {_compared(synthetic)} {where}: "
            f"Dice {in_words(synthetic.get('mean'), synthetic.get('ci95'))}{against}"
        )
    if both := (found.get("both") or (mixtures[0] if mixtures else {})):
        change = in_words(both.get("difference_to_real"), both.get("difference_ci95"), signed)
        parts.append(f"one trained on both ({both.get('name', 'mixed')}) {_compared(both)}: Dice {change}")
    verdict = "; ".join(parts) or f"only training on real images was measured, {where}"
    brief = f"Dice when trained on them alone; real images give {ratio(real.get('mean'))}"
    notes = (
        "The same segmenter, steps, seeds and validation for each line, tested on real patients of the split test. Intervals are "
        "over patients; differences are paired by patient. A difference whose interval holds 0 is not told from none.",
    )
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
    return Answer("utility", question, topic, value, brief, f"{_capital(verdict)}.", tables, notes)


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


def _compared(entry: Results) -> str:
    ends = interval(entry.get("difference_ci95"))
    if ends is None:
        return "was not compared with one trained on real ones"
    if ends[0] <= 0 <= ends[1]:
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
        *_per_class(entry, classes, ratio),
    )
    return Line(str(entry.get("name", name)), cells)


_REALISM: tuple[tuple[str, str, str, Show], ...] = (
    ("fid", "FID", "Fréchet distance of learned features: near that of real images is best", general),
    ("kid", "KID", "kernel distance of learned features, around 0 is best", general),
    ("mmd", "MMD", "maximum mean discrepancy of learned features, around 0 is best", general),
    ("frd", "FRD", "Fréchet distance of radiomic features: near that of real images is best", general),
    ("precision", "precision", "share of generated images among the real ones", ratio),
    ("recall", "recall", "share of real images among the generated ones", ratio),
    ("diversity", "diversity", "MS-SSIM of pairs of different images: higher than real is too much alike", ratio),
    ("noise_ratio", "noise ratio", "pixel-to-pixel noise over that of real images, below 1 is too smooth", ratio),
    ("noise_distance", "noise distance", "of the two noises' distributions, 0 is best", ratio),
)


def _realism(results: Results) -> Answer:
    found: Results = results.get("realism") or {}
    question, topic = "Do they look real?", "Look real"
    lines = []
    for key, name, meaning, show in _REALISM:
        if key in found:
            shown = with_error(found[key], found.get(f"{key}_error"), show)
            lines.append(Line(name, (shown, show(found.get(f"{key}_real"))), meaning))
    power = [p for p in map(number, found.get("power_ratio") or ()) if p is not None]
    spectrum = f"{ratio(min(power))} to {ratio(max(power))}" if power else NOTHING
    if power:
        rings = f"over that of real images, lowest and highest of {len(power)} rings of spatial frequency; 1 is right"
        lines.append(Line("power ratio", (spectrum, NOTHING), rings))
    if not lines:
        return Answer("realism", question, topic, measured=False)
    n = f"{amount(found['n'])} images in each set" if number(found.get("n")) is not None else amount(found.get("n"))
    n = n if n != NOTHING else images_in_words(results)
    told_by = next((k for k in ("kid", "mmd", "fid") if number(found.get(k)) is not None), None)
    if told_by is None:
        value, brief = spectrum, "of the real images' power; learned features were not compared"
        verdict = f"Only the texture was measured: its power is {spectrum} of the real images', 1 being right ({n})"
    else:
        of_real = found.get(f"{told_by}_real")
        value, brief = (
            general(found[told_by]),
            f"{told_by.upper()}; real images of other patients have {general(of_real)}",
        )
        verdict = f"{_told_apart(told_by, found)}, {n}"
    if (noise := number(found.get("noise_ratio"))) is not None:
        verdict += f"; their noise is {100 * noise:.0f} % of the real images'"
    notes = [*map(str, found.get("warnings") or ()), str(found.get("caution") or "")]
    notes.append(
        "The last column is the same measure between real images of different patients: what perfect images would have. ± is a "
        "standard error that treats images as independent. Features are those of an encoder trained on this data set."
    )
    table = Table("Generated images beside real ones", ("", "generated", "real beside real"), tuple(lines))
    return Answer(
        "realism", question, topic, value, brief, f"{verdict}.", (table,), tuple(note for note in notes if note)
    )


def _told_apart(key: str, found: Results) -> str:
    """Whether the interval of `key` reaches down to what real images have."""
    value, error, of_real = number(found[key]), number(found.get(f"{key}_error")), number(found.get(f"{key}_real"))
    floor = f" where real images of other patients have {general(of_real)}" if of_real is not None else ""
    if value is None or error is None:
        return f"By learned features they lie at {key.upper()} {general(value)} (no interval){floor}"
    ends = (value - 1.96 * error, value + 1.96 * error)
    text = f"{key.upper()} {in_words(value, ends, general)}{floor}"
    if of_real is None:
        return f"By learned features they lie at {text}"
    return f"By learned features they can{'not' * (ends[0] <= of_real)} be told from real images: {text}"


def _privacy(results: Results) -> Answer:
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
        f"{_capital(status)}: the copy rate of {generated} is {rate}, {percent(found.get('expected'))} expected by chance "
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
            percent(attack.get("tpr_at_1")),
            percent(attack.get("tpr_at_10")),
            amount(attack.get("n_members")),
            amount(attack.get("n_nonmembers")),
        )
        heads = (
            "AUC [95 % interval], 0.5 is chance",
            "told at 1 % false alarms",
            "at 10 %",
            "training images",
            "unseen images",
        )
        caption = "Membership inference: does the model's loss tell its training images?"
        tables.append(Table(caption, ("attack by", *heads), (Line("loss", cells),)))
    else:
        notes.append(f"Membership inference was not measured: it needs the run ({Answer('privacy', '', '').remedy}).")
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


def _variation(found: Results) -> Table | None:
    free, given, maps = (found.get(key) or {} for key in ("free", "given", "maps"))
    lines = [Line(name, (ratio(given.get(name)), ratio(free[name]), amount(maps.get(name)))) for name in free]
    caption = f"How much a class differs between {amount(found.get('seeds'))} seeds of one label map (1 − Dice)"
    return Table(caption, ("class", "given", "free", "label maps"), tuple(lines)) if lines else None


def _steps(found: Results) -> Table | None:
    lines = [
        Line(amount(s), (ratio(d),)) for s, d in zip(found.get("steps") or (), found.get("dice") or (), strict=False)
    ]
    if not lines:
        return None
    lines.append(Line("real images", (ratio(found.get("ceiling")),), "the ceiling"))
    n = counted(found.get("n"), "label map")
    return Table(f"Dice(m_gen, m) against solver steps, on {n}", ("steps", "Dice"), tuple(lines))


def _likeness(rows: Sequence[Results]) -> Table | None:
    lines = []
    for row in rows:
        dice = [row.get(key) or {} for key in ("dice_given", "dice_free_with_real")]
        shown = (with_interval(entry.get("mean"), entry.get("ci95")) for entry in dice)
        cells = (amount(row.get("n")), ratio(row.get("correlation")), ratio(row.get("rms_difference")), *shown)
        lines.append(Line(general(row.get("similarity")), cells))
    heads = ("images", "correlation", "RMS difference", "Dice(m_gen, m), given", "Dice(m_gen, m_real), free")
    caption = "Images that are to be alike to the real one of their map: does likeness follow --similarity?"
    return Table(caption, ("similarity", *heads), tuple(lines)) if lines else None


def _per_class(entry: Results, classes: Sequence[str], show: Show) -> tuple[str, ...]:
    return tuple(show((entry.get("per_class") or {}).get(name)) for name in classes)


def _quotient(a: Any, b: Any) -> float | None:
    over, under = number(a), number(b)
    return over / under if over is not None and under else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
