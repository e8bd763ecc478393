"""The meaning of label values: whether they are spread over a picture's range, and how they map back to classes."""

from __future__ import annotations

from collections.abc import Collection

# Label map files that `fix_labels` can rewrite.
FIXABLE = (".nii.gz", ".nii", ".png", ".tif", ".tiff", ".bmp", ".gif", ".npy")


def stretched(values: Collection[int]) -> bool:
    """Whether `values` are a few classes spread evenly over 0..255 (or 0..65535): {0, 255}, {0, 128, 255}, ..."""
    ordered = sorted(values)
    if len(ordered) not in range(2, 18) or ordered[0] != 0 or ordered[-1] not in (255, 65535):
        return False
    step = ordered[-1] / (len(ordered) - 1)
    return all(abs(value - step * i) <= 1 for i, value in enumerate(ordered))


def mapping_to_classes(values: Collection[int], count: int | None) -> dict[int, int] | None:
    """The mapping of the `values` of all label maps to 0..C-1 in ascending order; None if it would be a guess.

    None also if there is nothing to map.

    Args:
        count: C if classes are declared; the number of values must equal it. If None, the values must be `stretched`.
    """
    ordered = sorted(values)
    if not ordered or ordered[0] != 0 or ordered == list(range(len(ordered))):
        return None
    if count is not None and (len(ordered) != count or ordered[-1] < count):
        return None
    if count is None and not stretched(ordered):
        return None
    return {value: index for index, value in enumerate(ordered)}
