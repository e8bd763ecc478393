"""Mean and standard deviation of a split's images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import PreparedDataset

_BLOCK_BYTES = 64 << 20
_SMALLEST_STD = 0.01


def channel_statistics(
    dataset: PreparedDataset, split: str = "train", *, limit: int = 2048
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over at most `limit` images spread over the split.

    Images are in [-1, 1], as the model sees them. Results are rounded to four decimals, so that they do not depend on
    block size or machine; the deviation is at least 0.01, for constant channels.

    Args:
        limit: The number of images read; their blocks stay under 64 MB.
    """
    rows = dataset.split(split)
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int)]
    sums: NDArray[np.float64] = np.zeros((2, dataset.channels))
    pixels = 0
    for batch in dataset.batches(chosen, max(1, _BLOCK_BYTES // (8 * dataset.channels * int(np.prod(dataset.size))))):
        values = batch.images.numpy().astype(np.float64).swapaxes(0, 1).reshape(dataset.channels, -1)  # (C, B pixels)
        sums += np.stack([values.sum(axis=1), np.square(values).sum(axis=1)])
        pixels += values.shape[1]
    mean, square = sums / pixels
    std = np.sqrt(np.maximum(square - mean**2, _SMALLEST_STD**2))
    return tuple(float(v) for v in mean.round(4)), tuple(float(v) for v in std.round(4))
