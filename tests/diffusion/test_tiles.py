"""Tiles: they cover an image, blend without a border, and change nothing for a denoiser that looks at one voxel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anatogen.diffusion.tiles import Origin, in_tiles, origins_of, tile_weights, window_of

shapes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3)


@given(shapes, st.floats(0, 0.6))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_the_image_with_their_overlap(sides: list[tuple[int, int]], overlap: float) -> None:
    size = tuple(max(pair) for pair in sides)
    tile = tuple(min(pair) for pair in sides)
    covered = torch.zeros(size, dtype=torch.int64)
    for origin in origins_of(size, tile, overlap):
        part = window_of(covered, origin, tile)
        assert part.shape == tile
        part.add_(1)
        for side, weights, length, start in zip(
            size, tile_weights(size, tile, origin, overlap), tile, origin, strict=True
        ):
            assert len(weights) == length and weights.min() > 0 and weights.max() <= 1
            assert (start > 0 or weights[0] == weights.max()) and (
                start + length < side or weights[-1] == weights.max()
            )
    assert covered.min() >= 1


def test_neighbours_overlap_by_a_quarter() -> None:
    assert origins_of((64,), (64,)) == [(0,)]
    assert origins_of((112,), (64,)) == [(0,), (48,)]
    assert origins_of((113,), (64,)) == [(0,), (24,), (49,)]
    assert len(origins_of((256, 256, 128), (64, 64, 64))) == 5 * 5 * 3


@pytest.mark.parametrize(("size", "tile"), [((40, 33), (16, 16)), ((20, 24, 12), (8, 24, 7))])
def test_a_denoiser_of_single_voxels_sees_no_tiles(size: tuple[int, ...], tile: tuple[int, ...]) -> None:
    def of_tile(origin: Origin) -> object:
        return lambda x, t: 0.3 * x + t.reshape(-1, 1, *(1,) * len(size))

    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.9])
    assert torch.allclose(in_tiles(of_tile, size, tile)(x, t), of_tile((0,))(x, t), atol=1e-6)  # type: ignore[arg-type, operator]


def test_tiles_that_disagree_are_blended_without_a_step() -> None:
    """One tile says 0, its neighbour 1: between voxels the blend changes by little, without blending by 1."""

    def of_tile(origin: Origin) -> object:
        return lambda x, t: torch.full_like(x, float(origin[0] > 0))

    x = torch.zeros(1, 1, 112, 8)
    blended: Tensor = in_tiles(of_tile, (112, 8), (64, 8))(x, torch.ones(1))[0, 0, :, 0]  # type: ignore[arg-type]
    assert blended[:48].max() == 0 and blended[64:].min() == 1
    assert blended.diff().min() >= 0 and blended.diff().max() < 0.1
