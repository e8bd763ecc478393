"""Checks of one case, and its summary for the checks across cases. Nothing else of a case is kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.check.findings import Example, Finding
from anatogen.check.geometry import form_findings, geometry_findings, labelled_mm, orientation, remark_findings
from anatogen.data.label_values import whole_labels
from anatogen.data.sources.base import SourceCase
from anatogen.errors import AnatogenError, DataError
from anatogen.volume import Volume, canonical

_MOST_VALUES = 300  # kept of a label map; with more than a byte can store it is not a label map
_EXAMPLE_SIDE = 256


@dataclass(frozen=True)
class CaseSummary:
    """The facts about one case that the checks across cases need.

    Attributes:
        file, image_file: Label map and image, for messages.
        dtype, low, high, bright: Type and range of the image; `bright` is its 99.5th percentile.
        digest: Of the pixel data; None if all pixels are equal.
        values: The values in the label map; None if they are not labels.
        counts: The number of voxels of each value.
        slices_with: The number of axial slices that contain each value.
        labelled_mm: Extent of the labelled voxels from left to right, front to back and top to bottom; None without
            any.
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
    labelled_mm: tuple[float, float, float] | None = None


def place(path: Path | str | None, location: str) -> str:
    """`path` relative to the data set, if it is inside."""
    if path is None:
        return location
    try:
        return Path(path).relative_to(location).as_posix() or location
    except ValueError:
        return str(path)


def examine(
    case: SourceCase, location: str, channels: int | None = None, *, ignored: int | None = None, example: bool = False
) -> tuple[CaseSummary | None, list[Finding], Example | None]:
    """Read and check one case. Errors become findings; nothing is raised.

    Args:
        channels: The expected number of channels.
        ignored: The value of unknown voxels in label maps.
        example: Whether to return a slice for the page.

    Returns:
        The summary (None if the case cannot be read), the findings, and the example slice.
    """
    image_file = place(case.files[0], location) if case.files else case.id
    file = place(case.files[-1], location) if case.files else case.id
    try:
        image, labels = case.load()
    except AnatogenError as error:
        where = place(error.path, location) if error.path else file
        return None, [Finding("error", _code_of(error, "unreadable"), where, error.problem, error.hint or "")], None
    except Exception as error:  # the other cases still have to be checked
        what = f"cannot be read ({type(error).__name__}: {error})"
        return None, [Finding("error", "unreadable", file, what, "Export or copy the file again")], None
    if not image.array.size or not labels.array.size:
        return None, [Finding("error", "unreadable", file, "has no voxels", "Export the file again")], None
    findings = [
        *_image_findings(image, image_file, channels),
        *geometry_findings(image, labels, image_file, file),
        *_constant_slices(image, labels, image_file),
        *remark_findings(image, image_file),
        *form_findings(case, file),
    ]
    trusted = True
    if labels.array.ndim == 3:
        try:
            labels = whole_labels(labels, case.files[-1] if case.files else case.id)
        except DataError as error:
            findings.append(
                Finding("error", _code_of(error, "labels-not-finite"), file, error.problem, error.hint or "")
            )
            trusted = False
    findings += remark_findings(labels, file)
    summary = summarise(case, image, labels, image_file, file, ignored=ignored)
    if not trusted:
        summary = without_labels(summary)
    picture = example_of(case.id, image, labels) if example and image.grid == labels.grid else None
    return summary, findings, picture


def _code_of(error: AnatogenError, otherwise: str) -> str:
    return "labels-fractional" if "is not a whole number" in error.problem else otherwise


def summarise(
    case: SourceCase, image: Volume, labels: Volume, image_file: str, file: str, *, ignored: int | None = None
) -> CaseSummary:
    """The summary of a case. `ignored`: the value of unknown voxels, which are not counted."""
    pixels = image.array
    finite = pixels if pixels.dtype.kind in "iub" else pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    some = finite.ravel()[:: max(1, finite.size // 1_000_000)]
    axial = int(np.abs(labels.affine[2, :3]).argmax())
    counts, slices_with, empty = _count(np.moveaxis(labels.array, axial, 0), ignored)
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
        labelled_mm=labelled_mm(labels, ignored),
    )


def without_labels(summary: CaseSummary) -> CaseSummary:
    """`summary` of a case whose label map is not usable."""
    return replace(summary, values=None, counts={}, slices_with={}, empty_slices=0, labelled_mm=None)


def digest(pixels: NDArray[np.generic]) -> str:
    """A digest of values and shape that does not depend on the integer type."""
    kind = np.int64 if pixels.dtype.kind in "iub" else np.float32
    total = hashlib.blake2b(str(pixels.shape).encode(), digest_size=12)
    for plane in pixels:
        total.update(np.ascontiguousarray(plane, dtype=kind).data)
    return total.hexdigest()


def example_of(case: str, image: Volume, labels: Volume) -> Example | None:
    """The axial slice with the most labelled voxels, in radiological orientation; None if the affine is singular."""
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


def _count(slices: NDArray[Any], ignored: int | None = None) -> tuple[dict[float, int], dict[float, int], int]:
    """(voxels of each value, slices that contain it, slices without any label) of labels (slices, rows, columns)."""
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
        if ignored is not None:
            known = here != ignored
            here, counts = here[known], counts[known]
        empty += not here.any()
        if len(voxels) < _MOST_VALUES:
            voxels.update(dict(zip(here.tolist(), counts.tolist(), strict=True)))
            occurs.update(here.tolist())
    return voxels, occurs, empty


def _constant_slices(image: Volume, labels: Volume, file: str) -> list[Finding]:
    """Labelled axial slices whose pixels are all equal: lost image data, or a label map larger than its image."""
    if image.grid != labels.grid or labels.array.ndim != 3 or labels.affine.shape != (4, 4) or image.grid[2] == 1:
        return []
    axial = int(np.abs(labels.affine[2, :3]).argmax())
    axes = tuple(a for a in range(3) if a != axial)
    pixels: NDArray[Any] = image.array
    flat = pixels.min(axis=axes) == pixels.max(axis=axes)
    flat = flat if flat.ndim == 1 else flat.any(axis=1)
    bad = int((flat & (labels.array != 0).any(axis=axes)).sum())
    if not bad or bad == image.grid[axial]:
        return []
    what = f"{bad} of {image.grid[axial]} slices have a label but constant intensity"
    return [Finding("warning", "slices-constant", file, what, "Export the image again, or crop the label map to it")]


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
                    "Replace them with the background value",
                )
            )
    if pixels.min() == pixels.max():
        findings.append(
            Finding(
                "warning" if image.grid[2] == 1 else "error",
                "image-constant",
                file,
                f"is constant (every value is {float(pixels.flat[0]):g})",
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
                f"expected {channels} channel(s), got {there}",
                "Give every image the same channels",
            )
        )
    return findings
