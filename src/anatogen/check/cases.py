"""Checks of one case, and the summary of it that the checks across cases need. Nothing of a case is kept but that."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.check.findings import Example, Finding
from anatogen.data.sources.base import SourceCase
from anatogen.errors import AnatogenError
from anatogen.volume import Volume, canonical, same_grid

_MOST_VALUES = 300  # of a label map that are remembered: one more than a byte can hold is surely no label map
_EXAMPLE_SIDE = 256


@dataclass(frozen=True)
class CaseSummary:
    """What is known of one case after it was read.

    file, image_file: label map and image, for messages. dtype, low, high, bright: of the image, bright its 99.5th
    percentile. digest: of the pixel data, or None where they are all the same. values: that occur in the label map, or
    None where these cannot be trusted. counts: voxels of each value; slices_with: axial slices that hold it.
    """

    case: str
    patient: str
    split: str | None
    file: str
    image_file: str
    annotated: tuple[str, ...] | None
    grid: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    dtype: str
    low: float
    high: float
    bright: float
    digest: str | None
    values: tuple[float, ...] | None
    counts: dict[float, int]
    slices_with: dict[float, int]
    slices: int
    empty_slices: int


def place(path: Path | str | None, location: str) -> str:
    """`path` relative to the data set, where it lies inside."""
    if path is None:
        return location
    try:
        return Path(path).relative_to(location).as_posix() or location
    except ValueError:
        return str(path)


def examine(
    case: SourceCase, location: str, channels: int | None = None, *, example: bool = False
) -> tuple[CaseSummary | None, list[Finding], Example | None]:
    """Read one case and look at it by itself. The summary is None where it cannot be read; nothing is raised.

    channels: how many the image should have. example: whether a slice is wanted to look at.
    """
    image_file = place(case.files[0], location) if case.files else case.id
    file = place(case.files[-1], location) if case.files else case.id
    try:
        image, labels = case.load()
    except AnatogenError as error:
        where = place(error.path, location) if error.path else file
        return None, [Finding("error", "unreadable", where, error.problem, error.hint or "")], None
    except Exception as error:  # whatever a file did to its reader, the other cases are still to be checked
        what = f"cannot be read ({type(error).__name__}: {error})"
        return None, [Finding("error", "unreadable", file, what, "Export or copy the file again")], None
    if not image.array.size or not labels.array.size:
        return None, [Finding("error", "unreadable", file, "has no voxels", "Export the file again")], None
    findings = [
        *_image_findings(image, image_file, channels),
        *_geometry_findings(image, labels, image_file, file),
    ]
    summary = summarise(case, image, labels, image_file, file)
    picture = example_of(case.id, image, labels) if example and image.grid == labels.grid else None
    return summary, findings, picture


def summarise(case: SourceCase, image: Volume, labels: Volume, image_file: str, file: str) -> CaseSummary:
    """The summary of a case that was read."""
    pixels = image.array
    finite = pixels if pixels.dtype.kind in "iub" else pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    some = finite.ravel()[:: max(1, finite.size // 1_000_000)]
    axial = int(np.abs(labels.affine[2, :3]).argmax())
    counts, slices_with, empty = _count(np.moveaxis(labels.array, axial, 0))
    return CaseSummary(
        case=case.id,
        patient=case.patient,
        split=case.split,
        file=file,
        image_file=image_file,
        annotated=case.annotated,
        grid=image.grid,
        spacing_mm=image.spacing_mm,
        orientation=orientation(image.affine),
        dtype=str(pixels.dtype),
        low=low,
        high=high,
        bright=float(np.percentile(some, 99.5)) if some.size else 0.0,
        digest=digest(pixels) if low < high else None,
        values=tuple(sorted(counts)[:_MOST_VALUES]),
        counts=counts,
        slices_with=slices_with,
        slices=labels.array.shape[axial],
        empty_slices=empty,
    )


def orientation(affine: NDArray[np.float64]) -> str:
    """Where the array axes run to, for instance "RAS" or "LPI"."""
    letters = ("RL", "AP", "SI")
    rows = np.abs(affine[:3, :3]).argmax(axis=0)
    return "".join(letters[r][int(affine[r, axis] < 0)] for axis, r in enumerate(rows))


def digest(pixels: NDArray[np.generic]) -> str:
    """The same for the same values in the same shape, whatever integer type holds them."""
    kind = np.int64 if pixels.dtype.kind in "iub" else np.float32
    total = hashlib.blake2b(str(pixels.shape).encode(), digest_size=12)
    for plane in pixels:
        total.update(np.ascontiguousarray(plane, dtype=kind).data)
    return total.hexdigest()


def example_of(case: str, image: Volume, labels: Volume) -> Example | None:
    """The axial slice with the most labelled voxels, shown the radiological way; None where the affine is singular."""
    try:
        image, labels = canonical(image), canonical(labels)
    except (AnatogenError, ValueError, np.linalg.LinAlgError):
        return None
    if image.grid != labels.grid:
        return None
    k = int((labels.array != 0).sum(axis=(0, 1)).argmax())
    plane = np.nan_to_num(np.asarray(image.array[:, :, k], dtype=np.float32), posinf=0.0, neginf=0.0)
    classes = np.nan_to_num(labels.array[:, :, k].astype(np.float64)).astype(np.int64).T
    plane = plane.swapaxes(0, 1)
    if plane.ndim == 3 and plane.shape[2] != 3:
        plane = plane[..., 0]
    step = max(1, -(-max(classes.shape) // _EXAMPLE_SIDE))
    low, high = np.percentile(plane, (0.5, 99.5))
    unit = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 2 - 1
    return Example(case, unit[::step, ::step].astype(np.float32), classes[::step, ::step])


def _count(slices: NDArray[Any]) -> tuple[dict[float, int], dict[float, int], int]:
    """(voxels of each value, slices that hold it, slices without any label) of labels (slices, rows, columns)."""
    voxels: Counter[float] = Counter()
    occurs: Counter[float] = Counter()
    empty = 0
    small = slices.dtype.kind in "iub" and slices.min() >= 0 and slices.max() < 65536
    for plane in slices:
        if small:
            table = np.bincount(plane.ravel())
            here = table.nonzero()[0]
            counts = table[here]
        else:
            here, counts = np.unique(plane, return_counts=True)
        empty += not here.any()
        if len(voxels) < _MOST_VALUES:
            voxels.update(dict(zip(here.tolist(), counts.tolist(), strict=True)))
            occurs.update(here.tolist())
    return voxels, occurs, empty


def _image_findings(image: Volume, file: str, channels: int | None) -> list[Finding]:
    findings = []
    pixels: NDArray[Any] = image.array
    if pixels.dtype.kind == "f":
        wrong = int((~np.isfinite(pixels)).sum())
        if wrong:
            findings.append(
                Finding(
                    "error",
                    "image-not-finite",
                    file,
                    f"{wrong:,} of {pixels.size:,} values are NaN or infinite",
                    "Replace them by the background's value",
                )
            )
    if pixels.min() == pixels.max():
        findings.append(
            Finding(
                "warning" if image.grid[2] == 1 else "error",
                "image-constant",
                file,
                f"every value is {float(pixels.flat[0]):g}",
                "Export the image again, or remove the case",
            )
        )
    there = pixels.shape[3] if pixels.ndim == 4 else 1
    if channels is not None and there != channels:
        findings.append(
            Finding(
                "error",
                "image-channels",
                file,
                f"has {there} channel(s), where {channels} are declared",
                "Give every image the same channels",
            )
        )
    return findings


def _geometry_findings(image: Volume, labels: Volume, image_file: str, file: str) -> list[Finding]:
    if image.grid != labels.grid:
        shapes = [" x ".join(map(str, volume.grid)) for volume in (labels, image)]
        what = f"label map of {shapes[0]} voxels for an image of {shapes[1]}"
        return [Finding("error", "shape-mismatch", file, what, "Resample the label map to the image's grid")]
    affines = (image.affine, labels.affine)
    if not all(np.isfinite(a).all() and abs(np.linalg.det(a[:3, :3])) > 1e-9 for a in affines):
        what = "the affine is singular, so orientation and spacing are unknown"
        return [Finding("error", "affine-singular", image_file, what, "Mend the header's affine")]
    here, there = orientation(labels.affine), orientation(image.affine)
    if here != there:
        what = f"label map runs {here}, its image {there}"
        return [Finding("error", "orientation-mismatch", file, what, "Resample the label map to the image's grid")]
    if not np.allclose(image.spacing_mm, labels.spacing_mm, rtol=0.01):
        what = f"label map has spacing {_millimetres(labels)}, its image {_millimetres(image)}"
        return [Finding("error", "spacing-mismatch", file, what, "Give both the same affine")]
    if not same_grid(image, labels, tolerance_mm=0.5):
        apart = float(np.linalg.norm((image.affine - labels.affine)[:3, 3]))
        what = f"label map and image lie at different places (origins {apart:.1f} mm apart)"
        return [Finding("error", "place-mismatch", file, what, "Give both the same affine")]
    directions = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1)).max()))
    if tilt > 5:
        what = f"the voxel grid is turned by {tilt:.0f} degrees against the patient's axes"
        return [Finding("note", "oblique", image_file, what, "Slices will follow the voxel grid; nothing to do")]
    return []


def _millimetres(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing_mm) + " mm"
