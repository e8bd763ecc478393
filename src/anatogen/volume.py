"""Arrays with their place in the patient: orientation, resampling, and fitting a slice to a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.errors import DataError

Fit = Literal["pad", "crop", "stretch"]

# The array axis that a slice is taken across, (x, y, z) in canonical orientation.
SLICE_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class Volume:
    """array (X, Y, Z) or, with channels, (X, Y, Z, channels); affine (4, 4) from voxel index to RAS millimetres."""

    array: NDArray[np.generic]
    affine: NDArray[np.float64]

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
        """The shape without channels."""
        x, y, z = self.array.shape[:3]
        return x, y, z


def canonical(volume: Volume) -> Volume:
    """The same volume with its array axes flipped and swapped to run nearest to left, posterior, inferior."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    now = io_orientation(volume.affine)
    if np.isnan(now).any():
        raise DataError("the affine is singular, so the orientation is unknown", remedy="Mend the header's affine")
    orientation = ornt_transform(now, axcodes2ornt("LPI"))
    array = apply_orientation(volume.array, orientation)
    return Volume(array, volume.affine @ inv_ornt_aff(orientation, volume.grid))


def same_grid(a: Volume, b: Volume, tolerance_mm: float = 1e-2) -> bool:
    """Whether the corners of two volumes of one shape lie at the same place, to `tolerance_mm`."""
    corner = np.array([*a.grid, 1.0])
    origin = np.array([0.0, 0.0, 0.0, 1.0])
    return a.grid == b.grid and all(
        np.linalg.norm((a.affine - b.affine) @ point) <= tolerance_mm for point in (origin, corner)
    )


def fit_plane(
    plane: NDArray[np.generic], size: tuple[int, int], fit: Fit, *, fill: float, labels: bool = False
) -> NDArray[np.generic]:
    """Bring `plane` (h, w) to `size` = (H, W).

    `pad` keeps the aspect ratio: shrinks what is larger than `size`, never enlarges, fills up around the middle.
    `crop` changes no pixel: cuts or fills up around the middle. `stretch` resizes to `size` (the paper's way).
    Filled up with `fill`. Labels are resized by nearest neighbour, images linearly (smoothed first when shrunk).
    """
    height, width = plane.shape
    if fit == "stretch":
        plane = _resize(plane, size, labels=labels)
    elif fit == "pad" and (height > size[0] or width > size[1]):
        scale = min(size[0] / height, size[1] / width)
        smaller = (min(size[0], round(height * scale)), min(size[1], round(width * scale)))
        plane = _resize(plane, smaller, labels=labels)
    return _centre(plane, size, fill)


def _resize(plane: NDArray[np.generic], size: tuple[int, int], *, labels: bool) -> NDArray[np.generic]:
    if plane.shape == size:
        return plane
    factors = (size[0] / plane.shape[0], size[1] / plane.shape[1])
    if labels:
        nearest: NDArray[np.generic] = ndimage.zoom(plane, factors, order=0, mode="nearest", grid_mode=True)
        return nearest
    blur = [max(0.0, 0.5 * (1 / factor - 1)) for factor in factors]  # against aliasing when shrinking
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), blur, mode="nearest")
    resized = ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    return (np.rint(resized) if plane.dtype.kind in "iu" else resized).astype(plane.dtype)


def _centre(plane: NDArray[np.generic], size: tuple[int, int], fill: float) -> NDArray[np.generic]:
    result = np.full(size, fill, dtype=plane.dtype)
    source, target = [], []
    for have, want in zip(plane.shape, size, strict=True):
        kept = min(have, want)
        source.append(slice((have - kept) // 2, (have - kept) // 2 + kept))
        target.append(slice((want - kept) // 2, (want - kept) // 2 + kept))
    result[target[0], target[1]] = plane[source[0], source[1]]
    return result
