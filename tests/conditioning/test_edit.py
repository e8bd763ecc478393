"""Every edit: what it keeps, what it changes, and by how many mm, in 2D and 3D, on anisotropic pixels too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anatogen.conditioning.deformation import STRONGEST, _without_specks, deform, displacement
from anatogen.conditioning.edit import enlarge, erase, grow, interpolate, mirror, move, paste, shifted, shrink
from anatogen.errors import DataError

GRIDS = [((40, 48), (1.0, 1.0)), ((40, 60), (1.5, 0.8)), ((16, 30, 36), (2.5, 1.2, 1.0))]


def ball(
    shape: tuple[int, ...], spacing: tuple[float, ...], radius: float, offset: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """bool: the pixels whose centre lies within `radius` mm of the middle, moved by `offset` mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * s - o for n, s, o in zip(shape, spacing, offset, strict=False)]
    squares = np.zeros(shape)
    for axis, at in enumerate(axes):
        squares = squares + np.square(at).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return squares <= radius**2


def anatomy(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """A body (1) with an organ (2) that has a core (3), and a free-standing organ (4)."""
    labels = np.zeros(shape, np.int64)
    labels[ball(shape, spacing, 14)] = 1
    labels[ball(shape, spacing, 9)] = 2
    labels[ball(shape, spacing, 4)] = 3
    labels[(slice(1, 3),) * len(shape)] = 4
    return labels


def reach(labels: np.ndarray, index: int, spacing: tuple[float, ...]) -> float:
    """The radius of the class: its farthest pixel centre from the middle, in mm."""
    places = [(p - (n - 1) / 2) * s for p, n, s in zip(np.nonzero(labels == index), labels.shape, spacing, strict=True)]
    return float(np.sqrt(np.sum(np.square(places), axis=0)).max())


def random_map(seed: int, dim: int) -> np.ndarray:
    """Blobs of up to four classes."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.standard_normal((24, 28) if dim == 2 else (12, 14, 16)), 2.0)
    cuts = np.quantile(noise, [0.4, 0.6, 0.75, 0.9])
    return np.searchsorted(cuts, noise).astype(np.int64)


maps = st.builds(random_map, st.integers(0, 10**6), st.sampled_from([2, 3]))
spacings = st.sampled_from([None, 1.0, 2.0])


def sides(labels: np.ndarray, thick: float | None) -> tuple[float, ...] | None:
    return None if thick is None else (thick, *(1.0,) * (labels.ndim - 1))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("distance", [1.5, 3.0, 4.5])
def test_growing_moves_the_border_by_mm(shape: tuple[int, ...], spacing: tuple[float, ...], distance: float) -> None:
    labels = anatomy(shape, spacing)
    grown = grow(labels, 3, distance, spacing_mm=spacing)
    assert abs(reach(grown, 3, spacing) - (reach(labels, 3, spacing) + distance)) <= max(spacing)
    assert reach(grown, 3, spacing) <= reach(labels, 3, spacing) + distance + 1e-6
    near = ndimage.distance_transform_edt(labels != 3, sampling=spacing) <= distance
    assert np.array_equal(grown == 3, near) and np.array_equal(grown[~near], labels[~near])


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("distance", [1.5, 3.0])
def test_shrinking_moves_the_border_by_mm(shape: tuple[int, ...], spacing: tuple[float, ...], distance: float) -> None:
    labels = anatomy(shape, spacing)
    region = np.isin(labels, [2, 3])
    small = shrink(labels, region, distance, spacing_mm=spacing)
    left = np.isin(small, [2, 3])
    assert abs(reach(left.astype(int), 1, spacing) - (9 - distance)) <= max(spacing)
    assert np.array_equal(small[~region], labels[~region])
    assert set(np.unique(small[region & ~left])) == {1}  # what is lost is body, not background


@settings(deadline=None, max_examples=40)
@given(maps, spacings, st.floats(0.5, 4), st.integers(1, 4))
def test_growing_keeps_what_it_may_not_replace(
    labels: np.ndarray, thick: float | None, distance: float, index: int
) -> None:
    spacing = sides(labels, thick)
    for over in (None, [0], [1, 2]):
        grown = grow(labels, index, distance, spacing_mm=spacing, over=over)
        changed = grown != labels
        assert (grown[labels == index] == index).all() and (grown[changed] == index).all()
        assert over is None or np.isin(labels[changed], over).all()
        assert set(np.unique(grown)) <= set(np.unique(labels))
    more = grow(labels, index, distance + 1, spacing_mm=spacing)
    assert (more[grow(labels, index, distance, spacing_mm=spacing) == index] == index).all()


@settings(deadline=None, max_examples=40)
@given(maps, spacings, st.floats(0.5, 4), st.integers(1, 4))
def test_shrinking_touches_the_class_alone(
    labels: np.ndarray, thick: float | None, distance: float, index: int
) -> None:
    small = shrink(labels, labels == index, distance, spacing_mm=sides(labels, thick))
    assert np.array_equal(small[labels != index], labels[labels != index])
    deep = ndimage.distance_transform_edt(labels == index, sampling=sides(labels, thick)) > distance
    assert np.array_equal(small == index, deep)


@settings(deadline=None, max_examples=40)
@given(maps, st.sets(st.integers(1, 4), min_size=1))
def test_removing_leaves_the_others(labels: np.ndarray, gone: set[int]) -> None:
    left = erase(labels, gone)
    there = ~np.isin(labels, list(gone))
    assert not np.isin(left, list(gone)).any() and np.array_equal(left[there], labels[there])
    assert np.array_equal(erase(left, gone), left)


def test_what_is_inside_becomes_what_is_around() -> None:
    labels = anatomy((40, 48), (1.0, 1.0))
    assert np.array_equal(np.unique(erase(labels, [3])[labels == 3]), [2])
    assert np.array_equal(np.unique(erase(labels, [4])[labels == 4]), [0])


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_moving_keeps_the_shape_and_goes_by_mm(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    labels = anatomy(shape, spacing)
    by = [2.6, -3.1, 1.9][: len(shape)]
    moved = move(labels, [3], by, spacing_mm=spacing)
    assert (moved == 3).sum() == (labels == 3).sum()
    way = (np.array(ndimage.center_of_mass(moved == 3)) - ndimage.center_of_mass(labels == 3)) * spacing
    assert (np.abs(way - by) <= np.array(spacing) / 2 + 1e-9).all()
    steps = np.rint(np.array(by) / spacing).astype(int).tolist()
    assert np.array_equal(moved == 3, shifted(labels, steps) == 3)
    assert np.unique(moved[(labels == 3) & (moved != 3)]).tolist() == [2]  # the organ closes behind its core
    rest = (labels != 3) & (moved != 3)
    assert np.array_equal(moved[rest], labels[rest])


@settings(deadline=None, max_examples=30)
@given(maps, st.lists(st.integers(-40, 40), min_size=3, max_size=3))
def test_shifting_loses_only_what_leaves(labels: np.ndarray, steps: list[int]) -> None:
    steps = steps[: labels.ndim]
    there = shifted(labels, steps)
    places = np.argwhere(labels > 0) + steps
    inside = ((places >= 0) & (places < labels.shape)).all(axis=1)
    assert (there > 0).sum() == inside.sum()
    assert np.array_equal(there[tuple(places[inside].T)], labels[labels > 0][inside])


@settings(deadline=None, max_examples=30)
@given(maps, st.integers(0, 1))
def test_mirroring_twice_is_nothing(labels: np.ndarray, axis: int) -> None:
    swaps = {1: 2}
    once = mirror(labels, axis, swaps)
    assert np.array_equal(mirror(once, axis, swaps), labels)
    assert (once == 1).sum() == (labels == 2).sum() and (once == 3).sum() == (labels == 3).sum()
    assert np.array_equal(np.flip(once, axis) == 1, labels == 2)
    assert np.array_equal(mirror(labels, axis), np.flip(labels, axis))


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_pasting_takes_the_donors_structure(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    labels, donor = anatomy(shape, spacing), anatomy(shape, spacing)
    donor = np.where(donor == 3, 2, donor)
    donor[ball(shape, spacing, 3, (2, 3, 1))] = 3
    step = [0] * (len(shape) - 1) + [2]
    pasted = paste(labels, shifted(donor, step), [3])
    assert np.array_equal(pasted == 3, donor == 3)  # aligned: the donor was two pixels away
    rest = (pasted != 3) & (labels != 3)
    assert np.array_equal(pasted[rest], labels[rest]) and np.unique(pasted[(labels == 3) & (pasted != 3)]).tolist() == [
        2
    ]
    both = paste(labels, donor, [3], replace=False)
    assert np.array_equal(both == 3, (labels == 3) | (donor == 3))
    assert np.array_equal(paste(labels, np.where(donor == 3, 2, donor), [3]), labels)  # a donor without it
    with pytest.raises(DataError, match="cannot be pasted"):
        paste(labels, donor[1:], [3])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([2, 3]), spacings)
def test_interpolating_begins_and_ends_at_the_maps(one: int, two: int, dim: int, thick: float | None) -> None:
    a, b = random_map(one, dim), random_map(two, dim)
    spacing = sides(a, thick)
    assert np.array_equal(interpolate(a, b, 0.0, spacing_mm=spacing), a)
    assert np.array_equal(interpolate(a, b, 1.0, spacing_mm=spacing), b)
    middle = interpolate(a, b, 0.5, spacing_mm=spacing)
    assert set(np.unique(middle)) <= set(np.unique(a)) | set(np.unique(b))
    assert np.array_equal(middle[a == b], a[a == b])  # where both maps agree, so does every map between
    assert np.array_equal(interpolate(a, a, 0.5, spacing_mm=spacing), a)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_interpolated_radii_are_in_between(shape: tuple[int, ...], spacing: tuple[float, ...], share: float) -> None:
    small, large = (ball(shape, spacing, radius).astype(np.int64) for radius in (5, 13))
    between = interpolate(small, large, share, spacing_mm=spacing)
    assert abs(reach(between, 1, spacing) - (5 + 8 * share)) <= max(spacing)
    gone = interpolate(large, np.zeros_like(large), share, spacing_mm=spacing)
    assert (gone == 1).sum() <= (large == 1).sum() and (share < 0.5 or (gone == 1).sum() <= 2 ** len(shape))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.05, STRONGEST), st.sampled_from([0, 1, 2]))
def test_deformation_never_folds(seed: int, strength: float, grid: int) -> None:
    shape, spacing = GRIDS[grid]
    field = displacement(shape, strength, seed, spacing_mm=spacing)
    steps = [np.diff(field, axis=axis + 1) / step for axis, step in enumerate(spacing)]
    largest = max(float(np.sqrt(np.square(each).sum(axis=0)).max()) for each in steps)
    assert 0 < largest <= strength + 1e-9
    axes = tuple(range(1, len(shape) + 1))
    gradient = np.stack([np.stack(np.atleast_1d(np.gradient(u, *spacing))) for u in field])  # (d, d, *shape)
    jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(len(shape))
    assert (np.linalg.det(jacobian) > 0).all()
    assert np.allclose(field.mean(axis=axes), 0)
    assert np.abs(field).max() <= strength * np.linalg.norm(np.multiply(shape, spacing))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.1, STRONGEST), st.sampled_from([0, 1, 2]))
@example(273, 0.765625, 1)  # a pixel came off the tip
@example(454852, 0.8559845393479637, 1)  # two of them
def test_deformation_keeps_classes_and_topology(seed: int, strength: float, grid: int) -> None:
    """Of an organ with a core, both some pixels thick: one piece each, and the core stays inside."""
    shape, spacing = GRIDS[grid]
    labels = np.where(ball(shape, spacing, 10), 1, 0)
    labels[ball(shape, spacing, 5)] = 2
    bent = deform(labels, strength, seed, spacing_mm=spacing)
    assert set(np.unique(bent)) == {0, 1, 2}
    full = np.ones((3,) * labels.ndim)
    assert ndimage.label(bent > 0, full)[1] == 1 and ndimage.label(bent == 2, full)[1] == 1
    touching = ndimage.binary_dilation(bent == 2) & (bent == 0)
    assert not touching.any()
    for index in (1, 2):  # lengths change by `strength` at most
        change = (bent >= index).sum() / (labels >= index).sum()
        assert (1 + strength) ** -labels.ndim * 0.8 <= change <= (1 - strength) ** -labels.ndim * 1.25


def test_only_specks_that_came_off_are_taken_away() -> None:
    labels = np.zeros((14, 14), np.int64)
    labels[2:6, 2:6] = 7
    labels[9, 1:4] = 7  # a small piece, of which two pixels are left, apart
    labels[0, 11] = 5  # one of a single pixel
    source = np.arange(196).reshape(14, 14)
    source[8, 8] = source[8, 11:13] = source[3, 3]  # specks that came off
    source[12, 6:11] = source[3, 3]  # came off, and is no speck
    source[4, 4] = source[13, 13]  # of the background, inside
    source[9, 2] = 0
    expected = labels.ravel()[source]
    expected[8, 8] = expected[8, 11:13] = 0
    expected[4, 4] = 7
    assert np.array_equal(_without_specks(labels, source), expected)
    same = np.full((3, 3), 4)
    assert np.array_equal(_without_specks(same, np.arange(9).reshape(3, 3)), same)


def test_deformation_goes_by_its_seed_and_strength() -> None:
    labels = anatomy((40, 48), (1.0, 1.0))
    assert np.array_equal(deform(labels, 0.4, 1), deform(labels, 0.4, 1))
    assert not np.array_equal(deform(labels, 0.4, 1), deform(labels, 0.4, 2))
    changed = [(deform(labels, strength, 3) != labels).sum() for strength in (0.05, 0.2, 0.8)]
    assert changed == sorted(changed) and changed[0] < changed[2]
    fine, wide = (displacement((64, 64), 0.5, 1, scale=scale) for scale in (6, 30))
    assert np.abs(fine).max() < np.abs(wide).max() / 2  # shorter bumps of one steepness are lower
    for wrong in (0.0, 0.95):
        with pytest.raises(DataError, match="out of range"):
            deform(labels, wrong, 0)
    with pytest.raises(DataError, match="two pixels"):
        deform(labels, 0.3, 0, scale=1.5)


def rings() -> np.ndarray:
    """A disc of class 2 with a core of class 1."""
    y, x = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(x, y)
    return np.select([radius < 4, radius < 13], [1, 2], 0)


def test_enlarge_and_shrink() -> None:
    labels = rings()
    region = labels == 1
    grown = enlarge(labels, region, 2)
    assert (grown == 1).sum() > (labels == 1).sum() + 40
    assert np.array_equal(grown > 0, labels > 0)
    small = shrink(labels, region, 2)
    assert (small[region] == 2).any() and small[19, 19] == 1
    assert np.array_equal(small[~region], labels[~region])


def test_the_background_gives_way_where_it_is_told_to() -> None:
    labels = np.zeros((9, 9), dtype=np.int64)
    labels[4, 4] = 1
    assert np.array_equal(enlarge(labels, labels == 1, 3), labels)
    grown = enlarge(labels, labels == 1, 1, into_background=True)
    assert set(zip(*np.nonzero(grown), strict=True)) == {(4, 4), (3, 4), (5, 4), (4, 3), (4, 5)}
    assert (enlarge(labels, labels == 1, 3, into_background=True) == 1).sum() == 29  # lattice points within 3


def test_nothing_to_edit() -> None:
    empty, full = np.zeros((4, 4), dtype=np.int64), np.ones((4, 4), dtype=np.int64)
    with pytest.raises(DataError, match="empty"):
        enlarge(empty, empty == 1, 1)
    assert np.array_equal(grow(empty, 1, 2), empty) and np.array_equal(move(empty, [1], (1, 1)), empty)
    assert np.array_equal(shrink(full, full == 1, 1), full) and np.array_equal(shrink(full, full == 2, 1), full)
    assert np.array_equal(interpolate(empty, full, 0.25), empty) and np.array_equal(deform(full, 0.5, 0), full)
