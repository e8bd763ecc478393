"""The wrapper of frd-score: its package is not needed to test what it is handed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from anatogen.io.pictures import read_png
from anatogen.judges import frd


def test_images_are_handed_over_as_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[np.ndarray]] = []

    def compute_frd(paths: list[str], match_sample_count: bool) -> float:
        for folder in paths:
            seen.append([read_png(file) for file in sorted(Path(folder).iterdir())])
        return 1.5

    stand_in = types.ModuleType("frd_score")
    stand_in.compute_frd = compute_frd  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "frd_score", stand_in)
    rng = np.random.default_rng(0)
    made, real = (rng.uniform(-1, 1, (n, 2, 8, 8)).astype(np.float32) for n in (3, 4))
    assert frd.radiomics_distance(made, real) == 1.5
    assert [len(images) for images in seen] == [3, 4]
    assert np.abs(seen[0][2] - made[2, :1]).max() < 1e-4


def test_it_is_left_out_where_a_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((("frd_score",), False), (("frd_score", "radiomics"), True), ((), False)):
        monkeypatch.setattr(frd, "find_spec", lambda name, there=there: object() if name in there else None)
        assert frd.frd_available() == expected
