"""The copy rate of a whole sample set, which the report and `anatogen export` keep in its `privacy.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.generation.header import AboutModel
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.copy_search import _MOST_BYTES, CopySearch
from anatogen.metrics.copies import CopyRate, copy_rate
from anatogen.metrics.neighbours import Neighbours
from anatogen.reporting.verdicts import SELECTED_BY_COPIES, certainty
from anatogen.settings import Document

Images = NDArray[np.float32]
ProgressCallback = Callable[[int, int], None]

_BLOCK = 256


@dataclass(frozen=True)
class CopyMeasurement:
    """generated, heldout: the nearest training images of N generated images and of K of unseen patients, and the rate
    of copies that follows. train_rows, heldout_rows: the rows of the data set that the indices of both, and K, stand
    for.
    """

    rate: CopyRate
    generated: Neighbours
    heldout: Neighbours
    train_rows: list[Row]
    heldout_rows: list[Row]


def measure_copies(
    dataset: PreparedDataset,
    images: Images,
    patients: NDArray[np.generic],
    *,
    most_bytes: int = _MOST_BYTES,
    progress: ProgressCallback | None = None,
) -> CopyMeasurement:
    """The copy rate of `images` (N, C, *spatial) in [-1, 1] against the split "train" of `dataset`.

    patients: (N,), whose label map each image follows. Beside them stand the real images of the splits "heldout", "val"
    and "test", whose distances are kept in the data set's folder. images may be a memory map. progress: (images done,
    of all), the held-out ones, where they are not kept yet, counted in. Raises DataError where the images are of
    another shape or there is no unseen patient.
    """
    blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
    return _measure(CopySearch(dataset, most_bytes=most_bytes), blocks, patients, progress)


def copies_of(
    samples: SampleSet, dataset: PreparedDataset, *, progress: ProgressCallback | None = None
) -> CopyMeasurement:
    """`measure_copies` of a sample set, read block by block. Raises SettingsError where its model is of other data."""
    require_training_data(samples.header.about_model, dataset)
    patients = np.array([patient_of(entry) for entry in samples.entries])

    def blocks() -> Iterator[Images]:
        for start in range(0, len(samples.entries), _BLOCK):
            yield np.stack([samples.image(entry) for entry in samples.entries[start : start + _BLOCK]])

    return _measure(CopySearch(dataset), blocks(), patients, progress)


def _measure(
    search: CopySearch, blocks: Iterable[Images], patients: NDArray[np.generic], progress: ProgressCallback | None
) -> CopyMeasurement:
    before = 0 if search.kept() is not None else len(search.heldout_rows)
    total = before + len(patients)

    def after(start: int) -> ProgressCallback:
        return lambda done, _: progress(start + done, total) if progress is not None else None

    heldout = search.heldout(after(0))
    generated = search.nearest_of(blocks, len(patients), after(before))
    rate = copy_rate(generated.relative, heldout.relative, patients, search.heldout_patients)
    return CopyMeasurement(rate, generated, heldout, search.train_rows, search.heldout_rows)


def trained_on(about_model: AboutModel, dataset: PreparedDataset) -> bool | None:
    """Whether a model, by what it says of itself, was trained on the split "train" of `dataset`;

    None where it says nothing.
    """
    own = about_model.dataset.fingerprint
    if own is None:
        return None
    items = about_model.trained_on
    return own == dataset.info.source.get("fingerprint") and items in (None, dataset.digest_of("train"))


def require_training_data(about_model: AboutModel, dataset: PreparedDataset) -> None:
    """Raises SettingsError where a model was trained on other data than `dataset`: its copies are not of that."""
    if trained_on(about_model, dataset) is False:
        name = about_model.dataset.name or "other data"
        raise SettingsError(
            f"does not hold what the model was trained on (its split of {name}), so copies of its patients cannot be "
            "found in it",
            path=dataset.folder,
            hint="Name the prepared data set that the model was trained on",
        )


class PrivacyNote(Document):
    """privacy.json of a sample set: the finding of `CopyRate`, and its verdict in words. images: how many there
    were.
    """

    HINT: ClassVar[str] = "Evaluate the sample set again"

    model: str
    images: int
    copy_rate: float
    ci95: tuple[float | None, float | None]
    p_value: float
    above_chance: StrictBool
    decided: bool
    verdict: str


def write_privacy(samples: SampleSet, rate: CopyRate) -> PrivacyNote:
    """The copy rate of `samples` as its privacy.json holds it, which is written where the folder can be written to."""
    gate = samples.header.gate
    selected = gate is not None and gate.reject_copies is not None
    found = PrivacyNote(
        model=samples.header.model,
        images=rate.n_generated,
        copy_rate=rate.rate,
        ci95=rate.ci95,
        p_value=rate.p_value,
        above_chance=bool(rate.above_chance),
        decided=bool(rate.above_chance) or not math.isnan(rate.detectable),
        verdict=certainty(rate) + (f" {SELECTED_BY_COPIES}" if selected else ""),
    )
    with suppress(OutputError):
        found.write(samples.folder / "privacy.json")
    return found


def read_privacy(samples: SampleSet) -> PrivacyNote | None:
    """What privacy.json says;

    None where there is none, or where it is damaged or of another model or count of images.
    """
    with suppress(DataError):
        found = PrivacyNote.read(samples.folder / "privacy.json")
        if (found.model, found.images) == (samples.header.model, len(samples.entries)):
            return found
    return None
