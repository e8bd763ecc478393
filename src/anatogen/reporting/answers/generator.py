"""What was measured of the generator itself: how seeds differ, what more steps bring, and likeness to a real image."""

from __future__ import annotations

from collections.abc import Sequence

from anatogen.reporting.answers.base import Results
from anatogen.reporting.tables import Line, Table, amount, counted, general, ratio, with_interval


def generator_tables(results: Results) -> tuple[Table, ...]:
    """The tables of seeds, steps and similarity, of which those without numbers are left out."""
    tables = [_variation(results.get("variation") or {}), _steps(results.get("dice_against_steps") or {})]
    tables.append(_likeness((results.get("likeness") or {}).get("by_similarity") or ()))
    return tuple(table for table in tables if table is not None)


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
