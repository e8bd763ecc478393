"""Arrays with their position in the patient: orientation, resampling, cropping and padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

Fit = Literal["pad", "crop", "stretch"]

# The array axis perpendicular to the slices, (x, y, z) in canonical orientation.
SLICE_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


# Affine columns whose cosine is below this are taken to be orthogonal.
MOST_ROUNDING = 1e-3


@dataclass(frozen=True)
class Remark:
    """A reader's remark on a file that it could read. `code` is that of the finding in `check`."""

    severity: Literal["warning", "note"]
    code: str
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Volume:
    """A scan: array (X, Y, Z) or (X, Y, Z, channels), and affine (4, 4) from voxel index to RAS millimetres.

    Attributes:
        remarks: The reader's remarks on the file.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]
    remarks: tuple[Remark, ...] = ()

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or self.affine.shape != (4, 4):
            raise DataError(f"expected a 3D volume and a 4 x 4 affine, got {self.array.shape} and {self.affine.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance between voxel centres along each array axis, in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def grid(self) -> tuple[int, int, int]:
        """The spatial shape (X, Y, Z)."""
        x, y, z = self.array.shape[:3]
        return x, y, z

    def remarked(self, *remarks: Remark) -> Volume:
        """The same volume with additional remarks."""
        return replace(self, remarks=(*self.remarks, *remarks)) if remarks else self


def skew(affine: NDArray[np.float64]) -> float:
    """How far the voxel axes deviate from right angles: the largest cosine between two of them, 0 to 1.

    It is the sine of the gantry tilt. Values up to MOST_ROUNDING count as rounding.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    unit = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    return float(np.abs(np.triu(unit.T @ unit, 1)).max())


def is_flat(affine: NDArray[np.float64], axis: int) -> bool:
    """Whether slices across array axis `axis` (0, 1 or 2) are rectangles, as acquired slices of a tilted gantry are."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    a, b = (affine[:3, k] / lengths[k] for k in range(3) if k != axis)
    return bool(abs(a @ b) <= MOST_ROUNDING)


def canonical(volume: Volume) -> Volume:
    """The same volume with its array axes flipped and permuted to run most nearly to left, posterior, inferior.

    Raises:
        DataError: The affine is singular.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    now = io_orientation(volume.affine)
    if np.isnan(now).any():
        raise DataError("the affine is singular, so the orientation is unknown", hint="Fix the affine in the header")
    orientation = ornt_transform(now, axcodes2ornt("LPI"))
    array = apply_orientation(volume.array, orientation)
    return replace(volume, array=array, affine=volume.affine @ inv_ornt_aff(orientation, volume.grid))


def axis_codes(affine: NDArray[np.float64]) -> str:
    """The nearest anatomical direction of each array axis: "RAS" for right, anterior, superior; "?" if unknown."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(affine))


def with_last_axis(volume: Volume, axis: int) -> Volume:
    """The same volume with array axis `axis` (0, 1 or 2) moved to the end of the spatial axes."""
    order = [*(a for a in range(3) if a != axis), axis]
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, order]
    return Volume(volume.array.transpose(*order, *range(3, volume.array.ndim)), affine)


def same_grid(a: Volume, b: Volume, tolerance_mm: float = 1e-2) -> bool:
    """Whether the corners of two volumes of one shape coincide to within `tolerance_mm`."""
    corner = np.array([*a.grid, 1.0])
    origin = np.array([0.0, 0.0, 0.0, 1.0])
    return a.grid == b.grid and all(
        np.linalg.norm((a.affine - b.affine) @ point) <= tolerance_mm for point in (origin, corner)
    )


@dataclass(frozen=True)
class Fitting:
    """How an array of `shape` is fitted to `size`: resized to `resized`, then centre-cropped or padded."""

    shape: tuple[int, ...]
    resized: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def plan(cls, shape: tuple[int, ...], size: tuple[int, ...], fit: Fit) -> Fitting:
        """How to fit `shape` to `size`.

        Args:
            fit: `pad` keeps the aspect ratio: it shrinks what is larger than `size`, never enlarges, and pads. `crop`
                does not resample: it crops or pads around the centre. `stretch` resizes to `size` (as in the paper).
        """
        if fit == "stretch":
            return cls(shape, size, size)
        if fit == "crop":
            return cls(shape, shape, size)
        scale = min(1.0, *(want / have for have, want in zip(shape, size, strict=True)))
        return cls(shape, tuple(min(w, max(1, round(n * scale))) for n, w in zip(shape, size, strict=True)), size)

    def apply(self, array: NDArray[Any], *, fill: float, labels: bool = False) -> NDArray[Any]:
        """Fit `array` of `shape` to `size`, padded with `fill`.

        Labels are resized by nearest neighbour, images linearly (smoothed first when shrinking).
        """
        if self.shape == self.resized == self.size:
            return array
        array = _resize(array, self.resized, labels=labels)
        result = np.full(self.size, fill, dtype=array.dtype)
        source, target = [], []
        for have, want in zip(self.resized, self.size, strict=True):
            kept = min(have, want)
            source.append(slice((have - kept) // 2, (have - kept) // 2 + kept))
            target.append(slice((want - kept) // 2, (want - kept) // 2 + kept))
        result[tuple(target)] = array[tuple(source)]
        return result

    def to_original(self) -> list[tuple[float, float]]:
        """(scale, offset) of each axis: the centre of voxel i of the result is at scale i + offset in the original."""
        pairs = []
        for shape, resized, size in zip(self.shape, self.resized, self.size, strict=True):
            scale = shape / resized
            shift = max(0, resized - size) // 2 - max(0, size - resized) // 2
            pairs.append((scale, (shift + 0.5) * scale - 0.5))
        return pairs


def resample(volume: Volume, spacing_mm: tuple[float, float, float], *, labels: bool = False) -> Volume:
    """Resample `volume` to (about) `spacing_mm`, with a whole number of voxels along each axis over the same extent."""
    grid = tuple(max(1, round(n * s / t)) for n, s, t in zip(volume.grid, volume.spacing_mm, spacing_mm, strict=True))
    if grid == volume.grid:
        return volume
    channels = volume.array.reshape(*volume.grid, -1)
    resized = np.stack([_resize(channels[..., c], grid, labels=labels) for c in range(channels.shape[-1])], axis=-1)
    change = np.eye(4)
    for axis, (scale, offset) in enumerate(Fitting(volume.grid, grid, grid).to_original()):
        change[axis, axis], change[axis, 3] = scale, offset
    return Volume(resized.reshape(*grid, *volume.array.shape[3:]), volume.affine @ change)


def crop(volume: Volume, start: tuple[int, int, int], size: tuple[int, int, int], fill: NDArray[Any]) -> Volume:
    """Crop the box of `size` voxels from voxel `start` (may be negative), keeping its position in the patient.

    Args:
        fill: The value outside the volume: a number, or one for each channel.
    """
    array = np.empty((*size, *volume.array.shape[3:]), volume.array.dtype)
    array[...] = fill
    inside = [(max(0, a), min(n, a + s)) for a, n, s in zip(start, volume.grid, size, strict=True)]
    if all(low < high for low, high in inside):
        target = tuple(slice(low - a, high - a) for (low, high), a in zip(inside, start, strict=True))
        array[target] = volume.array[tuple(slice(low, high) for low, high in inside)]
    move = np.eye(4)
    move[:3, 3] = start
    return replace(volume, array=array, affine=volume.affine @ move)


def _resize(array: NDArray[Any], size: tuple[int, ...], *, labels: bool) -> NDArray[Any]:
    if array.shape == size:
        return array
    factors = [want / have for have, want in zip(array.shape, size, strict=True)]
    if labels:
        return np.asarray(ndimage.zoom(array, factors, order=0, mode="nearest", grid_mode=True))
    blur = [max(0.0, 0.5 * (1 / factor - 1)) for factor in factors]  # anti-aliasing when shrinking
    smooth = ndimage.gaussian_filter(array.astype(np.float32), blur, mode="nearest")
    resized = ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray((np.rint(resized) if array.dtype.kind in "iu" else resized).astype(array.dtype))
