"""Random changes of training batches, image and label map together. All off by default; flips stay off in the paper too.

MONAI's dictionary transforms do the work: what is drawn for an item is drawn once, and moves its image (linear) and its
label map (nearest neighbour) alike.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from anatogen.data.store import Batch
from anatogen.seeds import derive_seed

_IGNORED = -1  # what stands for unknown voxels while they are moved


class AugmentSettings(BaseModel):
    """How far each item may be changed; 0 and False are off. Every draw is uniform between -value and value.

    flip_left_right, flip_up_down: mirror the columns or rows of every second item; only where both ways round are
    anatomy, for the first puts the liver on the wrong side. rotation_degrees: in the plane, in 3D about each axis.
    scale: of each axis, 0.1 is about 90 % to 110 %. shift: share of the size. gain, offset: factor 1 + gain and summand,
    on images in [-1, 1]. noise: Gaussian, with a standard deviation uniform between 0 and this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip_left_right: bool = False
    flip_up_down: bool = False
    rotation_degrees: float = Field(0.0, ge=0, le=180)
    scale: float = Field(0.0, ge=0, le=0.5)
    shift: float = Field(0.0, ge=0, le=0.5)
    gain: float = Field(0.0, ge=0, le=0.5)
    offset: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, le=1)


class Augment:
    """A function of a batch and a seed: item i changes as (settings, seed, i) say, whatever ran before."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """`batch` with images (B, C, *spatial), clipped to [-1, 1], and label maps (B, *spatial) changed; itself where all is off."""
        if self.settings == AugmentSettings():
            return batch
        transform = _transform(self.settings, tuple(batch.labels.shape[1:]))  # it holds state, so one for each call
        images, labels = torch.empty_like(batch.images), torch.empty_like(batch.labels)
        given = batch.labels if batch.ignored is None else batch.labels.masked_fill(batch.ignored, _IGNORED)
        for i, (image, label) in enumerate(zip(batch.images, given, strict=True)):
            transform.set_random_state(derive_seed("augment", seed, i) % 2**32)
            changed = transform({"image": image, "label": label[None].float()})
            images[i] = changed["image"].as_tensor().clamp(-1, 1)
            labels[i] = changed["label"].as_tensor()[0].round().long()
        if batch.ignored is None:
            return replace(batch, images=images, labels=labels)
        ignored = labels == _IGNORED
        return replace(batch, images=images, labels=labels.masked_fill(ignored, 0), ignored=ignored)


def _transform(how: AugmentSettings, size: tuple[int, ...]) -> Any:
    """The MONAI transform of items {"image": (C, *spatial), "label": (1, *spatial)}."""
    from monai.transforms import (
        Compose,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandScaleIntensityd,
        RandShiftIntensityd,
        ToTensord,
    )

    both, rank = ["image", "label"], len(size)
    steps: list[Any] = [ToTensord(both, track_meta=True)]
    if how.flip_left_right:
        steps.append(RandFlipd(both, prob=0.5, spatial_axis=rank - 1))
    if how.flip_up_down:
        steps.append(RandFlipd(both, prob=0.5, spatial_axis=rank - 2))
    if how.rotation_degrees or how.scale or how.shift:
        steps.append(
            RandAffined(
                both,
                prob=1.0,
                rotate_range=[math.radians(how.rotation_degrees)] * (1 if rank == 2 else 3),
                scale_range=[how.scale] * rank,
                translate_range=[how.shift * n for n in size],
                mode=["bilinear", "nearest"],
                padding_mode="border",
            )
        )
    if how.gain:
        steps.append(RandScaleIntensityd("image", factors=how.gain, prob=1.0))
    if how.offset:
        steps.append(RandShiftIntensityd("image", offsets=how.offset, prob=1.0))
    if how.noise:
        steps.append(RandGaussianNoised("image", prob=1.0, std=how.noise, sample_std=True))
    return Compose(steps)
