"""The auxiliary segmenter by which images are evaluated: a MONAI UNet (Konz et al. 2024, Appendix A.2)."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anatogen.device import autocast
from anatogen.errors import DataError
from anatogen.files import writing
from anatogen.judges.fitting import (
    Items,
    Part,
    alone,
    anneal,
    at_a_time,
    blocks_of,
    digest_of,
    draw_batch,
    first_network,
    is_writable,
    read_weights,
    write_weights,
)
from anatogen.judges.warping import FOR_EDITED_MAPS, warp_share
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.metrics.overlap import class_means
from anatogen.seeds import derive_seed

CHANNELS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class SegmenterSettings:
    """Training settings of the segmenter: AdamW with cosine annealing; the best weights on validation are kept.

    The paper trains for 100 epochs with batches of 8 at 1e-3. Here `steps` limits the length whatever the number of
    images, and the batch is larger, which suits CPUs.

    Attributes:
        steps: Batches.
        batch_size: Images in a batch.
        learning_rate: At the start.
        validations: Number of validations.
        seed: Of weights and batches.
        warped: The share of each batch, and of the validation images, in which a class is made larger or smaller,
            with its image (see `warping`): for label maps that were edited.
    """

    steps: int = 1200
    batch_size: int = 16
    learning_rate: float = 2e-3
    validations: int = 8
    seed: int = 0
    warped: float = 0.0

    def for_edited_maps(self) -> SegmenterSettings:
        """The same training on images of which most are warped."""
        return replace(self, warped=FOR_EDITED_MAPS)


def default_segmenter(size: Sequence[int], *, edited: bool = False) -> SegmenterSettings:
    """The usual training for images of `size`: of volumes fewer and smaller batches, since each holds many slices.

    edited: for label maps that were edited.
    """
    settings = SegmenterSettings() if len(size) == 2 else SegmenterSettings(steps=400, batch_size=2)
    return settings.for_edited_maps() if edited else settings


class Segmenter:
    """Label maps of images: (N, C, *spatial) float32 in [-1, 1] -> (N, *spatial) int64."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network.eval(), device

    @torch.no_grad()
    def __call__(self, images: NDArray[np.float32] | Tensor, batch_size: int | None = None) -> NDArray[np.int64]:
        """The most likely class of each pixel, (N, *spatial); by default as many at a time as memory is made for."""
        results = []
        batch_size = batch_size or at_a_time(images.shape[2:])
        for part in torch.split(torch.as_tensor(images), batch_size):
            results.append(_logits(self._network, part.to(self._device)).argmax(dim=1).cpu())
        return torch.cat(results).numpy()


def confusion_of(
    segment: Callable[[Tensor], NDArray[np.int64]], part: Part, class_count: int, *, share_warped: float = 0.0
) -> ConfusionCounts:
    """Confusion counts of `segment`'s label maps against those of `part`, read in blocks; no surface distances.

    share_warped: of the images, always in the same way.
    """
    images, labels, annotated = part
    draws = torch.Generator().manual_seed(derive_seed("reshaped validation"))
    counts, start = [], 0
    for real, map_of_real in zip(blocks_of(images), blocks_of(labels), strict=True):
        shown, truth = warp_share(real, map_of_real, share_warped, draws)
        counted = annotated[start : start + len(shown)].numpy()
        counts.append(confusion_counts(segment(shown), truth.numpy(), class_count, counted=counted, surfaces=False))
        start += len(shown)
    return ConfusionCounts.joined(counts)


def train_segmenter(
    train: Part,
    validation: Part,
    class_count: int,
    settings: SegmenterSettings = SegmenterSettings(),
    *,
    weights: Tensor | None = None,
    device: torch.device | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Segmenter:
    """Train a segmenter and keep the weights that are best on `validation`.

    Augmentation: small random affine maps, gains and offsets. Unannotated classes are excluded from the loss. The
    result depends on the arguments only; torch's global random state is left unchanged.

    Args:
        train: Images (N, C, *spatial) in [-1, 1], labels (N, *spatial), -1 where unknown, and annotated classes (N,
            C-1). They need not be in memory (`Lazy`), with the same result.
        validation: The same.
        class_count: C, the background included.
        settings: Length and optimisation.
        weights: (N,), relative probability of drawing each image; by default uniform.
        device: By default the CPU.
        cache: A folder where the result is stored under a digest of data and settings, and read from. A killed training
            resumes from its last validation and ends with the same weights (on the same machine). If two processes
            train the same segmenter, the second waits for the first and reads its result.
        progress: Called with (step, steps, text).

    Raises:
        DataError: There is nothing to train on.
        OutputError: `cache` cannot be written.
    """
    device = device or torch.device("cpu")
    _check(train, weights)
    kept = None
    if cache is not None:
        kept = cache / segmenter_file(train, validation, class_count, settings, weights)
    training = _Training.begin(train[0], class_count, settings, device)
    if kept is not None and read_weights(kept, training.network):
        return Segmenter(training.network, device)
    with alone(kept):
        if kept is None or not read_weights(kept, training.network):  # another process may have trained it meanwhile
            training = _trained(train, validation, class_count, settings, weights, kept, device, progress)
    return Segmenter(training.network, device)


def _trained(
    train: Part,
    validation: Part,
    class_count: int,
    settings: SegmenterSettings,
    weights: Tensor | None,
    kept: Path | None,
    device: torch.device,
    progress: Callable[[int, int, str], None] | None,
) -> _Training:
    """A complete training, resumed from the checkpoint beside `kept` if any; stores the best weights in `kept`."""
    training = _Training.begin(train[0], class_count, settings, device)
    checkpoint = kept.with_suffix(".checkpoint") if kept is not None and is_writable(kept.parent) else None
    if checkpoint is not None and checkpoint.is_file() and not training.resume(checkpoint):
        training = _Training.begin(train[0], class_count, settings, device)  # a damaged checkpoint may be half loaded

    training.drawn = _shows_a_class(validation)
    every = max(1, settings.steps // settings.validations)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):  # type: ignore[no-untyped-call]
        for step in range(training.step, settings.steps):
            training.learn(train, weights, settings)
            if training.step % every == 0 or training.step == settings.steps:
                training.validate(validation, class_count, share_warped=settings.warped)
                if checkpoint is not None and training.step < settings.steps:
                    training.save(checkpoint)
            if progress is not None:
                progress(step + 1, settings.steps, training.standing)
    training.network.load_state_dict(training.best_weights)
    if kept is not None and checkpoint is not None:  # a read-only data set can still be evaluated
        write_weights(kept, training.best_weights)
        checkpoint.unlink(missing_ok=True)
    return training


@dataclass
class _Training:
    """The state of a training; `save` lists what a checkpoint holds."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    device: torch.device
    best_weights: dict[str, Tensor]
    best: float = -1.0
    score: float = math.nan
    step: int = 0
    drawn: bool = True  # whether there is a class to validate

    @property
    def standing(self) -> str:
        """The validation score in words: "validation Dice 0.812", "not validated yet" or "no class to validate"."""
        if not self.drawn:
            return "no class to validate"
        return "not validated yet" if math.isnan(self.score) else f"validation Dice {self.score:.3f}"

    @classmethod
    def begin(cls, images: Items, class_count: int, settings: SegmenterSettings, device: torch.device) -> _Training:
        dim, seed = len(images.shape) - 2, derive_seed("segmenter", settings.seed)
        network = first_network(lambda: _unet(images.shape[1], class_count, dim), seed, dim, device)
        generator = torch.Generator().manual_seed(derive_seed("segmenter data", settings.seed))
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
        return cls(network, optimizer, generator, device, copy.deepcopy(network.state_dict()))

    def learn(self, train: Part, weights: Tensor | None, settings: SegmenterSettings) -> None:
        """One step of the optimizer."""
        anneal(self.optimizer, settings.learning_rate, self.step / settings.steps)
        images, labels, annotated = draw_batch(train, settings.batch_size, self.generator, self.device, weights)
        if settings.warped:
            images, labels = warp_share(images, labels, settings.warped, self.generator)
        images, labels = _vary(images, labels, self.generator)
        self.network.train()
        with autocast(self.device, "auto"):
            logits = _logits(self.network, images)
        loss = _loss(logits.float(), labels, annotated)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1

    def validate(self, validation: Part, class_count: int, *, share_warped: float = 0.0) -> None:
        """Score the network by `ConfusionCounts.obeyed_by` of all images together; keep the best weights so far."""
        segment = Segmenter(self.network, self.device)
        found = confusion_of(segment, validation, class_count, share_warped=share_warped)
        scores = found.obeyed_by(np.zeros(len(validation[0]), dtype=np.int64))
        self.score = float(class_means(class_means(scores, axis=1), axis=0))
        if self.score > self.best or math.isnan(self.score):  # without a class to validate, keep the latest
            self.best = max(self.best, self.score)
            self.best_weights = copy.deepcopy(self.network.state_dict())

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "best_weights": self.best_weights,
            "best": self.best,
            "score": self.score,
            "step": self.step,
        }
        buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError
        torch.save(state, buffer)
        with writing(path) as partial:
            partial.write_bytes(buffer.getbuffer())

    def resume(self, path: Path) -> bool:
        """Restore a checkpoint; False if it is damaged."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.best_weights = state["best_weights"]
            self.best, self.score, self.step = float(state["best"]), float(state["score"]), int(state["step"])
        except (
            OSError,
            EOFError,
            RuntimeError,
            pickle.UnpicklingError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
        ):
            return False
        return True


def _check(train: Part, weights: Tensor | None) -> None:
    """Raise DataError where no image can be drawn."""
    if not len(train[0]):
        raise DataError("there are no images to train the segmenter on", hint="Pass at least one labelled image")
    if weights is not None:
        fits = weights.shape == (len(train[0]),) and bool(torch.isfinite(weights).all())
        if not fits or bool((weights < 0).any()) or not bool(weights.sum() > 0):
            raise DataError(
                f"the segmenter's {len(train[0])} training images need as many weights, non-negative and not all 0"
            )


def _shows_a_class(part: Part) -> bool:
    """Whether any label map contains an annotated class."""
    _, labels, annotated = part
    known = torch.cat([torch.zeros_like(annotated[:, :1]), annotated], dim=1)
    start = 0
    for block in blocks_of(labels):
        if bool(known[start : start + len(block)].gather(1, block.flatten(1).clamp(min=0)).any()):
            return True
        start += len(block)
    return False


def _unet(channels: int, class_count: int, dim: int) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(dim, channels, class_count, CHANNELS, strides=(2, 2, 2, 2), num_res_units=2)


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, C, *spatial) for images of any size.

    The network itself needs sides that are multiples of 16, and more than 16 along at least one axis.
    """
    sides = images.shape[2:]
    whole = [-(-side // 16) * 16 for side in sides]
    if all(side == 16 for side in whole):
        whole[-1] = 32
    if list(sides) == whole:
        return network(images)
    margins = [(0, w - side) for side, w in zip(sides, whole, strict=True)]
    padding = [margin for pair in reversed(margins) for margin in pair]
    logits = network(nn.functional.pad(images, padding, value=-1.0))
    return logits[(..., *(slice(side) for side in sides))]


def _vary(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random affine map (5 % per matrix entry and shift) of each image and its label map; random gain and offset."""
    count, dim = len(images), images.ndim - 2
    theta = torch.eye(dim, dim + 1) + 0.05 * torch.randn(count, dim, dim + 1, generator=generator)
    grid = nn.functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    classes = nn.functional.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    gain, offset = 0.1 * torch.randn(2, *images.shape[:2], *(1,) * dim, generator=generator).to(images.device)
    return moved * (1 + gain) + offset, classes[:, 0].long()


def _loss(logits: Tensor, labels: Tensor, annotated: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the batch, for annotated classes and the background.

    Pixels of an unannotated class (left free, in a synthetic image) count as background, as in partly annotated data.
    Voxels of unknown class (-1) are excluded.
    """
    unknown = labels < 0
    labels = labels.clamp(min=0)
    class_count = logits.shape[1]
    known = torch.cat([torch.ones_like(annotated[:, :1]), annotated], dim=1)  # (B, C)
    shape = (*known.shape, *(1,) * (logits.ndim - 2))
    logits = logits.masked_fill(~known.reshape(shape), -1e4)
    labels = labels.where(known.gather(1, labels.flatten(1)).reshape(labels.shape), 0)
    truth = nn.functional.one_hot(labels, class_count).movedim(-1, 1).float()
    probability = logits.softmax(dim=1)
    if unknown.all():
        return 0 * logits.sum()
    if unknown.any():
        known_voxels = ~unknown[:, None]
        truth, probability = truth * known_voxels, probability * known_voxels
        labels = labels.masked_fill(unknown, -100)
    entropy = nn.functional.cross_entropy(logits, labels, ignore_index=-100)
    axes = (0, *range(2, logits.ndim))
    overlap = (probability * truth).sum(axes)
    total = (probability + truth).sum(axes)
    return entropy + (1 - (2 * overlap + 1e-5) / (total + 1e-5))[1:].mean()


def segmenter_file(
    train: Part, validation: Part, class_count: int, settings: SegmenterSettings, weights: Tensor | None = None
) -> str:
    """The name of the file in which `train_segmenter` keeps the result of these arguments."""
    drawn = () if weights is None else (weights.double(),)
    of_settings = asdict(settings)
    if not settings.warped:
        del of_settings["warped"]  # so that what was cached before there was such a setting is found
    digest = digest_of(*train, *validation, str(class_count), json.dumps(of_settings), *drawn)
    return f"segmenter-{digest}.safetensors"
