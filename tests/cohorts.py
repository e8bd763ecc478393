"""Enough patients to tell copies from chance, and sample sets of given images."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet
from anatogen.model import AboutModel, ModelSpec
from anatogen.sampling import SamplingSettings
from conftest import write_nnunet


def many_patients(folder: Path) -> PreparedDataset:
    """30 patients with balls, ten to train on, ten whom no model saw, ten to test on; about eleven slices each."""
    shares = {"train": 10.0, "heldout": 5.0, "val": 5.0, "test": 10.0}
    source = open_source(str(write_nnunet(folder / "raw", cases=30)))
    return prepare(source, folder / "data", PrepareSettings(size=(32, 32), axis="axial", shares=shares, workers=1))


def copies(dataset: PreparedDataset) -> np.ndarray:
    """The test rows' count of training images, slightly noisy (N, C, H, W)."""
    rows = dataset.split("train")
    index = np.arange(len(dataset.split("test"))) % len(rows)
    images = dataset.load([rows[i] for i in index]).images.numpy()
    noise = np.random.default_rng(0).normal(0, 0.02, images.shape)
    return (images + noise).clip(-1, 1).astype(np.float32)


def sample_set(folder: Path, dataset: PreparedDataset, images: np.ndarray, **header: Any) -> SampleSet:
    """A sample set whose `images` stand for what a model made of the test label maps."""
    rows: Sequence[Row] = dataset.split("test")[: len(images)]
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    lines = []
    for row, image, labels in zip(rows, images, dataset.load(rows).labels.numpy(), strict=True):
        entry = {"id": row.id, "file": f"images/{row.id}.npy", "labels": f"labels/{row.id}.npy", "seed": 0}
        entry |= {"given": list(dataset.schema.names), "free": [], "case": row.case, "patient": row.patient}
        np.save(folder / str(entry["file"]), image)
        np.save(folder / str(entry["labels"]), labels)
        lines.append(json.dumps({**entry, "slice": row.slice}) + "\n")
    about = {"classes": [(c.name, c.colour) for c in dataset.schema.classes], "format": "npy", "model": "a model"}
    about |= {"about_model": {"dataset": dataset.info.source}, "sampling": {"solver": "heun", "steps": 2}, **header}
    (folder / "samples.json").write_text(json.dumps(about))
    (folder / "manifest.jsonl").write_text("".join(lines))
    return SampleSet.open(folder)


class RealImages:
    """Stands for a generator of `dataset`'s kind: it makes the real image of a label map, and of others noise from
    their seed.
    """

    def __init__(self, dataset: PreparedDataset, *, encoding: str = "onehot") -> None:
        self.dataset, self.schema, self.size, self.settings = dataset, dataset.schema, dataset.size, SamplingSettings()
        self.digest, self.run = "0123456789abcdef", "real"
        source = {key: value for key, value in dataset.info.source.items() if value is not None}
        self.about = AboutModel.model_validate({"channels": dataset.info.channels, "dataset": source})
        self.spec = ModelSpec(
            dataset.schema, dataset.size, channels=dataset.channels, sees_labels=encoding != "none", takes_free=False
        )
        self.made: list[str] = []
        self._rows = {(row.case, row.slice): row for row in dataset.rows}

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """Its settings with `changes`."""
        return self.settings.changed(**changes)

    def sampling_with(self, settings: SamplingSettings) -> RealImages:
        """Itself, with other settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def generate(
        self, requests: Sequence[Request], settings: object = None, *, batch_size: int = 16
    ) -> Iterator[tuple[Request, np.ndarray]]:
        """The images of `requests`."""
        for request in requests:
            self.made.append(request.id)
            row = self._rows.get(
                (str(request.origin.case), -1 if request.origin.slice is None else request.origin.slice)
            )
            shape = (self.dataset.channels, *self.dataset.size)
            noise = np.random.default_rng(request.seed).uniform(-1, 1, shape).astype(np.float32)
            yield request, noise if row is None else self.dataset.load([row]).images[0].numpy()
