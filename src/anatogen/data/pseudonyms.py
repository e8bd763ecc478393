"""Running numbers in place of the names of cases and patients.

The patients, sorted by name, are shuffled by the seed of the split and numbered; their cases are numbered in the same
order, those of one patient in the order of the source. Two data sets prepared from the same source with the same seed
therefore agree, and only names.csv maps a number to a name. The rows of a prepared set are in the order of these
numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anatogen.data.sources.base import SourceCase
from anatogen.seeds import derive_seed

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(?i)^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
_LONGEST = 100  # bytes; keeps derived file names below 255


@dataclass(frozen=True)
class NamedCase:
    """A case, with its name and its patient's in the prepared data set."""

    case: SourceCase
    name: str
    patient: str


def named_cases(cases: Iterable[SourceCase], seed: int, *, keep_names: bool = False) -> list[NamedCase]:
    """The cases in storage order under pseudonyms; with keep_names in their own order under their own names.

    Names are made safe as file names and stay unique.
    """
    cases = list(cases)
    patients = sorted({case.patient for case in cases})
    if keep_names:
        ids, people = safe_names(case.id for case in cases), safe_names(patients)
        return [NamedCase(case, ids[case.id], people[case.patient]) for case in cases]
    order = np.random.default_rng(derive_seed("pseudonyms", seed)).permutation(len(patients))
    number = {patients[i]: n for n, i in enumerate(order, start=1)}
    stored = sorted(cases, key=lambda case: number[case.patient])  # stable: the order of the source within a patient
    return [
        NamedCase(case, f"case_{n:04d}", f"patient_{number[case.patient]:04d}")
        for n, case in enumerate(stored, start=1)
    ]


def safe_names(names: Iterable[str]) -> dict[str, str]:
    """A safe file name for each name: no separators, leading dots or reserved words, and of limited length."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        plain = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(" .")
        plain = plain.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
        plain = f"_{plain}" if _RESERVED.match(plain) or not plain else plain
        number, safe = 2, plain
        while safe.casefold() in taken:
            number, safe = number + 1, f"{plain}_{number}"
        taken.add(safe.casefold())
        given[name] = safe
    return given
