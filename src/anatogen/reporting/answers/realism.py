"""Do they look real?"""

from __future__ import annotations

import math

from anatogen.judges.slices import MOST
from anatogen.metrics.copies import SIGNIFICANCE
from anatogen.reporting.answers.base import Answer, images_in_words
from anatogen.reporting.results import RealismCount, RealismResult, RealismTest, Report
from anatogen.reporting.tables import (
    NOTHING,
    TOO_FEW,
    Show,
    Table,
    TableRow,
    amount,
    counted,
    general,
    p_value,
    ratio,
    with_error,
    with_interval,
)

_MEASURES: tuple[tuple[str, str, str, Show, str], ...] = (
    ("fid", "FID", "Fréchet distance of learned features: near that of real images is best", general, ""),
    ("kid", "KID", "kernel distance of learned features, around 0 is best", general, ""),
    ("mmd", "MMD", "maximum mean discrepancy of learned features, around 0 is best", general, "mmd"),
    ("frd", "FRD", "Fréchet distance of radiomic features: near that of real images is best", general, ""),
    ("precision", "precision", "share of generated images among the real ones", ratio, ""),
    ("recall", "recall", "share of real images among the generated ones", ratio, ""),
    ("diversity", "diversity", "MS-SSIM of pairs of patients: higher than real is too similar", ratio, "diversity"),
    ("variety", "variety", "distance of features to the nearest image of another patient: lower than real is too similar", general, "variety"),  # noqa: E501
    ("noise_ratio", "noise ratio", "pixel-to-pixel noise over that of real images, below 1 is too smooth", ratio, "noise"),  # noqa: E501
    ("noise_distance", "noise distance", "of the two noises' distributions, 0 is best", ratio, ""),
)  # fmt: skip
_BY = {
    "kid": "KID",
    "mmd": "MMD",
    "noise": "noise",
    "spectrum": "power spectrum",
    "diversity": "diversity",
    "variety": "variety",
    "slices_D": "slices along D",
    "slices_H": "slices along H",
    "slices_W": "slices along W",
}
_SIDES, _CHANCE = ("generated A to real B", "real A to real B"), "chance of as much"
_PLANES = {"D": "H x W", "H": "D x W", "W": "D x H"}
_UNEVEN = 1.25  # the largest step between neighbours over the smallest, both relative to real volumes
_MEASURES_TESTED = 5  # of images, from 10 patients on; of volumes also their slices along each axis, from 11 on


def answer(report: Report) -> Answer:
    """By which measures generated images can be told from real ones."""
    found = report.realism or RealismResult()
    question, topic = "Do they look real?", "Look real"
    spectrum = _spectrum(found)
    rows = _rows(found, spectrum)
    if not rows:
        return Answer("realism", question, topic, measured=False)
    n = _count_in_words(report, found)
    key = next((k for k in ("kid", "mmd", "fid") if found.of(k) is not None), None)
    if key is None:
        value, brief = spectrum, "of the real images' power; learned features were not compared"
        said = _too_few(found) if found.tested else "Only the texture was measured"
        verdict = f"{said}: its power is {spectrum} of the real images', 1 being right ({n})"
    else:
        real = general(found.of(key, "_real"))
        value, brief = general(found.of(key)), f"{key.upper()}; real images have {real}"
        verdict = f"{_told_apart(found)}: {key.upper()} {value} where real images have {real}, {n}"
    verdict += _uneven(found)
    if found.noise_ratio is not None:
        verdict += f"; their noise is {100 * found.noise_ratio:.0f} % of the real images'"
    table = Table("Generated images beside real ones", ("", *_SIDES, _CHANCE), tuple(rows))
    notes = (
        *found.warnings,
        found.caution or "",
        *_how_to_read(found.test, edited=report.edited_maps),
        *_about_slices(found),
    )
    return Answer(
        "realism",
        question,
        topic,
        value,
        brief,
        f"{verdict}.",
        (table, *_of_slices(found)),
        tuple(note for note in notes if note),
    )


def _rows(found: RealismResult, spectrum: str) -> list[TableRow]:
    p_of = found.test.p_of if found.test else {}
    rows = []
    for measure, name, meaning, show, tested in _MEASURES:
        if found.has(measure):
            shown = with_error(found.of(measure), found.of(measure, "_spread"), show)
            real = with_error(found.of(measure, "_real"), found.of(measure, "_real_spread"), show)
            rows.append(TableRow(name, (shown, real, p_value(p_of.get(tested))), meaning))
    if spectrum != NOTHING:
        count = len(found.power_ratio)
        rings = f"over that of real images, lowest and highest of {count} rings of spatial frequency; 1 is right"
        rows.append(TableRow("power ratio", (spectrum, NOTHING, p_value(p_of.get("spectrum"))), rings))
    if found.continuity:
        shown = ", ".join(ratio(step) for step in found.continuity)
        meaning = "differences of neighbouring voxels along D, H, W over real ones, above 1 is less continuous"
        rows.append(TableRow("continuity", (shown, NOTHING, NOTHING), meaning))
    return rows


def _of_slices(found: RealismResult) -> tuple[Table, ...]:
    """The table of slices along each axis; () where there are none."""
    rows = []
    for axis, planes in _PLANES.items():
        each = found.slices.get(axis)
        if each is None:
            continue
        sides = with_error(each.mmd, each.mmd_spread), with_error(each.mmd_real, each.mmd_real_spread)
        farther = with_interval(each.excess, each.ci95, general)
        chance = p_value(found.test.p_of.get(f"slices_{axis}")) if found.test else NOTHING
        rows.append(TableRow(f"MMD along {axis}", (*sides, farther, chance), f"of slices of {planes} voxels"))
    heads = ("", *_SIDES, "farther than real", _CHANCE)
    return (Table("Slices of generated volumes beside those of real ones", heads, tuple(rows)),) if rows else ()


def _uneven(found: RealismResult) -> str:
    """Along which axis volumes are less, or more, continuous than along the others; "" where along none."""
    steps = [step for step in found.continuity if step]
    if len(steps) < 3 or max(steps) / min(steps) <= _UNEVEN:
        return ""
    axis, step = max(zip("DHW", steps, strict=True), key=lambda each: abs(math.log(each[1])))
    return f"; neighbouring voxels along {axis} differ {ratio(step)} times as much as in real volumes"


def _spectrum(found: RealismResult) -> str:
    power = [p for p in found.power_ratio if p is not None]
    return f"{ratio(min(power))} to {ratio(max(power))}" if power else NOTHING


def _count_in_words(report: Report, found: RealismResult) -> str:
    if isinstance(found.n, int):
        return f"{amount(found.n)} images in each set"
    if not isinstance(found.n, RealismCount):
        return images_in_words(report)
    return amount({name: value for name, value in found.n.model_dump().items() if value is not None})


def _told_apart(found: RealismResult) -> str:
    """Whether generated images can be told from real ones, by what, and how sure that is."""
    if not found.tested:
        return "Whether they can be told from real images was not tested"
    test = found.test
    if test is None or not test.decided:
        return _too_few(found)
    patients = counted(test.patients, "patient")
    if by := test.told_apart_by:
        names = _listed([_BY.get(b, b) for b in by])
        return f"They can be told from real images by {names} ({p_value(test.p_value)}, {patients})"
    small = test.p_value is not None and test.p_value < SIGNIFICANCE
    why = "all differences are too small to count" if small else p_value(test.p_value)
    return f"They cannot be told from real images ({why}, {patients})"


def _too_few(found: RealismResult) -> str:
    patients, least = counted(found.patients, "patient"), _least_patients(found)
    return f"Too few patients to say whether they can be told from real images ({patients}, of at least {least})"


def _least_patients(found: RealismResult) -> int:
    """How many patients it takes for one of k measures to be below the level, at p = k in 2^(n - 1) swaps."""
    measures = max(_MEASURES_TESTED + len(found.slices), len(found.test.p_of) if found.test else 0)
    return 1 + math.ceil(math.log2(measures / SIGNIFICANCE))


def _about_slices(found: RealismResult) -> tuple[str, ...]:
    """How to read the distances of slices; () where there are none."""
    if not found.slices:
        return ()
    read = (
        f"Slices along D, H and W: up to {MOST} of each volume, evenly spaced through its labelled part, and the MMD "
        "of their learned features, by an encoder for each axis: compare with real slices, not one axis with another. "
        "How much farther generated slices are than real ones is the mean over every halving, 0 at best; in brackets "
        "its 95 % interval over patients. A patient's slices count as one observation."
    )
    reasons = dict.fromkeys(each.no_interval or TOO_FEW for each in found.slices.values() if each.ci95 is None)
    return (read, f"Where no interval stands, there are {' or '.join(reasons)}.") if reasons else (read,)


def _how_to_read(test: RealismTest | None, *, edited: bool) -> tuple[str, ...]:
    read = (
        "The patients are halved, again and again: generated images of patients A beside real images of patients B, "
        "and real images of A beside the same, with equal counts. ± is the standard deviation over the halvings. The "
        "last column is how often chance does as much in any of the measures: generated and real images of some "
        "patients change places."
    )
    other = (
        "Features are those of an encoder trained on the held-out patients of this data set; values of other encoders "
        "do not compare."
    )
    if test is not None and test.same_maps is False:
        whose = "The label maps are of another data set: what differs between its patients and these"
        if edited:
            whose = "The label maps are edited: what that changes"
        return f"{read} {whose} counts as a difference.", other
    return read, other


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
