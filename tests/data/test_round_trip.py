"""What goes in comes out: intensities, labels, geometry, names (hypothesis)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.data.intensity import IntensityRule
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.slicing import SliceSettings, cut_case, item_volume
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset
from anatogen.labels import LabelSchema
from anatogen.volume import Fitting, Volume, canonical, resample

NAMES = st.lists(
    st.text("abc éß漢 ;,_-", min_size=1, max_size=12).map(str.strip).filter(bool), min_size=2, max_size=4, unique=True
)


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Volume, Volume]:
    """A CT of random HU and a label map, on a random (flipped, permuted, slightly oblique, anisotropic) grid."""
    shape = draw(st.tuples(*[st.integers(3, 12)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    turn = np.eye(3)[draw(st.permutations([0, 1, 2]))] * np.array(draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)))
    oblique = np.eye(3) + draw(st.floats(0, 0.2)) * rng.normal(size=(3, 3)) * 0.3
    affine = np.eye(4)
    affine[:3, :3] = oblique @ turn * rng.uniform(0.5, 5, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    hounsfield = rng.integers(-1024, 3071, shape).astype(np.int16)
    return Volume(hounsfield, affine), Volume(rng.integers(0, 3, shape).astype(np.uint8), affine)


def source_of(image: Volume, labels: Volume, names: list[str] | None = None) -> Source:
    names = names or ["a", "b"]
    return Source(
        "test",
        "case",
        LabelSchema.from_names(names),
        ("CT",),
        (SourceCase("case", "p", lambda: (image, labels), split="train"),),
    )


@settings(max_examples=60, deadline=None)
@given(volumes(), st.sampled_from(["axial", "coronal", "sagittal", None]))
def test_items_go_back_to_their_place_exactly(pair: tuple[Volume, Volume], axis: str | None) -> None:
    """Every voxel of every item, put back by its affine (to 1e-4 mm), holds the scan's HU and label."""
    image, labels = pair
    size = (16, 16) if axis else (16, 16, 16)
    how = SliceSettings(size, axis or "axial", "crop", IntensityRule(window=(-160, 240)), keep_empty=True)
    source = source_of(image, labels)
    items = cut_case(source.cases[0], source.schema, 1, how)
    seen = 0
    for n, position in enumerate(items.positions):
        stored = item_volume(items.images[n, 0], items.affine, items.grid, how, position)
        drawn = item_volume(items.labels[n], items.affine, items.grid, how, position)
        index = np.indices(stored.grid).reshape(3, -1)
        world = stored.affine[:3, :3] @ index + stored.affine[:3, 3:]
        voxel = np.linalg.solve(image.affine[:3, :3], world - image.affine[:3, 3:])
        whole = np.rint(voxel).astype(int)
        assert np.abs(image.affine[:3, :3] @ (voxel - whole)).max() < 1e-4
        inside = ((whole >= 0) & (whole < np.array(image.grid)[:, None])).all(axis=0)
        seen += int(inside.sum())
        at = tuple(whole[:, inside])
        mapping = items.intensity[0]
        back = stored.array.reshape(-1)[inside].astype(np.float64) * mapping.slope + mapping.intercept
        assert np.abs(back - image.array[at]).max() <= 0.5 * mapping.slope
        assert np.array_equal(drawn.array.reshape(-1)[inside], labels.array[at])
    assert seen == image.array.size


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(2, 40)] * 2),
    st.tuples(*[st.integers(8, 32)] * 2),
    st.sampled_from(["pad", "crop", "stretch"]),
)
def test_fitting_knows_where_things_went(shape: tuple[int, int], size: tuple[int, int], fit: str) -> None:
    """A ramp over the original coordinates, fitted, holds at each place the coordinate that `to_original` says."""
    plan = Fitting.plan(shape, size, fit)  # type: ignore[arg-type]
    for axis, (scale, offset) in enumerate(plan.to_original()):
        ramp = np.broadcast_to(np.expand_dims(np.arange(shape[axis], dtype=np.float32), 1 - axis), shape)
        fitted = plan.apply(ramp, fill=np.nan)
        expected = np.broadcast_to(np.expand_dims(scale * np.arange(size[axis]) + offset, 1 - axis), size)
        reach = 1.5 * scale  # next to the border, smoothing and interpolation see less than they want
        sure = ~np.isnan(fitted) & (expected > reach) & (expected < shape[axis] - 1 - reach)
        assert np.allclose(fitted[sure], expected[sure], atol=0.02 * scale + 1e-3)


@settings(max_examples=15, deadline=None)
@given(volumes(), NAMES)
def test_names_and_patients_survive_the_disk(pair: tuple[Volume, Volume], names: list[str]) -> None:
    image, labels = pair
    labels.array[:] = 1
    wanted = LabelSchema.from_names([*names[1:], "other"])
    case = SourceCase(f"case {names[0]}", names[0], lambda: (image, labels), annotated=tuple(names[1:2]), split="train")
    source = Source("test", "x", wanted, ("CT",), (case,))
    with TemporaryDirectory() as folder:
        prepare(source, Path(folder) / "out", PrepareSettings((16, 16), keep_empty=True))
        again = PreparedDataset.open(Path(folder) / "out")
        assert again.schema == wanted
        assert {(r.case, r.patient, r.annotated) for r in again.rows} == {("case_0001", "patient_0001", case.annotated)}
        assert [(n.case, n.patient) for n in again.names.values()] == [(case.id, case.patient)]
        assert np.allclose(again.info.cases["case_0001"].affine, canonical(image).affine, atol=1e-4)


def test_resampling_keeps_extent_and_content() -> None:
    ramp = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None] * 10, (20, 8, 8)).copy()
    volume = Volume(ramp, np.diag([2.0, 1.0, 1.0, 1.0]))
    fine = resample(volume, (1.0, 1.0, 2.0))
    assert fine.grid == (40, 8, 4) and np.allclose(fine.spacing_mm, (1, 1, 2))
    for voxel in ((10, 3, 2), (21, 0, 0)):
        x = (fine.affine @ [*voxel, 1])[0]
        assert fine.array[voxel] == pytest.approx(x / 2 * 10, abs=0.1)
    corner = volume.affine @ [-0.5, -0.5, -0.5, 1]
    assert np.allclose(fine.affine @ [-0.5, -0.5, -0.5, 1], corner)
