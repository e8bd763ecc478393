"""Do they look real?"""

from __future__ import annotations

from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.reporting.answers.base import Answer, Results, images_in_words
from anatogen.reporting.tables import (
    NOTHING,
    Line,
    Show,
    Table,
    amount,
    counted,
    general,
    number,
    p_value,
    ratio,
    with_error,
)

_MEASURES: tuple[tuple[str, str, str, Show, str], ...] = (
    ("fid", "FID", "Fréchet distance of learned features: near that of real images is best", general, ""),
    ("kid", "KID", "kernel distance of learned features, around 0 is best", general, ""),
    ("mmd", "MMD", "maximum mean discrepancy of learned features, around 0 is best", general, "mmd"),
    ("frd", "FRD", "Fréchet distance of radiomic features: near that of real images is best", general, ""),
    ("precision", "precision", "share of generated images among the real ones", ratio, ""),
    ("recall", "recall", "share of real images among the generated ones", ratio, ""),
    ("diversity", "diversity", "MS-SSIM of pairs of patients: higher than real is too much alike", ratio, "diversity"),
    ("variety", "variety", "distance of features to the nearest image of another patient: lower than real is too much alike", general, "variety"),
    ("noise_ratio", "noise ratio", "pixel-to-pixel noise over that of real images, below 1 is too smooth", ratio, "noise"),
    ("noise_distance", "noise distance", "of the two noises' distributions, 0 is best", ratio, ""),
)  # fmt: skip
_BY = {
    "kid": "KID",
    "mmd": "MMD",
    "noise": "noise",
    "spectrum": "power spectrum",
    "diversity": "diversity",
    "variety": "variety",
}
_LEAST_PATIENTS = 10  # of 5 measures, each with p = 1 in 512 swaps of patients, one is below the level of 1 %


def answer(results: Results) -> Answer:
    """By which measures generated images can be told from real ones."""
    found: Results = results.get("realism") or {}
    question, topic = "Do they look real?", "Look real"
    test: Results = found.get("test") or {}
    p_of: Results = test.get("p_of") or {}
    lines = []
    for measure, name, meaning, show, tested in _MEASURES:
        if measure in found:
            shown = with_error(found[measure], found.get(f"{measure}_spread", found.get(f"{measure}_error")), show)
            real = with_error(found.get(f"{measure}_real"), found.get(f"{measure}_real_spread"), show)
            lines.append(Line(name, (shown, real, p_value(p_of.get(tested))), meaning))
    power = [p for p in map(number, found.get("power_ratio") or ()) if p is not None]
    spectrum = f"{ratio(min(power))} to {ratio(max(power))}" if power else NOTHING
    if power:
        rings = f"over that of real images, lowest and highest of {len(power)} rings of spatial frequency; 1 is right"
        lines.append(Line("power ratio", (spectrum, NOTHING, p_value(p_of.get("spectrum"))), rings))
    if not lines:
        return Answer("realism", question, topic, measured=False)
    n = f"{amount(found['n'])} images in each set" if number(found.get("n")) is not None else amount(found.get("n"))
    n = n if n != NOTHING else images_in_words(results)
    key = next((k for k in ("kid", "mmd", "fid") if number(found.get(k)) is not None), None)
    if key is None:
        value, brief = spectrum, "of the real images' power; learned features were not compared"
        said = _too_few(found) if "test" in found else "Only the texture was measured"
        verdict = f"{said}: its power is {spectrum} of the real images', 1 being right ({n})"
    else:
        value, brief = general(found[key]), f"{key.upper()}; real images have {general(found.get(f'{key}_real'))}"
        verdict = f"{_told_apart(found, test)}: {key.upper()} {general(found[key])}" + (
            f" where real images have {general(found.get(f'{key}_real'))}, {n}"
        )
    if (noise := number(found.get("noise_ratio"))) is not None:
        verdict += f"; their noise is {100 * noise:.0f} % of the real images'"
    table = Table("Generated images beside real ones", ("", "generated A to real B", "real A to real B", "chance of as much"), tuple(lines))  # fmt: skip
    notes = [*map(str, found.get("warnings") or ()), str(found.get("caution") or ""), *_how_to_read(test)]
    return Answer(
        "realism", question, topic, value, brief, f"{verdict}.", (table,), tuple(note for note in notes if note)
    )


def _told_apart(found: Results, test: Results) -> str:
    """Whether generated images can be told from real ones, by what, and how sure that is."""
    if "test" not in found:
        return "Whether they can be told from real images was not tested"
    if not test.get("decided"):
        return _too_few(found)
    patients = counted(test.get("patients"), "patient")
    if by := test.get("told_apart_by"):
        return f"They can be told from real images by {_listed([_BY.get(b, b) for b in by])} ({p_value(test.get('p_value'))}, {patients})"
    p = number(test.get("p_value"))
    small = p is not None and p < SIGNIFICANCE
    why = "all differences are too small to count" if small else p_value(p)
    return f"They cannot be told from real images ({why}, {patients})"


def _too_few(found: Results) -> str:
    patients = counted(
        ((found.get("test") or found).get("patients") or (found.get("n") or {}).get("patients")), "patient"
    )
    return (
        f"Too few patients to say whether they can be told from real images ({patients}, of at least {_LEAST_PATIENTS})"
    )


def _how_to_read(test: Results) -> tuple[str, ...]:
    read = (
        "The patients are halved, again and again: generated images of patients A beside real images of patients B, and real images of "
        "A beside the same, with equal counts. ± is the standard deviation over the halvings. The last column is how often chance "
        "does as much in any of the measures: generated and real images of some patients change places."
    )
    other = "Features are those of an encoder trained on the held-out patients of this data set; values of other encoders do not compare."
    if test.get("same_maps") is False:
        return (
            f"{read} The label maps are of another data set: what differs between its patients and these counts as a difference.",
            other,
        )
    return read, other


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
