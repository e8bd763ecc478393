"""Random augmentation of training batches, image and label map together.

All off by default; the paper uses no flips either.

MONAI's dictionary transforms apply the same random parameters to the image (linear) and its label map (nearest
neighbour).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from anatogen.data.store import Batch
from anatogen.seeds import derive_seed

_IGNORED = -1  # value of unknown voxels during the transform


class AugmentSettings(BaseModel):
    """The range of each augmentation; 0 and False turn it off. Values are drawn uniformly between -value and value.

    Attributes:
        flip_left_right, flip_up_down: Mirror the columns or rows of every second item. Only if mirrored anatomy is
            valid: a left-right flip puts the liver on the wrong side.
        rotation_degrees: In the plane, in 3D about each axis.
        scale: Of each axis; 0.1 is about 90 % to 110 %.
        shift: Share of the size.
        gain, offset: Factor 1 + gain and summand, on images in [-1, 1].
        noise: Gaussian, with a standard deviation uniform between 0 and this.
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
    """Augment a batch by a seed: item i depends only on (settings, seed, i), in a part of a batch too."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    def __call__(self, batch: Batch, seed: int, first: int = 0) -> Batch:
        """`batch`, items `first`, `first` + 1, ... of the whole one, with images (B, C, *spatial), clipped to [-1, 1],
        and label maps (B, *spatial) augmented.
        """
        if self.settings == AugmentSettings():
            return batch
        transform = _transform(self.settings, tuple(batch.labels.shape[1:]))  # stateful, so one per call
        images, labels = torch.empty_like(batch.images), torch.empty_like(batch.labels)
        given = batch.labels if batch.ignored is None else batch.labels.masked_fill(batch.ignored, _IGNORED)
        for i, (image, label) in enumerate(zip(batch.images, given, strict=True)):
            transform.set_random_state(derive_seed("augment", seed, first + i) % 2**32)
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
