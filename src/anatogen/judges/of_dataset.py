"""The judges of a prepared data set, trained on its held-out patients and cached in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.device import pick_device
from anatogen.judges.encoder import Encoder, EncoderSettings, train_encoder
from anatogen.judges.fitting import Lazy, Part, at_a_time
from anatogen.judges.segmenter import Segmenter, SegmenterSettings, default_segmenter, segmenter_file, train_segmenter
from anatogen.judges.slices import MOST, axes_of, choose_slices, cut_slices
from anatogen.progress import stage

HELD_BYTES = 256 << 20
"""Images and label maps up to this size are kept in memory; larger ones are read in batches."""


def part_of(dataset: PreparedDataset, rows: Sequence[Row], *, held_bytes: int = HELD_BYTES) -> Part:
    """The images of `rows` in order, as judges are trained on them; read on demand if they exceed `held_bytes`."""
    pixels = math.prod(dataset.size)
    if len(rows) * pixels * (4 * dataset.channels + 8) <= held_bytes:
        batch = dataset.load(rows)
        return batch.images, batch.truth, batch.annotated
    reader = _Rows(dataset, rows)
    annotated = torch.tensor([dataset.states(row).given for row in rows], dtype=torch.bool)
    images = Lazy((len(rows), dataset.channels, *dataset.size), lambda places: reader(places).images)
    return images, Lazy((len(rows), *dataset.size), lambda places: reader(places).truth), annotated


class _Rows:
    """Reads rows and caches the last batch, since its label maps are requested after its images."""

    def __init__(self, dataset: PreparedDataset, rows: Sequence[Row]) -> None:
        self._dataset, self._rows = dataset, rows
        self._last: tuple[list[int], Batch] | None = None

    def __call__(self, places: list[int]) -> Batch:
        if self._last is None or self._last[0] != places:
            self._last = places, self._dataset.load([self._rows[place] for place in places])
        return self._last[1]


def segmenter_for(
    dataset: PreparedDataset, settings: SegmenterSettings | None = None, *, device: str = "auto"
) -> Segmenter:
    """The auxiliary segmenter of `dataset`: trained on "heldout", selected on "val", cached in its folder."""
    settings = settings or default_segmenter(dataset.size)

    title = "training the segmenter" + (" of edited label maps" if settings.warped else "")
    with stage(title, settings.steps, "steps") as bar:
        return train_segmenter(
            part_of(dataset, dataset.split("heldout")),
            part_of(dataset, dataset.split("val")),
            dataset.schema.count,
            settings,
            device=pick_device(device),
            cache=dataset.folder,
            progress=lambda done, total, text: bar.update(done, text),
        )


def has_segmenter(dataset: PreparedDataset, settings: SegmenterSettings | None = None) -> bool:
    """Whether `segmenter_for` with these settings reads a segmenter, and trains none."""
    kept = {file.name for file in dataset.folder.glob("segmenter-*.safetensors")}
    return bool(kept) and name_of_segmenter(dataset, settings) in kept


def name_of_segmenter(dataset: PreparedDataset, settings: SegmenterSettings | None = None) -> str:
    """The name of the file in which `segmenter_for` keeps it: another one for other data or settings."""
    parts = (part_of(dataset, dataset.split("heldout")), part_of(dataset, dataset.split("val")))
    return segmenter_file(*parts, dataset.schema.count, settings or default_segmenter(dataset.size))


def encoder_for(
    dataset: PreparedDataset, settings: EncoderSettings = EncoderSettings(), *, device: str = "auto"
) -> Encoder:
    """The encoder of `dataset`: trained on "heldout", cached in its folder."""
    with stage("training the encoder", settings.steps, "steps") as bar:
        return train_encoder(
            part_of(dataset, dataset.split("heldout")),
            dataset.schema.count,
            settings,
            device=pick_device(device),
            cache=dataset.folder,
            progress=lambda done, total, text: bar.update(done, text),
        )


def slice_encoders_for(
    dataset: PreparedDataset, settings: EncoderSettings = EncoderSettings(), *, device: str = "auto"
) -> tuple[Encoder, ...]:
    """Encoders of the slices of volumes along D, H and W: trained on "heldout", cached in its folder; () for slices."""
    axes = axes_of(dataset.size)
    if not axes:
        return ()
    parts = slice_parts(dataset, dataset.split("heldout"))
    with stage("training the encoders of slices", len(axes) * settings.steps, "steps") as bar:

        def advance(before: int, done: int, _: int, text: str) -> None:
            bar.update(before + done, text)

        return tuple(
            train_encoder(
                parts[axis],
                dataset.schema.count,
                settings,
                device=pick_device(device),
                cache=dataset.folder,
                progress=partial(advance, axis * settings.steps),
            )
            for axis in axes
        )


def slice_parts(dataset: PreparedDataset, rows: Sequence[Row], *, held_bytes: int = HELD_BYTES) -> list[Part]:
    """The slices of the volumes of `rows` along each axis, as encoders are trained on them and volumes are compared.

    held_bytes: along each axis; where 16 slices of each volume would take more, fewer are cut.
    """
    parts: list[Part] = []
    for axis in axes_of(dataset.size):
        pixels = math.prod(dataset.size) // dataset.size[axis]
        most = max(1, min(MOST, held_bytes // (len(rows) * pixels * (4 * dataset.channels + 8))))
        images, labels, annotated = [], [], []
        for batch in dataset.batches(rows, at_a_time(dataset.size)):
            whose, which = choose_slices(batch.labels.numpy(), axis, most)
            images.append(cut_slices(batch.images.numpy(), axis, whose, which))
            labels.append(cut_slices(batch.truth.numpy(), axis, whose, which))
            annotated.append(batch.annotated[torch.from_numpy(whose)])
        pixels_of, labels_of = (torch.from_numpy(np.concatenate(each)) for each in (images, labels))
        parts.append((pixels_of, labels_of, torch.cat(annotated)))
    return parts
