"""What was measured of the generator itself: variation between seeds, Dice against solver steps, similarity to a real
image.
"""

from __future__ import annotations

from anatogen.reporting.results import FloorsResult, Report, SimilarityResult, StepsResult, VariationResult
from anatogen.reporting.tables import Table, TableRow, amount, counted, general, ratio, signed, with_interval


def generator_tables(report: Report) -> tuple[Table, ...]:
    """The tables of seeds, steps and similarity, of which those without numbers are left out."""
    tables = (
        _floors(report.floors or FloorsResult()),
        _variation(report.variation or VariationResult()),
        _steps(report.dice_against_steps or StepsResult()),
        _similarity(report.similarity or SimilarityResult()),
    )
    return tuple(table for table in tables if table.rows)


def _floors(found: FloorsResult) -> Table:
    """The model beside what learns nothing."""
    rows = []
    if found.dice is not None and found.dice_retrieval is not None:
        apart = with_interval(found.difference, found.difference_ci95, signed)
        pair = (with_interval(each.mean, each.ci95) for each in (found.dice, found.dice_retrieval))
        detail = f"difference {apart}"
        rows.append(TableRow("Dice(m_gen, m), and of the nearest training image", tuple(pair), detail))
    if found.fid is not None and found.fid_painting is not None:
        cells = (general(found.fid), general(found.fid_painting))
        rows.append(TableRow("FID, and of painted classes", cells, "lower is better"))
    caption = f"What a learned model has to beat, on {counted(found.images, 'label map')}"
    return Table(caption, ("", "the model", "learns nothing"), tuple(rows))


def _variation(found: VariationResult) -> Table:
    rows = tuple(
        TableRow(name, (ratio(found.given.get(name)), ratio(value), amount(found.maps.get(name))))
        for name, value in found.free.items()
    )
    caption = f"How much a class differs between {amount(found.seeds)} seeds of one label map (1 − Dice)"
    return Table(caption, ("class", "given", "free", "label maps"), rows)


def _steps(found: StepsResult) -> Table:
    rows = [TableRow(amount(s), (ratio(d),)) for s, d in zip(found.steps, found.dice, strict=False)]
    if rows:
        rows.append(TableRow("real images", (ratio(found.ceiling),), "the ceiling"))
    caption = f"Dice(m_gen, m) against solver steps, on {counted(found.n, 'label map')}"
    return Table(caption, ("steps", "Dice"), tuple(rows))


def _similarity(found: SimilarityResult) -> Table:
    rows = []
    for row in found.by_similarity:
        dice = (with_interval(score.mean, score.ci95) for score in (row.dice_given, row.dice_free_with_real))
        cells = (amount(row.n), ratio(row.correlation), ratio(row.rms_difference), *dice)
        rows.append(TableRow(general(row.similarity), cells))
    heads = ("images", "correlation", "RMS difference", "Dice(m_gen, m), given", "Dice(m_gen, m_real), free")
    caption = "Images made similar to the real image of their map: does the similarity follow --similarity?"
    return Table(caption, ("similarity", *heads), tuple(rows))
