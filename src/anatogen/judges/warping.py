"""Real images whose anatomy is changed with them: one class made larger or smaller by a smooth displacement.

What an edited label map asks for has no real image. An image that is warped so that the class grows is the nearest
thing: its map is known, and its texture is real. A segmenter that is trained on such images too can judge edited
maps; one that is not found half of a growth even where the image was right (hippocampus, `benchmarks/control.py`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

FOR_EDITED_MAPS = 0.75
"""The share of a segmenter's training images that are warped where label maps were edited."""

_SMALLEST = 8  # pixels of a class that is warped
_LEAST, _MOST = -0.5, 0.8  # of the class's half width
_THIN = 3.0  # pixels; a thin class grows by up to as many, too
_REACH = 3.0  # how far outside the surroundings give way, relative to the growth


def warp_class(
    image: NDArray[np.float32], labels: NDArray[np.int64], index: int, pixels: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """An image and its map, warped so that the border of a class moves outward by `pixels`.

    Inside, the class is stretched up to its middle; outside, its surroundings are pressed together up to three times
    as far. The border of a thin or pointed part moves less.

    Args:
        image: (C, *spatial).
        labels: (*spatial).
        index: The class. Without it, or where it fills the map, both are returned as they are.
        pixels: Negative: inward, at most 0.8 of the way to the middle.
    """
    there = labels == index
    if pixels == 0 or not there.any() or there.all():
        return image, labels
    box = _around(there, math.ceil((1 + _REACH) * abs(pixels)) + 4)
    at = np.indices(labels[box].shape) + _displacement(there[box], pixels)
    warped, map_of_warped = image.copy(), labels.copy()
    for channel in warped:
        channel[box] = ndimage.map_coordinates(channel[box], at, order=3, mode="nearest")
    map_of_warped[box] = ndimage.map_coordinates(labels[box], at, order=0, mode="nearest")
    return warped, map_of_warped


def _around(there: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    """The box of a region and a margin: beyond it nothing moves."""
    (box,) = ndimage.find_objects(there.astype(np.int8))
    sides = zip(box, there.shape, strict=True)
    return tuple(slice(max(0, part.start - margin), min(side, part.stop + margin)) for part, side in sides)


def _displacement(there: NDArray[np.bool_], pixels: float) -> NDArray[np.float64]:
    """Where each pixel's value comes from, relative to it: (d, *spatial)."""
    outside, inside = ndimage.distance_transform_edt(~there), ndimage.distance_transform_edt(there)
    distance = np.where(there, 0.5 - inside, outside - 0.5)
    middle = -distance.min()
    pixels = max(pixels, -0.8 * middle)
    by_distance = np.interp(distance, [-middle, pixels, pixels + _REACH * abs(pixels)], [0.0, pixels, 0.0])
    slope = np.stack(np.gradient(ndimage.gaussian_filter(distance, 1.0))) if there.ndim > 1 else np.ones((1, 1))
    slope /= np.maximum(1e-6, np.linalg.norm(slope, axis=0))
    return np.stack([ndimage.gaussian_filter(along, 0.7) for along in -slope * by_distance])


def half_width(there: NDArray[np.bool_]) -> float:
    """The largest distance, in pixels, from within a region to its border."""
    return float(ndimage.distance_transform_edt(there).max())


def warp_share(images: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and maps of which a share is warped: a class of each, drawn like how far its border moves.

    It moves inward by up to half of the class's half width, or outward by up to 0.8 of it, and 3 pixels at least.

    Args:
        images: (B, C, *spatial).
        labels: (B, *spatial); below 0 where unknown.
        share: In [0, 1].
        generator: Of the draws, as many whatever the images; none where the share is 0.
    """
    if share == 0:
        return images, labels
    draws = torch.rand(len(images), 3, generator=generator).tolist()
    changed_images, changed_labels = list(images), list(labels)
    for place, (which, of_class, how_far) in enumerate(draws):
        if which >= share:
            continue
        image, of_image = images[place].cpu().numpy(), labels[place].cpu().numpy()
        shown = np.flatnonzero(np.bincount(of_image[of_image > 0].ravel()) >= _SMALLEST)
        if not len(shown):
            continue
        index = int(shown[int(of_class * len(shown))])
        width = half_width(of_image == index)
        least, most = _LEAST * width, max(_MOST * width, _THIN)
        pixels = least + how_far * (most - least)
        warped = warp_class(image, of_image, index, pixels)
        changed_images[place], changed_labels[place] = (torch.from_numpy(each).to(images.device) for each in warped)
    return torch.stack(changed_images), torch.stack(changed_labels)
