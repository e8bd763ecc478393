"""Volumes of which only some slices were drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from anatogen.data.store import PreparedDataset

Cli = Callable[..., tuple[int, str, str]]


def only_every_third_slice(raw: Path, axis: int) -> None:
    """Remove the drawing from the other slices of every label map."""
    for path in (raw / "labelsTr").iterdir():
        file = nibabel.load(path)  # type: ignore[attr-defined]
        labels = np.asarray(file.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
        kept = np.moveaxis(np.zeros_like(labels), axis, 0)
        kept[::3] = np.moveaxis(labels, axis, 0)[::3]
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(kept, 0, axis), file.affine), path)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("axis", "name"), [(2, "axial"), (0, "sagittal")])
def test_slices_that_nobody_drew_are_unknown(cli: Cli, nnunet: Path, tmp_path: Path, axis: int, name: str) -> None:
    only_every_third_slice(nnunet, axis)
    size = ("--dim", 3, "--size", "12x24x20", "--layout", "nnunet")
    assert cli("prepare", nnunet, tmp_path / "data", *size, "--undrawn-slices", name)[0] == 0
    data = PreparedDataset.open(tmp_path / "data")
    batch = data.load(list(data.rows))
    assert batch.ignored is not None
    across = {2: 1, 0: 3}[axis]  # of (B, D, H, W)
    by_slice = batch.ignored.movedim(across, 1).flatten(2)
    unknown, drawn = by_slice.all(dim=2), (batch.labels > 0).movedim(across, 1).flatten(2).any(dim=2)
    assert torch.equal(unknown, ~drawn) and not (by_slice.any(dim=2) & drawn).any()
    assert drawn.any() and unknown.float().mean() > 0.6
    assert cli("prepare", nnunet, tmp_path / "whole", *size)[0] == 0
    assert PreparedDataset.open(tmp_path / "whole").load(list(data.rows)).ignored is None


def test_another_axis_is_refused(cli: Cli, nnunet: Path, tmp_path: Path) -> None:
    code, _, said = cli("prepare", nnunet, tmp_path / "data", "--undrawn-slices", "axail", "--layout", "nnunet")
    assert code == 2 and "there is no axis 'axail'" in said and "axial" in said and not (tmp_path / "data").exists()
