"""Warped images whose map is known: what grows, what stays, and that image and map stay one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anatogen.evaluation.selection import segmenter_choice, segmenter_settings
from anatogen.judges import segmenter as module
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.judges.warping import FOR_EDITED_MAPS, half_width, warp_class, warp_share

INTENSITIES = np.array([-0.8, 0.1, 0.7], dtype=np.float32)


def anatomy(dim: int, radius: float = 8.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A ball in the middle, and a slab at the far end: (1, *spatial) and (*spatial)."""
    at = np.indices((48,) * dim)
    labels = np.where(np.sqrt(np.square(at - 23.5).sum(axis=0)) <= radius, 1, 0)
    labels[at[0] >= 44] = 2
    return INTENSITIES[labels][None], labels


def radius_of(there: NDArray[np.bool_]) -> float:
    """Of a ball of as many pixels."""
    count = int(there.sum())
    return math.sqrt(count / math.pi) if there.ndim == 2 else (count * 3 / 4 / math.pi) ** (1 / 3)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("pixels", [-4.0, -1.0, 1.0, 3.0])
def test_a_ball_grows_by_what_was_asked_and_the_image_with_it(dim: int, pixels: float) -> None:
    image, labels = anatomy(dim)
    warped, of_warped = warp_class(image, labels, 1, pixels)
    assert warped.dtype == np.float32 and of_warped.dtype == np.int64
    assert radius_of(of_warped == 1) == pytest.approx(8 + pixels, abs=0.75)
    assert (of_warped == 2).sum() == (labels == 2).sum()  # too far away to be moved
    nearest = np.abs(warped[0][..., None] - INTENSITIES).argmin(axis=-1)
    assert (nearest == of_warped).mean() > 0.97  # but for borders, where intensities mix


def test_surroundings_give_way_and_nothing_far_away_moves() -> None:
    image, labels = anatomy(2)
    ring = np.sqrt(np.square(np.indices(labels.shape) - 23.5).sum(axis=0))
    labels[(ring > 8) & (ring <= 10)] = 2
    image[0][labels == 2] = INTENSITIES[2]
    warped, of_warped = warp_class(image, labels, 1, 2.0)
    around = (of_warped == 2) & (np.indices(labels.shape)[0] < 40)
    assert 9.5 <= ring[around].min() < 11 and 11 < ring[around].max() < 13  # it was pushed outward, and still touches
    far = (ring > 8 + 2 + 3 * 2 + 3) & (np.indices(labels.shape)[0] < 40)
    assert np.array_equal(of_warped[far], labels[far]) and np.allclose(warped[0][far], image[0][far], atol=0.02)


def test_what_cannot_be_warped_stays() -> None:
    image, labels = anatomy(2)
    for index, pixels, of in ((1, 0.0, labels), (3, 2.0, labels), (1, 2.0, np.ones_like(labels))):
        same, map_of_same = warp_class(image, of, index, pixels)
        assert same is image and map_of_same is of
    vanishing = warp_class(image, labels, 1, -50.0)[1]  # as far as 0.8 of the way to the middle
    assert 0 < (vanishing == 1).sum() < 0.2 * (labels == 1).sum()
    dot = np.zeros_like(labels)
    dot[20, 20] = 1
    assert (warp_class(image, dot, 1, 1.0)[1] == 1).sum() >= 1


def test_a_share_is_warped_by_draws_of_the_generator_alone() -> None:
    image, labels = anatomy(2)
    images, maps = torch.from_numpy(np.stack([image] * 40)), torch.from_numpy(np.stack([labels] * 40))
    maps[::2, :2] = -1

    def of(share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        return warp_share(images, maps, share, torch.Generator().manual_seed(seed))

    none, half, every = of(0.0), of(0.5), of(1.0)
    assert torch.equal(none[0], images) and torch.equal(none[1], maps)
    changed = (half[1] != maps).flatten(1).any(dim=1)
    assert 10 <= int(changed.sum()) <= 30
    assert torch.equal(every[0][changed], half[0][changed])  # the same draws, whatever the share
    assert torch.equal(of(0.5)[0], half[0]) and not torch.equal(of(0.5, seed=1)[0], half[0])
    assert ((every[1] < 0).flatten(1).any(dim=1) == (maps < 0).flatten(1).any(dim=1)).all()  # unknown stays unknown
    sizes = (every[1] == 1).flatten(1).sum(dim=1)
    assert sizes.min() < 0.7 * (labels == 1).sum() and sizes.max() > 1.7 * (labels == 1).sum()
    empty = torch.zeros_like(maps)
    assert torch.equal(warp_share(images, empty, 1.0, torch.Generator())[0], images)


def test_half_a_width_is_the_distance_from_the_middle_to_the_border() -> None:
    assert half_width(anatomy(2)[1] == 1) == pytest.approx(8.5, abs=1)
    assert half_width(np.zeros((4, 4), dtype=bool)) == 0


def test_edited_maps_have_a_segmenter_of_their_own() -> None:
    usual = SegmenterSettings()
    assert segmenter_settings(usual, None) == usual
    settings = segmenter_settings(usual, None, edited=True)
    assert settings == dataclasses.replace(usual, warped=FOR_EDITED_MAPS)
    assert segmenter_choice(settings, None).warped == FOR_EDITED_MAPS
    assert segmenter_choice(usual, None).warped is None
    part = (torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    assert module.segmenter_file(part, part, 2, settings) != module.segmenter_file(part, part, 2, usual)


def test_a_thin_class_grows_by_pixels_and_not_by_its_own_width_only() -> None:
    labels = torch.zeros(30, 32, 32, dtype=torch.int64)
    labels[:, 15] = 1  # one pixel thick
    images = labels[:, None].float()
    _, maps = warp_share(images, labels, 1.0, torch.Generator().manual_seed(0))
    assert (maps == 1).any(dim=2).sum(dim=1).max() >= 5  # 1 + 2 * 3 at most


def test_the_segmenter_learns_from_warped_images_and_is_validated_on_them() -> None:
    image, labels = anatomy(2)
    part = (
        torch.from_numpy(np.stack([image] * 8)),
        torch.from_numpy(np.stack([labels] * 8)),
        torch.ones(8, 2, dtype=torch.bool),
    )
    seen: list[torch.Tensor] = []

    def judge(images: torch.Tensor) -> NDArray[np.int64]:
        seen.append(images.clone())
        return np.abs(images[:, 0, ..., None].numpy() - INTENSITIES).argmin(axis=-1)

    for share in (0.0, 1.0, 1.0):
        counts = module.confusion_of(judge, part, 3, share_warped=share)
        dice = counts.where(np.ones((8, 2), dtype=bool)).obeyed_by(np.zeros(8, dtype=np.int64))
        assert float(dice.min()) > 0.9  # images and maps were warped together
    assert torch.equal(seen[0], part[0]) and torch.equal(seen[1], seen[2])
    assert all(not torch.equal(a, b) for a, b in zip(seen[1], part[0], strict=True))
    brief = SegmenterSettings(steps=2, batch_size=2, validations=1)
    usual, warped, again = (
        module.train_segmenter(part, part, 3, each)._network.state_dict()["model.0.conv.unit0.conv.weight"]
        for each in (brief, brief.for_edited_maps(), brief.for_edited_maps())
    )
    assert torch.equal(warped, again) and not torch.equal(warped, usual)
