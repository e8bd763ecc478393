"""Do they look real?"""

from __future__ import annotations

from anatogen.reporting.answers.base import Answer, Results, images_in_words
from anatogen.reporting.tables import NOTHING, Line, Show, Table, amount, general, in_words, number, ratio, with_error

_MEASURES: tuple[tuple[str, str, str, Show], ...] = (
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


def answer(results: Results) -> Answer:
    """By which measures generated images can be told from real ones."""
    found: Results = results.get("realism") or {}
    question, topic = "Do they look real?", "Look real"
    lines = []
    for key, name, meaning, show in _MEASURES:
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
