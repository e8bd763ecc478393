import numpy as np
import pytest
import torch

from anatogen.networks.padding import Padding


@pytest.mark.parametrize("size", [(61, 97), (28, 28), (5, 9, 6), (2, 7), (1, 5), (3, 40)])
@pytest.mark.parametrize("multiple", [8, 32])
def test_mirrored_and_given_back(size: tuple[int, ...], multiple: int) -> None:
    padding = Padding(size, (multiple,) * len(size))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    padded = padding.pad(x)
    assert padded.shape[2:] == padding.padded and not any(side % multiple for side in padding.padded)
    before = [(whole - side) // 2 for whole, side in zip(padding.padded, size, strict=True)]
    widths = [(0, 0), (0, 0), *((b, w - s - b) for b, w, s in zip(before, padding.padded, size, strict=True))]
    np.testing.assert_array_equal(padded, np.pad(x.numpy(), widths, mode="reflect"))
    assert torch.equal(padding.crop(padded), x)


def test_map_and_image_stay_together() -> None:
    labels = torch.randint(0, 5, (2, 13, 10), generator=torch.Generator().manual_seed(0))
    padding = Padding((13, 10), (16, 16))
    assert torch.equal(padding.pad(labels), padding.pad(labels[:, None].float())[:, 0].long())
    assert padding.pad(labels.to(torch.uint8)).dtype == torch.uint8


def test_sizes_that_divide_are_the_very_same() -> None:
    x = torch.zeros(1, 1, 32, 64)
    padding = Padding((32, 64), (32, 32))
    assert padding.pad(x) is x and padding.crop(x) is x
