"""How items lie in the store: whole where they are small, in cubes where a crop should not read all of them."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest

from anatogen.data.store_writer import _create


@pytest.mark.parametrize(
    ("item", "dim", "chunks", "blocks"),
    [
        ((1, 64, 64), 2, (128, 1, 64, 64), (1, 1, 64, 64)),
        ((1, 127, 128, 128), 3, (1, 1, 127, 128, 128), (1, 1, 127, 128, 128)),
        ((1, 128, 128, 128), 3, (1, 1, 64, 64, 64), (1, 1, 32, 32, 32)),
        ((128, 128, 128), 3, (1, 64, 64, 64), (1, 32, 32, 32)),  # a label map
        ((1, 20, 320, 400), 3, (1, 1, 20, 64, 64), (1, 1, 20, 32, 32)),
        ((3, 1500, 1500), 2, (1, 3, 64, 64), (1, 3, 32, 32)),
    ],
)
def test_large_items_are_cut(
    tmp_path: Path, item: tuple[int, ...], dim: int, chunks: tuple[int, ...], blocks: tuple[int, ...]
) -> None:
    array = _create(tmp_path / "images.b2nd", item, np.int16, dim)
    assert array.chunks == chunks and array.blocks == blocks
    written = np.random.default_rng(0).integers(-9, 9, item, dtype=np.int16)
    array.resize((2, *item))
    array[1] = written
    again = blosc2.open(str(tmp_path / "images.b2nd"), mode="r")
    assert np.array_equal(again[1], written) and not again[0].any()
    crop = (slice(None), *(slice(side // 3, side // 3 + 7) for side in item[1:]))
    assert np.array_equal(again[(1, *crop)], written[crop])
