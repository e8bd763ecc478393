"""Image features from an encoder trained on the data set itself, as for the FID of Konz et al. (2024, section 3.1).

The paper does not state the encoder's training task. Ours needs only the prepared data set and never learns patient
identity: a MONAI ResNet sees slices, some with a known amount of noise or blur, and predicts which classes are present,
their area in each cell of a 4 x 4 grid, and the amounts of noise and blur. So its features describe anatomy, position
and texture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anatogen.device import autocast
from anatogen.errors import DataError
from anatogen.judges.fitting import (
    Items,
    Part,
    alone,
    anneal,
    at_a_time,
    digest_of,
    draw_batch,
    first_network,
    is_writable,
    read_weights,
    write_weights,
)
from anatogen.seeds import derive_seed

WIDTHS = (16, 32, 64, 128)
FEATURES = WIDTHS[-1]
_GRID = 4
_MOST_NOISE = 0.2  # standard deviation, of images in [-1, 1]


@dataclass(frozen=True)
class EncoderSettings:
    """Training settings of the encoder: AdamW with cosine annealing.

    Attributes:
        steps: Batches, independent of the number of images.
        batch_size: Images in a batch.
        learning_rate: At the start.
        seed: Of weights and batches.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3
    seed: int = 0


class Encoder:
    """Features of images: (N, C, *spatial) float32 in [-1, 1] -> (N, F) float32, F = FEATURES.

    Each feature has mean 0 and standard deviation 1 over the training images. The features of an image do not depend on
    its batch. Distances by different encoders cannot be compared; `digest` identifies the encoder.
    """

    def __init__(self, network: nn.Module, device: torch.device, digest: str = "") -> None:
        self._network, self._device, self.digest = network.eval(), device, digest

    @torch.no_grad()
    def __call__(self, images: NDArray[np.float32] | Tensor, batch_size: int | None = None) -> NDArray[np.float32]:
        """The features (N, F) of `images` (N, C, *spatial).

        Raises:
            DataError: The images have other channels or dimensions than the training images.
        """
        images = torch.as_tensor(images)
        batch_size = batch_size or at_a_time(images.shape[2:])
        known = self._network.get_parameter("trunk.conv1.weight")
        if images.ndim != known.ndim or images.shape[1] != known.shape[1]:
            raise DataError(
                f"images have the shape {tuple(images.shape)}, the encoder was trained on {known.shape[1]} channels in "
                f"{known.ndim - 2} dimensions",
                hint="Use images of the data set that it was trained on",
            )
        parts = [self._network(part.to(self._device)).cpu() for part in torch.split(images, batch_size) if len(part)]
        return torch.cat([*parts, torch.zeros(0, FEATURES)]).numpy()


def train_encoder(
    train: Part,
    class_count: int,
    settings: EncoderSettings = EncoderSettings(),
    *,
    device: torch.device | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Encoder:
    """Train an encoder, in 2D or 3D; reproducible.

    Unannotated classes are excluded from the loss; without classes only noise and blur are learnt.

    Args:
        train: Images (N, C, *spatial) in [-1, 1], labels (N, *spatial) and annotated classes (N, class_count - 1). They
            need not be in memory (`Lazy`).
        class_count: C, the background included.
        settings: Length and optimisation.
        device: By default the CPU.
        cache: A folder where the result is stored under a digest of data and settings, and read from. If two processes
            train the same encoder, the second waits for the first and reads its result.
        progress: Called with (step, steps, text).

    Raises:
        OutputError: `cache` cannot be written.
    """
    device = device or torch.device("cpu")
    images = train[0]
    seed = derive_seed("encoder", settings.seed)
    network = first_network(lambda: _Network(images.shape, class_count), seed, len(images.shape) - 2, device)
    digest = _digest(train, class_count, settings)
    kept = cache / f"encoder-{digest}.safetensors" if cache is not None else None
    if kept is not None and read_weights(kept, network):
        return Encoder(network, device, digest)

    with alone(kept):
        if kept is None or not read_weights(kept, network):  # another process may have trained it meanwhile
            _fit(network, train, settings, device, progress)
            if kept is not None and is_writable(kept.parent):  # a read-only data set can still be evaluated
                write_weights(kept, network.state_dict())
    return Encoder(network, device, digest)


def _fit(
    network: _Network,
    train: Part,
    settings: EncoderSettings,
    device: torch.device,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Train `network`, then standardise its features."""
    generator = torch.Generator().manual_seed(derive_seed("encoder data", settings.seed))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    network.train()
    for step in range(settings.steps):
        anneal(optimizer, settings.learning_rate, step / settings.steps)
        shown, labels, annotated = draw_batch(train, settings.batch_size, generator, device)
        shown, amounts = _degrade(shown, generator)
        # 3D training in bfloat16 occasionally gave NaN (PyTorch 2.13, CPU), hence float32.
        with autocast(device, "auto" if shown.ndim == 4 else "float32"):
            answers = network.answer(shown)
        loss = _loss(answers.float(), labels, annotated, amounts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if progress is not None:
            progress(step + 1, settings.steps, f"loss {loss.item():.3f}")
    network.eval()
    _standardise(network, train[0], device)


class _Network(nn.Module):
    """A small ResNet; its pooled last level, standardised, gives the features, and a linear head the answers."""

    def __init__(self, shape: Sequence[int], class_count: int) -> None:
        from monai.networks.nets import ResNet

        super().__init__()
        # The first convolution covers every pixel; its stride limits the cost of large images.
        stride = 2 if max(shape[2:]) < 128 else 4
        self.trunk = ResNet(
            "basic",
            [1, 1, 1, 1],
            list(WIDTHS),
            spatial_dims=len(shape) - 2,
            n_input_channels=shape[1],
            conv1_t_size=7,
            conv1_t_stride=stride,
            no_max_pool=True,
            feed_forward=False,
        )
        cells = _GRID ** (len(shape) - 2)
        self.head = nn.Linear(FEATURES, 2 + (class_count - 1) * (1 + cells))
        self.register_buffer("shift", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, F), standardised."""
        return (self.trunk(images) - self.shift) / self.scale

    def answer(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, 2 + (class_count - 1) (1 + cells)): noise, blur, then a logit and areas per class."""
        return self.head(self.trunk(images))


def _degrade(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Add noise to some images and blur some; returns the images and the amounts of both, (B, 2) in [0, 1]."""
    shape = (len(images), *(1,) * (images.ndim - 1))
    amounts = torch.rand(len(images), 2, generator=generator)
    amounts = amounts * (torch.rand(len(images), 2, generator=generator) < 0.5)
    noise, blur = (amounts[:, i].to(images.device).reshape(shape) for i in (0, 1))
    pool = nn.functional.avg_pool2d if images.ndim == 4 else nn.functional.avg_pool3d
    smooth = pool(images, 3, stride=1, padding=1, count_include_pad=False)
    white = torch.randn(images.shape, generator=generator).to(images.device)
    return images + blur * (smooth - images) + _MOST_NOISE * noise * white, amounts.to(images.device)


def _loss(answers: Tensor, labels: Tensor, annotated: Tensor, amounts: Tensor) -> Tensor:
    """Squared errors of noise, blur and areas, and cross-entropy of presence, over the annotated classes.

    Areas are shares of the known part of a cell: voxels of -1 are excluded, and so are cells that are entirely unknown.
    A class that is not seen in an image may lie in its unknown part, so its absence does not count there.
    """
    loss = 4 * nn.functional.mse_loss(answers[:, :2], amounts)
    count, classes = annotated.shape
    if not classes or not annotated.any():
        return loss
    by_class = answers[:, 2:].reshape(count, classes, -1)
    known = labels >= 0
    onehot = nn.functional.one_hot(labels.clamp(min=0), classes + 1).movedim(-1, 1)[:, 1:].float()
    pool = nn.functional.adaptive_avg_pool2d if labels.ndim == 3 else nn.functional.adaptive_avg_pool3d
    areas = pool(onehot, _GRID).flatten(2)  # (B, C-1, cells), shares of a cell
    there = (areas.sum(dim=2) > 0).float()
    presence = nn.functional.binary_cross_entropy_with_logits(by_class[..., 0], there, reduction="none")
    # The square root gives small structures more weight.
    if known.all():
        wrong = (by_class[..., 1:] - areas.sqrt()).square().mean(dim=2)
        return loss + (presence + 4 * wrong)[annotated].mean()
    seen = pool(known[:, None].float(), _GRID).flatten(2)  # (B, 1, cells)
    onehot = onehot * known[:, None]
    areas = pool(onehot, _GRID).flatten(2) / seen.clamp(min=1e-6)
    there = (areas.sum(dim=2) > 0).float()
    presence = nn.functional.binary_cross_entropy_with_logits(by_class[..., 0], there, reduction="none")
    certain = there.bool() | known.flatten(1).all(dim=1, keepdim=True)
    cells = (seen > 0).float()
    wrong = ((by_class[..., 1:] - areas.sqrt()).square() * cells).sum(dim=2) / cells.sum(dim=2).clamp(min=1)
    return loss + (presence * certain + 4 * wrong)[annotated].mean()


@torch.no_grad()
def _standardise(network: _Network, images: Items, device: torch.device) -> None:
    """Standardise the features over the training images (at most 4096 of them, evenly spaced)."""
    chosen = torch.linspace(0, len(images) - 1, min(len(images), 4096)).long()
    features = torch.cat([network(images[part].to(device)).cpu().double() for part in torch.split(chosen, 64)])
    deviation = features.std(dim=0, correction=0)
    network.get_buffer("shift").copy_(features.mean(dim=0).float())
    # A feature that hardly varies in real images must not outweigh all the others.
    network.get_buffer("scale").copy_(deviation.clamp(min=max(0.1 * float(deviation.median()), 1e-6)).float())


def _digest(train: Part, class_count: int, settings: EncoderSettings) -> str:
    data: list[str | Items] = [part for items in train for part in (str(tuple(items.shape)), items)]
    return digest_of(json.dumps([class_count, WIDTHS, asdict(settings)]), *data)
