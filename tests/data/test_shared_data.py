"""Real data, where it is there: beside the repository, never in it."""

from pathlib import Path

import numpy as np
import pytest

from anatogen.data.intensity import IntensityRule
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.slicing import cut_case
from anatogen.data.sources import open_source
from conftest import SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")


def test_hippocampus(tmp_path: Path) -> None:
    """260 cases whose intensities differ by four orders of magnitude, in float32 and uint8."""
    dataset = prepare(
        open_source(str(SHARED / "Dataset004_Hippocampus")), tmp_path / "out", PrepareSettings((64, 64), "sagittal")
    )
    assert dataset.schema.names == ("anterior", "posterior")
    assert len(dataset.info.cases) == 260 and 5500 < len(dataset.rows) < 6000
    counts = [len({r.patient for r in dataset.split(s)}) for s in ("train", "heldout", "val", "test")]
    assert counts == [182, 39, 20, 19] or counts == [182, 39, 19, 20]
    batch = dataset.load(dataset.rows[::50])
    inside = batch.images[:, :, 20:44, 20:44]
    assert inside.mean().abs() < 0.5 and 0.1 < inside.std() < 0.6


def test_head_and_neck_is_partly_annotated() -> None:
    source = open_source(str(SHARED / "Dataset101_HeadNeckCT"))
    assert len(source.cases) == 100 and source.channels == ("CT",)
    assert any(case.annotated is not None and len(case.annotated) < 7 for case in source.cases)
    case = source.cases[0]
    slices = cut_case(
        case, source.schema, 1, PrepareSettings((128, 128), "axial", intensity=IntensityRule((-200, 300)))
    )
    assert slices.intensity[0].slope == 1 and slices.images.min() == -1024
    drawn = {source.schema.names[v - 1] for v in np.unique(slices.labels) if v}
    assert drawn <= set(case.annotated or source.schema.names)


def test_many_classes() -> None:
    source = open_source(str(SHARED / "Dataset102_WholeBodyCT"))
    assert source.schema.count == 118
    slices = cut_case(source.cases[0], source.schema, 1, PrepareSettings((128, 128), "coronal"))
    assert len(np.unique(slices.labels)) > 20
