"""Splits by patient: all cases of a patient are in the same split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from anatogen.errors import SettingsError, nearest
from anatogen.seeds import derive_seed

SPLITS = ("train", "heldout", "val", "test")
DEFAULT_SHARES = {"train": 70.0, "heldout": 15.0, "val": 7.5, "test": 7.5}


def parse_shares(text: str) -> dict[str, float]:
    """Shares from "train=70,heldout=15,val=7.5,test=7.5".

    Raises:
        SettingsError: The text has another form, or a share is not positive.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip()
        if name not in SPLITS:
            raise SettingsError(f"unknown split '{name}'", hint=nearest(name, SPLITS))
        try:
            shares[name] = float(value)
        except ValueError as error:
            raise SettingsError(
                f"expected SPLIT=SHARE, got '{part}'", hint="Use for instance train=70,heldout=15,val=7.5,test=7.5"
            ) from error
    if not all(np.isfinite(share) and share >= 0 for share in shares.values()) or sum(shares.values()) <= 0:
        raise SettingsError("the shares of a split must be positive numbers")
    return shares


def split_patients(patients: Iterable[str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The split of each patient, by a shuffle that depends only on `seed` and the set of patients.

    The shares are normalised and rounded by largest remainder; every split with a positive share has at least one
    patient.

    Raises:
        SettingsError: There are fewer patients than splits.
    """
    ordered = sorted(set(patients))
    wanted = {name: share / sum(shares.values()) * len(ordered) for name, share in shares.items() if share > 0}
    if len(ordered) < len(wanted):
        raise SettingsError(
            f"{len(ordered)} patients cannot fill the splits {', '.join(wanted)}",
            hint="Use fewer splits, for instance --split train=100",
        )
    counts = {name: max(1, int(number)) for name, number in wanted.items()}
    while sum(counts.values()) < len(ordered):
        counts[max(wanted, key=lambda name: wanted[name] - counts[name])] += 1
    while sum(counts.values()) > len(ordered):
        counts[max((n for n in counts if counts[n] > 1), key=lambda name: counts[name] - wanted[name])] -= 1
    shuffled = np.random.default_rng(derive_seed("split", seed)).permutation(np.array(ordered, dtype=object))
    names = [name for name in wanted for _ in range(counts[name])]
    return dict(zip(shuffled.tolist(), names, strict=True))
