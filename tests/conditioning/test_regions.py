"""Regions in which classes are free: what they cover, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anatogen.conditioning.ablate import draw_regions
from anatogen.conditioning.encode import Condition, encode
from anatogen.conditioning.regions import Box, Brush, Near, parse_region
from anatogen.errors import SettingsError
from anatogen.labels import LabelSchema

SCHEMA = LabelSchema.from_names(["liver", "tumour"])


def test_a_box_holds_both_its_ends() -> None:
    box = parse_region(" box 2,3..4,3 ", (8, 8), SCHEMA.index_of)
    assert box == Box((2, 3), (4, 3)) and parse_region(box.text, (8, 8), SCHEMA.index_of) == box
    inside = box.inside(np.zeros((8, 8), np.int64))
    assert inside.sum() == 3 and inside[2:5, 3].all()


def test_near_a_class_is_measured_in_mm_along_every_axis() -> None:
    labels = np.zeros((9, 9, 9), np.int64)
    labels[4, 4, 4] = 2
    near = parse_region("near tumour 2mm", labels.shape, SCHEMA.index_of, (5.0, 1.0, 2.0))
    inside = near.inside(labels)
    assert inside.sum() == np.sum([y**2 + (2 * x) ** 2 <= 4 for y in range(-4, 5) for x in range(-4, 5)])
    assert inside[4, 4, 4] and inside[4, 2, 4] and inside[4, 4, 5] and not inside[3, 4, 4]
    in_pixels = parse_region("near tumour 1px", labels.shape, SCHEMA.index_of, (5.0, 1.0, 2.0))
    assert in_pixels.text == "near tumour 1px" and in_pixels.inside(labels).sum() == 7
    assert not near.inside(np.zeros_like(labels)).any()  # a map without the class


@pytest.mark.parametrize(
    ("text", "spacing", "said"),
    [
        ("box 1,1..9,4", None, "reaches beyond 8 x 8"),
        ("box 4,4..3,6", None, "is empty"),
        ("box 1..4", None, "needs 2 numbers at each end"),
        ("near livver 4px", None, "unknown class 'livver'"),
        ("near liver 4mm", None, "pixel size is not known"),
        ("around liver 4mm", (1.0, 1.0), "describes no region"),
        ("", None, "describes no region"),
    ],
)
def test_what_is_refused(text: str, spacing: tuple[float, ...] | None, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_region(text, (8, 8), SCHEMA.index_of, spacing)


def test_a_mask_of_another_size() -> None:
    brush = Brush("mask a.png", np.ones((4, 8), bool))
    assert brush.inside(np.zeros((4, 8), np.int64)).all()
    with pytest.raises(SettingsError, match="4 x 8 pixels, the label maps have 8 x 8"):
        brush.inside(np.zeros((8, 8), np.int64))
    assert Near("liver", 1, 1.0) != Near("liver", 1, 2.0)


@pytest.mark.parametrize("size", [(48, 32), (24, 16, 20)])
def test_drawn_regions(size: tuple[int, ...]) -> None:
    """The share that holds everywhere, and the sizes of boxes and ellipsoids in the middle of the image."""
    dim = len(size)
    chance = torch.rand(3000, 2 * dim + 4, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(3000, *size, dtype=torch.bool)
    regions = draw_regions(chance, nothing, regional_share=0.3)
    assert regions.dtype == torch.bool and regions.shape == (3000, *size)
    everywhere = regions.flatten(1).all(dim=1)
    assert everywhere[chance[:, -1] >= 0.3].all()
    assert 0.65 < everywhere.float().mean() < 0.75  # binomial: 0.70 +- 0.008
    assert (draw_regions(chance[:4], nothing[:4], regional_share=0.0)).all()
    chance[:, : 2 * dim], chance[:, -1] = 0.5, 0.0
    chance[0, -2], chance[1, -2] = 0.2, 0.8
    box, ellipsoid = draw_regions(chance[:2], nothing[:2], regional_share=1.0).flatten(1).float().mean(dim=1)
    half = 6**0.5 / 12  # of each side
    assert box == pytest.approx((2 * half) ** dim, rel=0.25)
    assert ellipsoid / box == pytest.approx({2: torch.pi / 4, 3: torch.pi / 6}[dim], rel=0.2)


@pytest.mark.parametrize("size", [(40, 64), (20, 24, 32)])
def test_regions_cut_through_freed_classes(size: tuple[int, ...]) -> None:
    """Three of four hold a pixel of the freed class, at any place within them; the others are anywhere."""
    dim = len(size)
    chance = torch.rand(4000, 2 * dim + 4, generator=torch.Generator().manual_seed(1))
    freed = torch.zeros(4000, *size, dtype=torch.bool)
    freed[(slice(None), *(slice(side // 8, side // 4) for side in size))] = True  # in a corner
    freed[::2] = False  # no class is free in every second image, or it is absent

    regions = draw_regions(chance, freed, regional_share=1.0)
    holds = chance[:, 2 * dim + 1] < 0.75
    inside = (regions & freed).flatten(1).sum(dim=1)
    cut = (inside > 0) & (inside < freed[1].sum())
    assert (inside[1::2] > 0)[holds[1::2]].all()
    assert cut[1::2][holds[1::2]].float().mean() > 2 * cut[1::2][~holds[1::2]].float().mean()
    nowhere = draw_regions(chance, torch.zeros_like(freed), regional_share=1.0)
    assert torch.equal(regions[::2], nowhere[::2]) and torch.equal(regions[~holds], nowhere[~holds])

    single = torch.zeros_like(freed)  # one pixel in the middle: how far from it the regions' middles are
    single[(slice(None), *(side // 2 for side in size))] = True
    regions = draw_regions(chance, single, regional_share=1.0)[holds]
    below = torch.stack([each.nonzero().float().mean(dim=0) - torch.tensor(size) / 2 for each in regions])
    assert (below.mean(dim=0).abs() < 1).all() and (below.std(dim=0) > torch.tensor(size) / 20).all()


def test_a_class_that_is_free_in_a_region_only() -> None:
    labels = torch.ones(1, 4, 4, dtype=torch.int64)
    labels[0, 0] = 2
    region = torch.zeros(1, 4, 4, dtype=torch.uint8)
    region[0, :, 2:] = 1
    states = torch.tensor([[[True, True], [False, True]]])
    condition = Condition.of(labels, states, region)
    assert condition.labels[0].tolist() == [[2, 2, 2, 2], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    planes = encode(condition, "onehot", 3)[0]
    assert planes[2, :, :2].all() and not planes[2, :, 2:].any() and planes[3].all()  # given: liver, tumour
