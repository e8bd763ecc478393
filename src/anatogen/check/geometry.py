"""Checks of the position of images and label maps, and their readers' remarks as findings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anatogen.check.findings import Finding
from anatogen.data.cropping import labelled_box
from anatogen.data.sources.base import SourceCase
from anatogen.io.nifti import form_of
from anatogen.io.volumes import NIFTI, volume_ending
from anatogen.volume import Volume, same_grid, skew

_SMALL_SHARE = 0.02  # share of labelled voxels ...
_SMALL_BOX = 0.25  # ... in a box smaller than this share of the scan: most of the image is unlabelled


def remark_findings(volume: Volume, file: str) -> list[Finding]:
    """The remarks of the reader of `file`."""
    return [Finding(r.severity, r.code, file, r.what, r.hint) for r in volume.remarks]


def form_findings(case: SourceCase, file: str) -> list[Finding]:
    """A note if image and label map take their affine from different forms of the NIfTI header."""
    if len(case.files) < 2 or any(volume_ending(path.name) not in NIFTI for path in (case.files[0], case.files[-1])):
        return []
    image, labels = form_of(case.files[0]), form_of(case.files[-1])
    if not image or not labels or image == labels:
        return []
    what = f"takes its affine from the {labels}, its image from the {image}"
    hint = "Write both with the same geometry in both forms, for programs that read only one of them"
    return [Finding("note", "forms-mixed", file, what, hint)]


def orientation(affine: NDArray[np.float64]) -> str:
    """The orientation of the array axes, for instance "RAS" or "LPI"."""
    letters = ("RL", "AP", "SI")
    rows = np.abs(affine[:3, :3]).argmax(axis=0)
    return "".join(letters[r][int(affine[r, axis] < 0)] for axis, r in enumerate(rows))


def labelled_mm(labels: Volume, ignored: int | None = None) -> tuple[float, float, float] | None:
    """The extent of the labelled voxels along x, y and z of the patient, in mm; None if nothing is labelled."""
    rows = np.abs(labels.affine[:3, :3]).argmax(axis=0).tolist()
    if labels.array.ndim != 3 or sorted(rows) != [0, 1, 2]:
        return None
    box = labelled_box(labels, ignored)
    if box is None:
        return None
    sides = [0.0, 0.0, 0.0]
    for row, (first, stop), spacing in zip(rows, box, labels.spacing_mm, strict=True):
        sides[row] = (stop - first) * spacing
    return sides[0], sides[1], sides[2]


class _Case(Protocol):
    """The fields of a case summary that `small_findings` reads."""

    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def spacing_mm(self) -> tuple[float, float, float]: ...
    @property
    def counts(self) -> dict[float, int]: ...
    @property
    def labelled_mm(self) -> tuple[float, float, float] | None: ...
    @property
    def slices(self) -> int: ...


def small_findings(cases: Iterable[_Case], location: str) -> list[Finding]:
    """A note if the labelled region is as small as a heart in a chest, with the option that crops to it."""
    shown = [case for case in cases if case.slices > 1]
    boxes = [case.labelled_mm for case in shown if case.labelled_mm is not None]
    if not boxes:
        return []
    voxels = sum(sum(case.counts.values()) for case in shown)
    share = sum(n for case in shown for value, n in case.counts.items() if value) / max(1, voxels)
    largest = np.max(np.array(boxes), axis=0)
    scans = np.median([np.prod(case.grid) * np.prod(case.spacing_mm) for case in shown])
    if share > _SMALL_SHARE or np.prod(largest) > _SMALL_BOX * scans:
        return []
    margin = max(5, 5 * math.ceil(largest.max() / 50))
    view = " x ".join(f"{side + 2 * margin:.0f}" for side in largest)
    what = f"only {100 * share:.2g} % of the voxels are labelled; most of every image is unlabelled"
    hint = f"Prepare with --crop-to-labels {margin}: {view} mm around the labels of every case"
    return [Finding("note", "labels-small", location, what, hint)]


def geometry_findings(image: Volume, labels: Volume, image_file: str, file: str) -> list[Finding]:
    """Whether image and label map are on the same grid, and whether it is oblique."""
    if image.grid != labels.grid:
        shapes = [" x ".join(map(str, volume.grid)) for volume in (labels, image)]
        what = f"label map of {shapes[0]} voxels for an image of {shapes[1]}"
        return [Finding("error", "shape-mismatch", file, what, "Resample the label map to the image's grid")]
    affines = (image.affine, labels.affine)
    if not all(np.isfinite(a).all() and abs(np.linalg.det(a[:3, :3])) > 1e-9 for a in affines):
        what = "the affine is singular, so orientation and spacing are unknown"
        return [Finding("error", "affine-singular", image_file, what, "Fix the affine in the header")]
    here, there = orientation(labels.affine), orientation(image.affine)
    if here != there:
        what = f"label map has orientation {here}, its image {there}"
        return [Finding("error", "orientation-mismatch", file, what, "Resample the label map to the image's grid")]
    if not np.allclose(image.spacing_mm, labels.spacing_mm, rtol=0.01):
        what = f"label map has spacing {_millimetres(labels)}, its image {_millimetres(image)}"
        return [Finding("error", "spacing-mismatch", file, what, "Give both the same affine")]
    if not same_grid(image, labels, tolerance_mm=0.5):
        apart = float(np.linalg.norm((image.affine - labels.affine)[:3, 3]))
        what = f"label map and image have different positions (origins {apart:.1f} mm apart)"
        return [Finding("error", "place-mismatch", file, what, "Give both the same affine")]
    if skew(image.affine) > 0.05:  # reported by the reader
        return []
    directions = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1)).max()))
    if tilt > 5:
        what = f"the voxel grid is rotated by {tilt:.0f} degrees against the patient's axes"
        return [Finding("note", "oblique", image_file, what, "Slices follow the voxel grid; nothing to do")]
    return []


def _millimetres(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing_mm) + " mm"
