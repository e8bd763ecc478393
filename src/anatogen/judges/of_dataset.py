"""The judges of a prepared data set, trained on its held-out patients and kept in its folder."""

from __future__ import annotations

import torch

from anatogen.data.store import PreparedDataset
from anatogen.device import pick_device
from anatogen.judges.encoder import Encoder, EncoderSettings, train_encoder
from anatogen.judges.segmenter import Segmenter, SegmenterSettings, train_segmenter
from anatogen.progress import stage


def segmenter_for(
    dataset: PreparedDataset, settings: SegmenterSettings | None = None, *, device: str = "auto"
) -> Segmenter:
    """The judge of `dataset`, trained on its split "heldout", chosen on "val" and kept in its folder."""
    settings = settings or SegmenterSettings()

    def part(split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = dataset.load(dataset.split(split))
        return batch.images, batch.truth, batch.annotated

    with stage("training the segmenter", settings.steps, "steps") as bar:
        return train_segmenter(
            part("heldout"),
            part("val"),
            dataset.schema.count,
            settings,
            device=pick_device(device),
            cache=dataset.folder,
            progress=lambda done, total, text: bar.update(done, text),
        )


def encoder_for(
    dataset: PreparedDataset, settings: EncoderSettings = EncoderSettings(), *, device: str = "auto"
) -> Encoder:
    """The encoder of `dataset`'s images, trained on its split "heldout" and kept in its folder."""
    batch = dataset.load(dataset.split("heldout"))
    with stage("training the encoder", settings.steps, "steps") as bar:
        return train_encoder(
            (batch.images, batch.truth, batch.annotated),
            dataset.schema.count,
            settings,
            device=pick_device(device),
            cache=dataset.folder,
            progress=lambda done, total, text: bar.update(done, text),
        )
