"""Denoising losses of images: of a model, for membership inference, and of untrained filters, as image difficulty."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anatogen.diffusion.loss import mean_over_known
from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import loss_weight
from anatogen.seeds import derive_seed

RATIOS = (0.25, 0.5, 1.0, 2.0)
_WIDTHS = (0.6, 1.2, 2.4)  # pixels


@torch.inference_mode()
def denoising_losses(
    denoise: Callable[[Tensor, Tensor], Tensor],
    path: Path,
    images: Tensor,
    *,
    ratios: Sequence[float] = RATIOS,
    draws: int = 2,
    seed: int = 0,
    ignored: Tensor | None = None,
) -> NDArray[np.float64]:
    """The denoiser's loss on each image, for membership inference.

    The squared error of x0 is averaged over `draws` noises at each noise-to-image ratio sigma / alpha, with the weight
    of a v-prediction, so that the levels have similar influence. The noise depends on `seed` only: it is the same for
    every image, whatever its batch.

    Args:
        denoise: (x_t (B, C, *spatial), t (B,)) -> x0, under the images' own condition (`Denoiser.under`).
        path: The path of x_t.
        images: (B, C, *spatial) in [-1, 1].
        ratios: Noise-to-image ratios. With much less noise any model sees the image, with much more none does (on the
            flow path t = 0.2 to 0.67).
        draws: Noises at each ratio.
        seed: Of the noises.
        ignored: Bool (B, *spatial), pixels to leave out, as in training.

    Returns:
        float64 (B,).
    """
    total = torch.zeros(len(images), dtype=torch.float64)
    for level, ratio in enumerate(ratios):
        t = path.time_of(torch.full((len(images),), ratio, device=images.device))
        weight = loss_weight("v", path, t, 0.0)
        for draw in range(draws):
            generator = torch.Generator().manual_seed(derive_seed("membership", seed, level, draw))
            eps = torch.randn(images.shape[1:], generator=generator).to(images.device).expand_as(images)
            error = (denoise(add_noise(path, images, eps, t), t).float() - images).square()
            total += (weight * mean_over_known(error, ignored)).cpu().double()
    return (total / (len(ratios) * draws)).numpy()


@torch.inference_mode()
def difficulties(path: Path, images: Tensor, labels: Tensor, *, draws: int = 2, seed: int = 0) -> NDArray[np.float64]:
    """Model-free difficulty of images: logarithms of the losses of fixed denoisers that were never trained.

    They are Gaussian filters of three widths, the mean of the image and the means of its classes. The noises are those
    of `denoising_losses` with the same seed, so that their effect on an image's loss is in both.

    Args:
        path: The path of x_t.
        images: (B, C, *spatial) in [-1, 1].
        labels: Label maps (B, *spatial).
        draws: Noises at each ratio.
        seed: Of the noises.

    Returns:
        (B, K).
    """
    filters: list[Callable[[Tensor], Tensor]] = [lambda x, width=width: _blurred(x, width) for width in _WIDTHS]  # type: ignore[misc]
    spatial = tuple(range(2, images.ndim))
    filters += [lambda x: x.mean(dim=spatial, keepdim=True).expand_as(x), lambda x: _class_means(x, labels)]
    found = []
    for each in filters:

        def denoise(x_t: Tensor, t: Tensor, each: Callable[[Tensor], Tensor] = each) -> Tensor:
            return each(x_t / path.alpha(t[0]))

        found.append(denoising_losses(denoise, path, images, draws=draws, seed=seed))
    return np.log(np.maximum(np.stack(found, axis=1), 1e-12))


def _blurred(images: Tensor, width: float) -> Tensor:
    """A Gaussian filter of `width` pixels along every axis of images (B, C, *spatial), with replicated borders."""
    reach = max(1, round(3 * width))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / width) ** 2)
    kernel = (kernel / kernel.sum()).to(images)
    for axis in range(2, images.ndim):
        lines = images.movedim(axis, -1)
        padded = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        images = functional.conv1d(padded, kernel[None, None]).reshape(lines.shape).movedim(-1, axis)
    return images


def _class_means(images: Tensor, labels: Tensor) -> Tensor:
    """Each pixel replaced by the mean of its class, for each image (B, C, *spatial) separately."""
    flat, classes = images.flatten(2), labels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    sums = torch.zeros(*flat.shape[:2], int(labels.max()) + 1, device=images.device)
    counts = torch.zeros_like(sums).scatter_add_(2, classes, torch.ones_like(flat))
    means = sums.scatter_add(2, classes, flat) / counts.clamp(min=1)
    return means.gather(2, classes).reshape(images.shape)
