"""Phantom cohorts: virtual patients drawn by a program, with the two label sets of the paper.

`phantom:ct-organ` and `phantom:breast-mri`, or with a count and a seed `phantom:ct-organ?patients=40&seed=0`. A patient
is a function of cohort, seed and number alone, so that a larger cohort begins with the smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import SettingsError, nearest
from anatogen.labels import LabelSchema
from anatogen.phantoms import breast_mri as phantom_breast_mri
from anatogen.phantoms import ct_organ as phantom_ct_organ
from anatogen.seeds import derive_seed
from anatogen.volume import Volume

PREFIX = "phantom:"
PATIENTS = 40
MOST_PATIENTS = 100_000
NOTICE = (
    "A phantom: virtual patients drawn by a program, no scan of anybody. For tests, tutorials and benchmarks, not "
    "evidence: figures on it say nothing about real patients."
)


@dataclass(frozen=True)
class Cohort:
    """One kind of phantom: its classes, its channels, and the function that draws a patient."""

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    draw: Callable[[np.random.Generator], tuple[Volume, Volume]]


COHORTS = {
    "ct-organ": Cohort(phantom_ct_organ.CLASSES, phantom_ct_organ.CHANNELS, phantom_ct_organ.draw),
    "breast-mri": Cohort(phantom_breast_mri.CLASSES, phantom_breast_mri.CHANNELS, phantom_breast_mri.draw),
}


def detect(location: str) -> bool:
    """Whether a phantom is meant."""
    return location.startswith(PREFIX)


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The virtual patients of `location`; each is drawn when it is loaded. `classes` is not needed and not looked at.

    Raises SettingsError for an unknown phantom or setting, or a value out of range.
    """
    name, patients, seed = parse(location)
    cohort = COHORTS[name]
    cases = []
    for number in range(1, patients + 1):
        case = f"phantom-{name}-s{seed}-{number:03d}"
        cases.append(SourceCase(case, case, partial(load, name, seed, number)))
    schema = LabelSchema.from_names(cohort.classes)
    return Source("phantom", location, schema, cohort.channels, tuple(cases), NOTICE, patients_from="layout")


def parse(location: str) -> tuple[str, int, int]:
    """(name, patients, seed) of `phantom:NAME[?patients=N&seed=S]`. Raises SettingsError for anything else."""
    name, _, query = location.removeprefix(PREFIX).partition("?")
    if not detect(location) or name not in COHORTS:
        raise SettingsError(
            f"there is no phantom '{name}'", path=location, hint=nearest(location, [PREFIX + n for n in COHORTS])
        )
    values = {"patients": PATIENTS, "seed": 0}
    given: set[str] = set()
    for item in filter(None, query.split("&")):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in values:
            raise SettingsError(f"a phantom has no setting '{key}'", path=location, hint=nearest(key, values))
        if key in given:
            raise SettingsError(f"'{key}' is given twice", path=location, hint="Give it once")
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise SettingsError(
                f"{key} is '{text}', not a whole number", path=location, hint=f"Write for instance {key}=10"
            )
        values[key] = int(text)
        given.add(key)
    if not 1 <= values["patients"] <= MOST_PATIENTS:
        raise SettingsError(
            f"{values['patients']} patients are out of range", path=location, hint=f"Choose 1 to {MOST_PATIENTS}"
        )
    return name, values["patients"], values["seed"]


def load(name: str, seed: int, number: int) -> tuple[Volume, Volume]:
    """Image (int16) and label map (uint8) of one virtual patient of the cohort `name`."""
    return COHORTS[name].draw(np.random.default_rng(derive_seed("phantom", name, seed, number)))
