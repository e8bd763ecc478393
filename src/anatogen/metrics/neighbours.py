"""The nearest training image of each image, in pixels under small shifts and in features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Index = tuple[Any, ...]

_TYPICAL = 32  # nearest training images that define the typical distance
_COARSE_PIXELS = 2048  # of the images that select candidates


@dataclass(frozen=True)
class Neighbours:
    """The nearest of M training images for each of N images.

    Attributes:
        distance: (N,), distance to the nearest training image.
        index: (N,), its place among the training images.
        typical: (N,), median distance to the 32 nearest training images (or as many as were compared).
        shift: (N, spatial axes), the shift of the training image in pixels.
    """

    distance: NDArray[np.float64]
    index: Ints
    typical: NDArray[np.float64]
    shift: Ints

    @classmethod
    def joined(cls, parts: Sequence[Neighbours]) -> Neighbours:
        """Concatenate `parts`, which were compared with the same training images."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def relative(self) -> NDArray[np.float64]:
        """(N,), distance over typical distance: near 1 for an image like many training images, near 0 for a copy.

        Use it as the input of `copy_rate`. An image that is merely smooth (few solver steps) or easy (much background)
        is closer to every training image than a real one, and by distance alone would pass for a copy; it is not closer
        to one than to the next (Carlini et al. 2023, "Extracting Training Data from Diffusion Models", divide by the
        mean distance to the 50 nearest on CIFAR-10 for the same reason). The median allows for up to 15 similar slices
        of the copied patient. With few training images, or with more near-duplicates of each, use `distance` as well.
        """
        return np.divide(self.distance, self.typical, out=np.zeros_like(self.distance), where=self.typical > 0)


def nearest_neighbours(
    queries: Floats,
    references: Floats,
    *,
    shifts: int = 2,
    candidates: int | None = 32,
    block: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """Find the nearest training image of each image by pixel correlation under small shifts.

    The distance is 1 - r, with r the correlation of the overlapping pixels, minimised over all shifts of up to `shifts`
    pixels along each axis: half the mean squared difference of the two images, each with mean 0 (in each channel) and
    variance 1. A copy is at 0, an unrelated image at 1, and a flat image is at 1 from everything. So neither a change
    of brightness or contrast nor a small shift hides a copy; Dar et al. 2024 ("Unconditional latent diffusion models
    memorize patient imaging data", arXiv 2402.01054) also use the correlation, of learned embeddings. Mirrored or
    rotated copies are found only if `references` includes mirrored or rotated images: append them if training was
    augmented this way.

    Args:
        queries: (N, C, *spatial); may be a memory map.
        references: (M, C, *spatial), the training images; may be a memory map.
        shifts: Largest shift in pixels along each axis.
        candidates: References that a first pass at low resolution selects for each query; only these are compared pixel
            by pixel. None compares all.
        block: Images of each side that are in memory at a time.
        progress: Called with (done, total) after each block.

    Returns:
        The nearest training image of each query.

    Raises:
        DataError: Shapes do not match, a side has no images, or images are too small for `shifts`.
    """
    if queries.shape[1:] != references.shape[1:] or queries.ndim < 3:
        raise DataError(
            f"images of shape {queries.shape[1:]} cannot be compared with images of {references.shape[1:]}",
            hint="Prepare both in the same way",
        )
    if not len(queries) or not len(references):
        raise DataError("there are no images to compare, or no training images", hint="Pass at least one of each")
    if min(queries.shape[2:]) <= 2 * shifts:
        raise DataError(
            f"images of {queries.shape[2:]} are too small for shifts of {shifts} pixels", hint="Lower shifts"
        )
    compare = _compare_all if candidates is None or candidates >= len(references) else _compare_chosen
    found = []
    for part in _parts(len(queries), block):
        found.append(compare(queries[part], references, shifts, max(candidates or 0, 1), block))
        if progress:
            progress(part.stop, len(queries))
    return Neighbours.joined(found)


def _compare_all(queries: Floats, references: Floats, shifts: int, _: int, block: int) -> Neighbours:
    moves = _moves(shifts, queries.ndim - 2)
    best, index, move = _nearest(queries, references, moves, _TYPICAL, block)
    return Neighbours(best[:, 0], index[:, 0], np.median(best, axis=1), moves[move[:, 0]])


def _compare_chosen(queries: Floats, references: Floats, shifts: int, candidates: int, block: int) -> Neighbours:
    factor = coarsening(queries.shape[2:], _COARSE_PIXELS)
    moves = _moves(math.ceil(shifts / factor), queries.ndim - 2)
    _, chosen, _ = _nearest(_coarse(queries, factor), references, moves, candidates, block, factor)
    found = []
    for query, row in zip(queries, chosen, strict=True):
        places = np.sort(row)
        near = _compare_all(query[None], references[places], shifts, candidates, block)
        found.append(replace(near, index=places[near.index]))
    return Neighbours.joined(found)


def nearest_features(queries: Floats, references: Floats, *, block: int = 2048) -> Neighbours:
    """Find the nearest training image of each image in feature space.

    The distance is the root mean squared difference of the features, each divided by its standard deviation over the
    references; features that are constant over the references are left out.

    Args:
        queries: Features (N, F).
        references: Features (M, F) of the training images, M > 1.
        block: Images of each side that are compared at a time.

    Returns:
        The nearest training image of each query; the shift is empty.

    Raises:
        DataError: Shapes do not match, or there are too few images.
    """
    if queries.ndim != 2 or queries.shape[1:] != references.shape[1:]:
        raise DataError(
            f"features of shape {queries.shape} cannot be compared with features of {references.shape}",
            hint="Compute both with the same encoder",
        )
    if not len(queries) or len(references) < 2:
        raise DataError("there are no images to compare, or fewer than two training images", hint="Pass more images")
    mean, spread = references.mean(axis=0, dtype=np.float64), references.std(axis=0, dtype=np.float64)
    used = spread > 1e-6 * max(float(spread.max()), np.finfo(float).tiny)
    scale = spread[used] * math.sqrt(max(int(used.sum()), 1))

    def standardised(features: Floats) -> NDArray[np.float64]:
        return (features[:, used] - mean[used]) / scale

    found = []
    for some in _parts(len(queries), block):
        ours = standardised(queries[some])
        best, index = np.empty((len(ours), 0)), np.empty((len(ours), 0), np.int64)
        for part in _parts(len(references), block):
            theirs = standardised(references[part])
            squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
            places = np.arange(part.start, part.stop)[None]
            best, index = _keep(_TYPICAL, best, index, np.sqrt(np.maximum(squares, 0)), places)
        no_shift = np.empty((len(ours), 0), np.int64)
        found.append(Neighbours(best[:, 0], index[:, 0], np.median(best, axis=1), no_shift))
    return Neighbours.joined(found)


def closest_pairs(neighbours: Neighbours, count: int = 10) -> list[tuple[int, int]]:
    """(image, nearest training image) of the `count` images with the smallest relative distance, the smallest first."""
    order = np.argsort(neighbours.relative, kind="stable")[:count]
    return [(int(i), int(neighbours.index[i])) for i in order]


def _parts(total: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, total)) for start in range(0, total, block))


def _moves(shifts: int, axes: int) -> Ints:
    """(moves, axes), the shortest first, so that a tie goes to the shortest."""
    moves = np.array(list(itertools.product(range(-shifts, shifts + 1), repeat=axes)), np.int64)
    return moves[np.argsort((moves**2).sum(axis=1), kind="stable")]


def coarsening(size: tuple[int, ...], most_pixels: int) -> int:
    """The smallest factor to divide each axis by for at most `most_pixels` pixels; no side gets shorter than 4."""
    factor = 1
    while math.prod(n // factor for n in size) > most_pixels and min(size) // (factor + 1) >= 4:
        factor += 1
    return factor


def _coarse(images: Floats, factor: int) -> Floats:
    """Means over squares or cubes of `factor` pixels; a remainder at the far borders is dropped."""
    if factor == 1:
        return images
    inside: Index = (..., *(slice(n // factor * factor) for n in images.shape[2:]))
    whole = images[inside]
    shape = [part for n in whole.shape[2:] for part in (n // factor, factor)]
    return whole.reshape(*whole.shape[:2], *shape).mean(axis=tuple(range(3, 3 + 2 * (images.ndim - 2), 2)))


def _standard(images: Floats) -> NDArray[np.float32]:
    """(N, pixels): each channel with mean 0, each image with length 1; 0 for a flat image."""
    channels = images.reshape(*images.shape[:2], -1).astype(np.float32)
    size = np.abs(channels).max(axis=(1, 2), initial=0)
    channels -= channels.mean(axis=2, keepdims=True)
    flat = channels.reshape(len(channels), -1)
    length = np.sqrt(np.einsum("np,np->n", flat, flat))
    there = length > 1e-5 * size * math.sqrt(flat.shape[1])  # less is the rounding error of a flat image
    return flat * np.divide(1, length, out=np.zeros_like(length), where=there)[:, None]


def _nearest(
    queries: Floats, references: Floats, moves: Ints, keep: int, block: int, factor: int = 1
) -> tuple[NDArray[np.float64], Ints, Ints]:
    """Distance, index and place in `moves`, each (N, keep), of the references nearest to each query, the nearest first.

    factor: the references (not the queries) are coarsened by it first.
    """
    best = np.empty((len(queries), 0))
    index = np.empty((len(queries), 0), np.int64)
    for part in _parts(len(references), block):
        theirs = _coarse(references[part], factor)
        likeness = np.full((len(queries), len(theirs)), -np.inf, np.float32)
        which = np.zeros(likeness.shape, np.int64)
        for number, move in enumerate(moves):
            of_query, of_reference = _overlap(move)
            r = _standard(queries[of_query]) @ _standard(theirs[of_reference]).T
            better = r > likeness
            likeness[better], which[better] = r[better], number
        code = (np.arange(part.start, part.stop) * len(moves))[None] + which
        best, index = _keep(keep, best, index, np.maximum(1 - likeness.astype(np.float64), 0), code)
    return best, index // len(moves), index % len(moves)


def _overlap(move: Ints) -> tuple[Index, Index]:
    """The overlapping parts of query and reference after the reference moved by `move`."""
    of_query = (..., *(slice(max(d, 0), min(d, 0) or None) for d in move))
    return of_query, (..., *(slice(max(-d, 0), min(-d, 0) or None) for d in move))


def _keep(
    count: int, best: NDArray[np.float64], index: Ints, distances: NDArray[np.float64], new_index: Ints
) -> tuple[NDArray[np.float64], Ints]:
    """The `count` smallest of `best` and the `distances` of a further block, sorted, with their indices."""
    distances = np.concatenate([best, distances], axis=1)
    index = np.concatenate([index, np.broadcast_to(new_index, (len(index), new_index.shape[1]))], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(index, order, axis=1)
