"""What is evaluated: sample sets beside the data set that their label maps are from, read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.device import give_back_memory
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.encoder import Encoder, EncoderSettings
from anatogen.judges.fitting import at_a_time
from anatogen.judges.of_dataset import encoder_for, slice_encoders_for
from anatogen.judges.segmenter import Segmenter, SegmenterSettings, default_segmenter
from anatogen.model import ImageModel
from anatogen.progress import stage

BLOCK = 256


@dataclass(frozen=True)
class EvaluationSettings:
    """The auxiliary models and how long they are trained.

    Attributes:
        segmenter: Of faithfulness.
        encoder: Of realism and privacy.
        utility: Each training of utility; see `judges.utility`.
        utility_seeds: How many trainings of each mixture.
        real_shares: The mixtures, by the share of real images.
        nnunet_epochs: For how long nnU-Net is trained on real, synthetic and both; None: not at all.
        slice_encoders: Of realism: each of the three, of the slices of volumes along one axis.
    """

    segmenter: SegmenterSettings = SegmenterSettings()
    encoder: EncoderSettings = EncoderSettings()
    utility: SegmenterSettings = field(default_factory=lambda: SegmenterSettings(steps=600))
    utility_seeds: int = 1
    real_shares: tuple[float, ...] = (1.0, 0.0, 1 / 2)
    nnunet_epochs: int | None = None
    slice_encoders: EncoderSettings = EncoderSettings(steps=200)

    def suiting(self, size: Sequence[int]) -> EvaluationSettings:
        """These settings for images of `size`: of volumes, the usual trainings have fewer and smaller batches."""
        if len(size) == 2:
            return self
        usual = EvaluationSettings()
        changes: dict[str, Any] = {}
        if self.segmenter == usual.segmenter:
            changes["segmenter"] = default_segmenter(size)
        if self.utility == usual.utility:
            changes["utility"] = replace(default_segmenter(size), steps=300)
        if self.encoder == usual.encoder:
            changes["encoder"] = EncoderSettings(steps=200, batch_size=4)
        elif self.slice_encoders == usual.slice_encoders:
            changes["slice_encoders"] = self.encoder
        return replace(self, **changes)


@dataclass(frozen=True)
class SampleSets:
    """main: the images to evaluate. heldout: those of held-out patients' label maps, for utility. generator: that made
    them.
    """

    main: SampleSet
    heldout: SampleSet | None = None
    generator: ImageModel | None = None


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and with what.

    Attributes:
        dataset: Whose label maps and real images stand beside the samples.
        sets: The sample sets and their generator.
        entries: The lines of the main set's manifest that are evaluated.
        rows: Their rows in `dataset`; None where the label maps are from elsewhere.
        segmenter: The auxiliary segmenter.
        settings: Of all auxiliary models.
        work: Folder for what takes too long to be done twice.
        power_curves: Power of generated over real images in rings of spatial frequency, which the section of solver
            steps leaves here for realism's figure.
    """

    dataset: PreparedDataset
    sets: SampleSets
    entries: list[Line]
    rows: list[Row] | None
    segmenter: Segmenter
    settings: EvaluationSettings = EvaluationSettings()
    device: str = "auto"
    work: Path | None = None
    power_curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def samples(self) -> SampleSet:
        """The images to evaluate."""
        return self.sets.main

    @property
    def generator(self) -> ImageModel | None:
        """The generator that made them, where its run is at hand."""
        return self.sets.generator

    @property
    def required_generator(self) -> ImageModel:
        """The generator, for sections that need one."""
        if self.sets.generator is None:
            raise ValueError("this section needs a generator")
        return self.sets.generator

    @cached_property
    def encoder(self) -> Encoder:
        """Of the data set's images; trained, or read, when it is first asked for."""
        return encoder_for(self.dataset, self.settings.encoder, device=self.device)

    @cached_property
    def slice_encoders(self) -> tuple[Encoder, ...]:
        """Of the slices of the data set's volumes along each axis, likewise; () of a data set of slices."""
        return slice_encoders_for(self.dataset, self.settings.slice_encoders, device=self.device)

    @cached_property
    def heldout_entries(self) -> list[Line]:
        """The lines of images made from held-out patients' label maps, for utility."""
        if self.sets.heldout is None:
            return []
        return [entry for entry in self.sets.heldout.entries if entry.split == "heldout"]

    @property
    def test_rows(self) -> list[Row]:
        """The rows of the label maps, and the data set's own test rows where the maps are from elsewhere."""
        return self.rows if self.rows is not None else self.dataset.split("test")

    def patients(self) -> NDArray[np.str_]:
        """Whose label map each image follows, (N,)."""
        return np.array([patient_of(entry) for entry in self.entries])


@dataclass(frozen=True)
class Block:
    """Some of the images: generated (B, C, H, W) in [-1, 1], the label maps asked for and what the segmenter found (B,
    H, W).

    given, absent: (B, C-1), which classes were given, and which of them were removed from the map. real, found_in_real:
    the real images of the same maps, where there are any; known: (B, C-1), the classes that are annotated in them.
    """

    entries: list[Line]
    generated: NDArray[np.float32]
    asked: NDArray[np.int64]
    found: NDArray[np.int64]
    given: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    known: NDArray[np.bool_]
    real: Batch | None
    found_in_real: NDArray[np.int64] | None


def blocks(subject: Subject, title: str = "evaluating", size: int | None = None) -> Iterator[Block]:
    """The images of `subject`, `size` at a time; by default 256, or fewer large ones."""
    size = size or at_a_time(subject.dataset.size, BLOCK)
    names = subject.dataset.schema.names
    total = len(subject.entries)
    with stage(title, total, "images") as bar:
        for start in range(0, total, size):
            entries = subject.entries[start : start + size]
            generated = np.stack([subject.samples.image(entry) for entry in entries])
            given = np.array([[name in entry.given for name in names] for entry in entries])
            real = subject.dataset.load(subject.rows[start : start + size]) if subject.rows is not None else None
            yield Block(
                entries,
                generated,
                np.stack([subject.samples.label_map(entry) for entry in entries]),
                subject.segmenter(generated),
                given,
                np.array([[name in entry.absent for name in names] for entry in entries]),
                given if real is None else real.annotated.numpy(),
                real,
                None if real is None else subject.segmenter(real.images),
            )
            give_back_memory()
            bar.update(start + len(entries))
