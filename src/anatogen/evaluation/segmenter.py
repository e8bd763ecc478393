"""The auxiliary segmenter that judges images: a MONAI UNet (Konz et al. 2024, Appendix A.2)."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anatogen.evaluation.faithfulness import class_means, dice_by_group
from anatogen.runtime import autocast, derive_seed, writing

CHANNELS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class SegmenterSettings:
    """The paper trains 100 epochs of batches of 8 at 1e-3 with cosine annealing, and keeps the best on validation.

    steps bounds the length whatever the number of images; the batch is larger, for the CPU's sake.
    """

    steps: int = 1200
    batch_size: int = 16
    learning_rate: float = 2e-3
    validations: int = 8
    seed: int = 0


class Segmenter:
    """Label maps from images: (N, C, H, W) float32 in [-1, 1] -> (N, H, W) int64."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network.eval(), device

    @torch.no_grad()
    def __call__(self, images: NDArray[np.float32] | Tensor, batch_size: int = 64) -> NDArray[np.int64]:
        """The most likely class of every pixel."""
        results = []
        for part in torch.split(torch.as_tensor(images), batch_size):
            results.append(self._network(part.to(self._device)).argmax(dim=1).cpu())
        return torch.cat(results).numpy()


def train_segmenter(
    train: tuple[Tensor, Tensor, Tensor],
    validation: tuple[Tensor, Tensor, Tensor],
    class_count: int,
    settings: SegmenterSettings = SegmenterSettings(),
    *,
    device: torch.device | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Segmenter:
    """Train on (images (N, C, H, W) in [-1, 1], labels (N, H, W), annotated (N, C-1)) and keep the best on `validation`.

    Images are varied by small random affine maps, gains and offsets; a class that was not annotated has no say in its image's loss.
    cache: a folder where the result is kept under a digest of data and settings, and found again.
    """
    device = device or torch.device("cpu")
    channels = train[0].shape[1]
    torch.manual_seed(derive_seed("segmenter", settings.seed))
    network = _unet(channels, class_count, train[0].ndim - 2).to(device)
    digest = _digest(train, validation, class_count, settings)
    kept = cache / f"segmenter-{digest}.safetensors" if cache else None
    if kept is not None and kept.is_file():
        try:
            network.load_state_dict(load_file(kept))
            return Segmenter(network, device)
        except (SafetensorError, RuntimeError):
            kept.unlink()

    memory_format = torch.channels_last if train[0].ndim == 4 else torch.channels_last_3d
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(derive_seed("segmenter data", settings.seed))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    every = max(1, settings.steps // settings.validations)
    best, best_weights, score = -1.0, copy.deepcopy(network.state_dict()), math.nan
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        index = torch.randint(len(train[0]), (settings.batch_size,), generator=generator)
        images, labels, annotated = (part[index].to(device) for part in train)
        images, labels = _vary(images, labels, generator)
        network.train()
        with autocast(device, "auto"):
            logits = network(images)
        loss = _loss(logits.float(), labels, annotated)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            predicted = Segmenter(network, device)(validation[0])
            group_ids = np.zeros(len(predicted), dtype=np.int64)
            scores = dice_by_group(predicted, validation[1].numpy(), group_ids, class_count, validation[2].numpy())
            score = float(class_means(scores[0], axis=0))
            if score > best:
                best, best_weights = score, copy.deepcopy(network.state_dict())
        if progress is not None:
            progress(step + 1, settings.steps, f"validation Dice {score:.3f}")
    network.load_state_dict(best_weights)
    if kept is not None and os.access(kept.parent, os.W_OK):  # a read-only data set can be judged all the same
        with writing(kept) as path:
            save_file({k: v.contiguous().cpu() for k, v in best_weights.items()}, path)
    return Segmenter(network, device)


def _unet(channels: int, class_count: int, dim: int) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(dim, channels, class_count, CHANNELS, strides=(2, 2, 2, 2), num_res_units=2)


def _vary(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random affine map for each image and its label map together (5 % a matrix entry and shift), gain and offset."""
    count, dim = len(images), images.ndim - 2
    theta = torch.eye(dim, dim + 1) + 0.05 * torch.randn(count, dim, dim + 1, generator=generator)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    classes = nn.functional.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    gain, offset = 0.1 * torch.randn(2, *images.shape[:2], *(1,) * dim, generator=generator).to(images.device)
    return moved * (1 + gain) + offset, classes[:, 0].long()


def _loss(logits: Tensor, labels: Tensor, annotated: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the batch, each class where it was annotated; the background always."""
    class_count = logits.shape[1]
    known = torch.cat([torch.ones_like(annotated[:, :1]), annotated], dim=1)  # (B, C)
    shape = (*known.shape, *(1,) * (logits.ndim - 2))
    logits = logits.masked_fill(~known.reshape(shape), -1e4)
    entropy = nn.functional.cross_entropy(logits, labels)
    truth = nn.functional.one_hot(labels, class_count).movedim(-1, 1).float()
    probability = logits.softmax(dim=1)
    axes = (0, *range(2, logits.ndim))
    overlap = (probability * truth).sum(axes)
    total = (probability + truth).sum(axes)
    return entropy + (1 - (2 * overlap + 1e-5) / (total + 1e-5))[1:].mean()


def _digest(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, tuple):
            for tensor in part:
                digest.update(tensor.contiguous().numpy().tobytes())
        elif isinstance(part, SegmenterSettings):
            digest.update(json.dumps(asdict(part)).encode())
        else:
            digest.update(str(part).encode())
    return digest.hexdigest()[:16]
