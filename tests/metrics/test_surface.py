"""Surfaces and volumes against what squares and cubes have, counted by hand, and against MONAI."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.data.placement import item_spacing
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.errors import SettingsError
from anatogen.metrics.overlap import worst
from anatogen.metrics.surface import hd95_by_group, missed_by_group, surface_dice_by_group, volume_error_by_group

ONE = np.zeros(1)
NAN = np.nan


def block(*corner: int, side: int = 4, size: int = 16, label: int = 1) -> NDArray[np.int64]:
    """A square or cube of `side` voxels in a map of `size` along each axis."""
    labels = np.zeros((size,) * len(corner), np.int64)
    labels[tuple(slice(c, c + side) for c in corner)] = label
    return labels


EMPTY = np.zeros((16, 16), np.int64)


@given(
    axes=st.sampled_from([2, 3]),
    side=st.integers(1, 6),
    k=st.integers(0, 9),
    along=st.integers(0, 2),
    spacing=st.lists(st.floats(0.2, 5), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_a_shift_by_k_voxels_is_a_distance_of_k_spacings(
    axes: int, side: int, k: int, along: int, spacing: list[float]
) -> None:
    along, spacing = along % axes, spacing[:axes]
    start = [0] * axes  # at the image's edge, which is a surface too
    moved = start.copy()
    moved[along] = k
    a, b = block(*start, side=side)[None], block(*moved, side=side)[None]
    assert hd95_by_group(a, b, ONE, 2, spacing)[0, 0] == pytest.approx(k * spacing[along], rel=1e-6)
    assert hd95_by_group(b, a, ONE, 2, spacing)[0, 0] == pytest.approx(k * spacing[along], rel=1e-6)
    assert surface_dice_by_group(a, b, ONE, 2, spacing, tolerance_mm=k * spacing[along])[0, 0] == 1


def test_the_95th_percentile_leaves_a_stray_voxel_out() -> None:
    truth = block(2, 2, side=10, size=40)
    found = truth.copy()
    found[39, 39] = 1  # 1 of 37 voxels of the surface
    assert hd95_by_group(found[None], truth[None], ONE, 2, (1, 1))[0, 0] == 0
    found[39, 30:] = 1  # 10 of 46
    assert hd95_by_group(found[None], truth[None], ONE, 2, (1, 1))[0, 0] > 28


def test_surface_dice_by_hand() -> None:
    """Of the 12 surface voxels of two squares, one column apart, 3 above and 3 below are the same."""
    a, b = block(4, 4)[None], block(4, 5)[None]
    assert surface_dice_by_group(a, b, ONE, 2, (1, 1), tolerance_mm=0)[0, 0] == 0.5
    # With rows of 0.5 mm and columns of 2 mm, the 2 inner voxels of the one wall that lies within the other square are
    # near its upper and lower edge as well: 8 of 12, for either.
    assert surface_dice_by_group(a, b, ONE, 2, (0.5, 2.0), tolerance_mm=0.5)[0, 0] == pytest.approx(16 / 24)
    assert surface_dice_by_group(a, b, ONE, 2, (0.5, 2.0), tolerance_mm=1.99)[0, 0] < 1
    assert surface_dice_by_group(a, b, ONE, 2, (0.5, 2.0))[0, 0] == 1  # by default, one pixel is allowed
    assert surface_dice_by_group(a, b, ONE, 2, (2.0, 0.5))[0, 0] == 1
    assert surface_dice_by_group(a, block(4, 6)[None], ONE, 2, (0.5, 2.0))[0, 0] < 1


def test_volumes_are_judged_across_slices() -> None:
    """Cubes of 4 voxels have 4^3 - 2^3 = 56 in their surface; two layers apart they share 2 x 12 of the walls."""
    a, b = block(4, 4, 4)[None], block(6, 4, 4)[None]
    assert hd95_by_group(a, b, ONE, 2, (3.0, 0.7, 0.7))[0, 0] == pytest.approx(6)
    assert surface_dice_by_group(a, b, ONE, 2, (3.0, 0.7, 0.7), tolerance_mm=0)[0, 0] == pytest.approx(24 / 56)
    assert surface_dice_by_group(a, b, ONE, 2, (0.1, 0.7, 0.7), tolerance_mm=0.2)[0, 0] == 1
    assert volume_error_by_group(a, b, ONE, 2, (3.0, 0.7, 0.7))[0, 0] == 0


def test_a_class_in_one_map_only_is_missed_and_not_hidden() -> None:
    """Patient a: one square correct, one missed, one invented. b: missed. c: in neither map."""
    truth = np.stack([block(2, 2), block(5, 5, side=2), EMPTY, block(1, 1), EMPTY])
    found = np.stack([block(2, 2), EMPTY, block(8, 8, side=3), EMPTY, EMPTY])
    patients = np.array(["a", "a", "a", "b", "c"])
    distance = hd95_by_group(found, truth, patients, 2, (1, 1))
    assert np.array_equal(distance, [[0], [NAN], [NAN]], equal_nan=True)
    overlap = surface_dice_by_group(found, truth, patients, 2, (1, 1))
    assert np.allclose(overlap, [[24 / (24 + 4 + 8)], [0], [NAN]], equal_nan=True)
    missed = missed_by_group(found, truth, patients, 2)
    assert np.allclose(missed, [[1 / 2], [1], [NAN]], equal_nan=True)
    error = volume_error_by_group(found, truth, patients, 2, (1, 1))
    assert np.allclose(error, [[(16 + 9) / (16 + 4) - 1], [-1], [NAN]], equal_nan=True)


def test_what_does_not_count_is_left_out() -> None:
    truth = np.stack([block(2, 2) + block(8, 8, label=2), block(2, 2) + block(8, 8, label=2)])
    found = np.stack([block(2, 3) + block(8, 8, label=2), EMPTY])
    counted = np.array([[True, False], [False, True]])
    together, spacing = np.zeros(2), (1.0, 1.5)
    assert hd95_by_group(found, truth, together, 3, spacing)[0] == pytest.approx([1.5, 0])
    assert np.array_equal(hd95_by_group(found, truth, together, 3, spacing, counted), [[1.5, NAN]], equal_nan=True)
    assert surface_dice_by_group(found, truth, together, 3, spacing, counted)[0] == pytest.approx([1, 0])
    assert volume_error_by_group(found, truth, together, 3, spacing, counted)[0] == pytest.approx([0, -1])
    assert missed_by_group(found, truth, together, 3, counted)[0] == pytest.approx([0, 1])
    none = np.zeros((2, 2), bool)
    for values in (
        hd95_by_group(found, truth, together, 3, spacing, none),
        surface_dice_by_group(found, truth, together, 3, spacing, none),
        volume_error_by_group(found, truth, together, 3, spacing, none),
        missed_by_group(found, truth, together, 3, none),
    ):
        assert values.shape == (1, 2) and np.isnan(values).all()


def test_each_image_may_have_its_own_spacing() -> None:
    truth = np.stack([block(4, 4), block(4, 4)])
    found = np.stack([block(4, 6), block(4, 4, side=2)])
    spacing = np.array([[1.0, 2.0], [3.0, 1.0]])
    each = np.arange(2)
    # The corner of the small square lies 2 rows below and 2 columns beside; the 95th percentile of the 12 distances is
    # between the greatest and the next ones.
    apart = hd95_by_group(found, truth, each, 2, spacing)[:, 0]
    assert apart[0] == pytest.approx(4) and 6 <= apart[1] <= np.hypot(6, 2)
    assert hd95_by_group(found, truth, np.zeros(2), 2, spacing)[0, 0] == pytest.approx(apart.mean())
    # 16 pixels of 2 mm2 for 16, and 4 of 3 mm2 for 16 of 3 mm2.
    assert volume_error_by_group(found, truth, np.zeros(2), 2, spacing)[0, 0] == pytest.approx(
        (32 + 12) / (32 + 48) - 1
    )
    assert surface_dice_by_group(found, truth, each, 2, spacing)[0, 0] < 1
    again = surface_dice_by_group(found[:1], truth[:1], each[:1], 2, spacing[:1], tolerance_mm=4)
    assert again[0, 0] == 1


@pytest.mark.filterwarnings("ignore:.*all 0", "ignore:.*always_return_as_numpy")
@pytest.mark.parametrize("shape", [(24, 20), (10, 12, 14)])
def test_agrees_with_monai(shape: tuple[int, ...]) -> None:
    """On smooth random maps, image by image, wherever both maps hold the class (MONAI's distances are infinite
    elsewhere).
    """
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(0)
    blur = (0, 0, *(2.0,) * len(shape))
    truth, found = ndimage.gaussian_filter(rng.normal(size=(2, 3, 6, *shape)), (0, *blur)).argmax(axis=1)
    found[0][found[0] == 4] = 0
    spacing = rng.uniform(0.4, 3, (6, len(shape)))
    a, b = (torch.nn.functional.one_hot(torch.from_numpy(m), 5).movedim(-1, 1) for m in (found, truth))
    listed = spacing.tolist()
    distance = compute_hausdorff_distance(a, b, percentile=95, spacing=listed).numpy()
    overlap = compute_surface_dice(a, b, [1.5] * 4, spacing=listed).numpy()
    ours = hd95_by_group(found, truth, np.arange(6), 5, spacing)
    assert np.isfinite(ours).sum() >= 8
    assert np.allclose(ours[np.isfinite(distance)], distance[np.isfinite(distance)], rtol=1e-5)
    assert np.isnan(ours[~np.isfinite(distance)]).all()
    ours = surface_dice_by_group(found, truth, np.arange(6), 5, spacing, tolerance_mm=1.5)
    assert np.allclose(ours, overlap, rtol=1e-5, equal_nan=True)


def test_small_types_and_values_beyond_the_classes() -> None:
    """Label maps may be uint8, and contain values beyond the classes."""
    truth, found = block(4, 4).astype(np.uint8)[None], block(4, 6).astype(np.uint16)[None]
    found[0, 0, 0] = 300
    assert hd95_by_group(found, truth, ONE, 2, (1, 1))[0, 0] == 2
    assert volume_error_by_group(found, truth, ONE, 2, (1, 1))[0, 0] == 0


def test_bad_input_is_named() -> None:
    maps = np.stack([EMPTY] * 3)
    for spacing in ((1.0,), (1, 1, 1), np.ones((2, 2))):
        with pytest.raises(SettingsError, match="for 3 label maps of 2 axes"):
            hd95_by_group(maps, maps, np.arange(3), 2, spacing)
    for spacing in ((1, 0), (1, -1), (1, NAN), (np.inf, 1)):
        with pytest.raises(SettingsError, match="not above 0 mm"):
            volume_error_by_group(maps, maps, np.arange(3), 2, spacing)
    with pytest.raises(SettingsError, match=r"\(1, 16, 16\) and \(3, 16, 16\)"):
        missed_by_group(maps[:1], maps, np.arange(3), 2)
    with pytest.raises(SettingsError, match="tolerance must be 0 mm or more, got -1"):
        surface_dice_by_group(maps, maps, np.arange(3), 2, (1, 1), tolerance_mm=-1)


def test_the_worst_come_first() -> None:
    scores = np.array([[0.9, 0.7], [NAN, 0.2], [NAN, NAN], [0.5, NAN]])
    assert worst(scores, 2).tolist() == [1, 3]
    assert worst(scores, 10).tolist() == [1, 3, 0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (PrepareSettings((32, 32), "axial"), (0.8, 0.5)),
        (PrepareSettings((32, 32), "coronal"), (3.0, 0.5)),
        (PrepareSettings((32, 32), "sagittal", "crop"), (3.0, 0.8)),
        (PrepareSettings((32, 40), "axial", "stretch"), (0.8 * 24 / 32, 0.5 * 20 / 40)),
        (PrepareSettings((12, 12), "axial", "pad"), (1.6, 1.0)),
        (PrepareSettings((32, 32), "axial", spacing_mm=(1.0, 1.6, 3.0)), (1.6, 1.0)),
        (PrepareSettings((16, 12, 10), fit="stretch"), (3.0 * 12 / 16, 0.8 * 24 / 12, 1.0)),
    ],
)
def test_spacing_of_items(nnunet: Path, tmp_path: Path, how: PrepareSettings, expected: tuple[float, ...]) -> None:
    """Voxels of 0.5 x 0.8 x 3 mm, in files with other axis directions."""
    for path in nnunet.rglob("*.nii.gz"):
        array = np.asarray(nibabel.load(path).dataobj)  # (20, 24, 12)
        affine = np.array([[0, -0.5, 0, 0], [0, 0, 0.8, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 0, 1), affine), path)
    dataset = prepare(open_source(str(nnunet)), tmp_path / "data", how)
    assert item_spacing(dataset, dataset.rows[0]) == pytest.approx(expected)
    assert len(expected) == len(dataset.size)
