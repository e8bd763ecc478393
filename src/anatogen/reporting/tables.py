"""Numbers in words and tables, for the page and the cards: sensible digits, and an en dash for what has no value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

NOTHING = "–"
TOO_FEW = "too few patients for an interval"
Show = Callable[[Any], str]


@dataclass(frozen=True)
class TableRow:
    """A row of a table. cells: one a column but the first, which is `label`, with `detail` in small print.

    group: under which heading it stands; rows of a group follow one another.
    """

    label: str
    cells: tuple[str, ...]
    detail: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table: what it shows, its columns with that of the labels, and its rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def number(value: Any) -> float | None:
    """`value` as a float; None where it is none, or not finite."""
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def ratio(value: Any) -> str:
    """Three decimals: of Dice and the like."""
    return _shown(value, lambda x: f"{x:.3f}")


def defined(value: Any) -> str:
    """Three decimals, or "not defined": of Dice and the like, in sentences and lists."""
    return "not defined" if number(value) is None else ratio(value)


def signed(value: Any) -> str:
    """Three decimals with the sign: of differences."""
    return _shown(value, lambda x: f"{x:+.3f}")


def percent(value: Any) -> str:
    """A share as "2.1 %"."""
    return _shown(value, lambda x: f"{100 * x:.1f} %")


def signed_percent(value: Any) -> str:
    """A relative error as "+2.1 %"."""
    return _shown(value, lambda x: f"{100 * x:+.1f} %")


def millimetres(value: Any) -> str:
    """Two decimals; the column says mm."""
    return _shown(value, lambda x: f"{x:.2f}")


def decibels(value: Any) -> str:
    """One decimal, with the unit."""
    return _shown(value, lambda x: f"{x:.1f} dB")


def general(value: Any) -> str:
    """Three significant digits; no decimals from 1,000 on."""
    return _shown(value, lambda x: f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}")


def p_value(value: Any) -> str:
    """ "p < 1e-6" or two significant digits."""
    return _shown(value, lambda x: "p < 1e-6" if x < 1e-6 else f"p = {x:.2g}")


def amount(value: Any) -> str:
    """A count: a number, a list of them ("40 to 48"), or several by name ("40 generated, 38 real")."""
    if isinstance(value, Mapping):
        return ", ".join(f"{amount(n)} {str(name).replace('_', ' ')}" for name, n in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        known = sorted({n for n in map(number, value) if n is not None})
        return " to ".join(amount(n) for n in dict.fromkeys(known[:1] + known[-1:])) or NOTHING
    return _shown(value, lambda x: f"{x:,.0f}")


def counted(value: Any, noun: str) -> str:
    """ "1 image", "2 images", "an unknown number of images"."""
    known = number(value)
    return f"an unknown number of {noun}s" if known is None else f"{known:,.0f} {noun}{'' if known == 1 else 's'}"


def interval(ci95: Any) -> tuple[float, float] | None:
    """The ends of an interval, None where it is not there or not finite."""
    if not isinstance(ci95, list | tuple) or len(ci95) != 2:
        return None
    low, high = number(ci95[0]), number(ci95[1])
    return None if low is None or high is None else (low, high)


def with_interval(value: Any, ci95: Any, show: Show = ratio) -> str:
    """ "0.873 [0.861, 0.884]", for tables; without an interval the value alone."""
    ends = interval(ci95)
    return show(value) + (f" [{show(ends[0])}, {show(ends[1])}]" if ends and number(value) is not None else "")


def in_words(value: Any, ci95: Any, show: Show = ratio, reason: Any = None) -> str:
    """ "0.873 (95 % interval 0.861 to 0.884)", for sentences. reason: why there is no interval, where there is none."""
    ends = interval(ci95)
    text = f"95 % interval {show(ends[0])} to {show(ends[1])}" if ends else str(reason or TOO_FEW)
    return f"{show(value)} ({text})" if number(value) is not None else "not defined"


def with_error(value: Any, error: Any, show: Show = general) -> str:
    """ "0.012 ± 0.003", the standard error, where there is one, after the value."""
    return show(value) + (f" ± {show(error)}" if number(value) is not None and number(error) is not None else "")


def _shown(value: Any, show: Callable[[float], str]) -> str:
    known = number(value)
    return NOTHING if known is None else show(known).replace("-", "−").replace("e−", "e-")
