import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.errors import DataError
from anatogen.volume import Fit, Fitting, Volume, canonical, same_grid


def _fit(plane: np.ndarray, size: tuple[int, int], fit: Fit, *, fill: float, labels: bool = False) -> np.ndarray:
    return Fitting.plan(plane.shape, size, fit).apply(plane, fill=fill, labels=labels)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations([0, 1, 2]), signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_canonical_keeps_every_voxel_where_it_is(order: list[int], signs: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[order] * np.array(signs) * np.array([1.0, 2.0, 3.0])
    affine[:3, 3] = rng.normal(0, 50, 3)
    volume = Volume(rng.normal(size=(4, 5, 6)), affine)
    turned = canonical(volume)
    assert np.array_equal(np.sign(np.diag(turned.affine[:3, :3])), [-1, -1, -1])  # to left, posterior, inferior
    for voxel in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        place = affine @ [*voxel, 1]
        found = np.rint(np.linalg.solve(turned.affine, place)[:3]).astype(int)
        assert turned.array[tuple(found)] == volume.array[voxel]


def test_singular_affine_is_refused() -> None:
    with pytest.raises(DataError, match="singular"):
        canonical(Volume(np.zeros((2, 2, 2)), np.diag([1.0, 0.0, 1.0, 1.0])))


def test_same_grid_sees_a_shift_and_a_scale() -> None:
    a = Volume(np.zeros((10, 10, 10)), np.eye(4))
    shifted, scaled = np.eye(4), np.diag([1.01, 1, 1, 1])
    shifted[0, 3] = 0.1
    assert same_grid(a, Volume(np.ones((10, 10, 10)), np.eye(4)))
    assert not same_grid(a, Volume(a.array, shifted))
    assert not same_grid(a, Volume(a.array, scaled))


def test_pad_centres_and_shrinks_but_never_enlarges() -> None:
    small = _fit(np.full((4, 6), 7), (8, 8), "pad", fill=-1)
    assert (small[2:6, 1:7] == 7).all() and (small == -1).sum() == 64 - 24
    large = _fit(np.full((40, 20), 7), (8, 8), "pad", fill=-1)
    assert (large[:, 2:6] == 7).all() and (large[:, :2] == -1).all()


def test_crop_changes_no_pixel() -> None:
    plane = np.arange(36).reshape(6, 6)
    assert np.array_equal(_fit(plane, (2, 2), "crop", fill=0), plane[2:4, 2:4])


def test_stretch_keeps_labels_and_means() -> None:
    labels = np.repeat(np.repeat(np.array([[0, 3], [5, 0]]), 8, 0), 8, 1)
    assert np.array_equal(
        _fit(labels, (4, 4), "stretch", fill=0, labels=True), np.repeat(np.repeat([[0, 3], [5, 0]], 2, 0), 2, 1)
    )
    ramp = np.tile(np.linspace(0, 1000, 64), (64, 1)).astype(np.int16)
    shrunk = _fit(ramp, (16, 16), "stretch", fill=0)
    assert abs(float(shrunk.mean()) - float(ramp.mean())) < 2
    assert shrunk.dtype == np.int16
