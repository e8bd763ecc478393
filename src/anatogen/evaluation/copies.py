"""The copy rate of a whole sample set, which the report and `anatogen export` keep in its `privacy.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import OutputError, SettingsError
from anatogen.files import writing
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.copy_search import _MOST_BYTES, CopySearch
from anatogen.metrics.copies import CopyRate, copy_rate
from anatogen.metrics.neighbours import Neighbours
from anatogen.reporting.verdicts import certainty

Images = NDArray[np.float32]
Progress = Callable[[int, int], None]


_BLOCK = 256


@dataclass(frozen=True)
class CopyMeasurement:
    """generated, heldout: the nearest training images of N generated images and of K of unseen patients, and the rate of
    copies that follows. train_rows, heldout_rows: the rows of the data set that the indices of both, and K, stand for.
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
    progress: Progress | None = None,
) -> CopyMeasurement:
    """The copy rate of `images` (N, C, *spatial) in [-1, 1] against the split "train" of `dataset`.

    patients: (N,), whose label map each image follows. Beside them stand the real images of the splits "heldout", "val"
    and "test", whose distances are kept in the data set's folder. images may be a memory map. progress: (images done, of
    all), the held-out ones, where they are not kept yet, counted in. Raises DataError where the images are of another
    shape or there is no unseen patient.
    """
    blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
    return _measure(CopySearch(dataset, most_bytes=most_bytes), blocks, patients, progress)


def copies_of(samples: SampleSet, dataset: PreparedDataset, *, progress: Progress | None = None) -> CopyMeasurement:
    """`measure_copies` of a sample set, read block by block. Raises SettingsError where its model is of other data."""
    require_training_data(samples.header.get("about_model", {}), dataset)
    patients = np.array([patient_of(entry) for entry in samples.entries])

    def blocks() -> Iterator[Images]:
        for start in range(0, len(samples.entries), _BLOCK):
            yield np.stack([samples.image(entry) for entry in samples.entries[start : start + _BLOCK]])

    return _measure(CopySearch(dataset), blocks(), patients, progress)


def _measure(
    search: CopySearch, blocks: Iterable[Images], patients: NDArray[np.generic], progress: Progress | None
) -> CopyMeasurement:
    before = 0 if search.kept() is not None else len(search.heldout_rows)
    total = before + len(patients)

    def after(start: int) -> Progress:
        return lambda done, _: progress(start + done, total) if progress is not None else None

    heldout = search.heldout(after(0))
    generated = search.nearest_of(blocks, len(patients), after(before))
    rate = copy_rate(generated.relative, heldout.relative, patients, search.heldout_patients)
    return CopyMeasurement(rate, generated, heldout, search.train_rows, search.heldout_rows)


def trained_on(about_model: dict[str, Any], dataset: PreparedDataset) -> bool | None:
    """Whether a model, by what it says of itself, was trained on the split "train" of `dataset`; None where it says nothing."""
    own = about_model.get("dataset", {}).get("fingerprint")
    if own is None:
        return None
    items = about_model.get("trained_on")
    return own == dataset.info.source.get("fingerprint") and items in (None, dataset.digest_of("train"))


def require_training_data(about_model: dict[str, Any], dataset: PreparedDataset) -> None:
    """Raises SettingsError where a model was trained on other data than `dataset`: its copies are not of that."""
    if trained_on(about_model, dataset) is False:
        name = about_model["dataset"].get("name", "other data")
        raise SettingsError(
            f"does not hold what the model was trained on (its split of {name}), so copies of its patients cannot be found in it",
            path=dataset.folder,
            hint="Name the prepared data set that the model was trained on",
        )


@dataclass(frozen=True)
class Privacy:
    """What privacy.json says of a sample set: the finding of `CopyRate`, and its verdict in words."""

    model: str
    images: int
    copy_rate: float
    ci95: tuple[float, float]
    p_value: float
    above_chance: bool
    decided: bool
    verdict: str


def write_privacy(samples: SampleSet, rate: CopyRate) -> Privacy:
    """The copy rate of `samples` as its privacy.json holds it, which is written where the folder can be written to."""
    found = Privacy(
        model=samples.header["model"],
        images=rate.n_generated,
        copy_rate=rate.rate,
        ci95=rate.ci95,
        p_value=rate.p_value,
        above_chance=rate.above_chance,
        decided=rate.above_chance or not math.isnan(rate.detectable),
        verdict=certainty(rate),
    )
    with suppress(OutputError), writing(samples.folder / "privacy.json") as path:
        path.write_text(json.dumps(asdict(found), indent=1, ensure_ascii=False), encoding="utf-8")
    return found


def read_privacy(samples: SampleSet) -> Privacy | None:
    """What privacy.json says; None where there is none, or where it is damaged or of another model or count of images."""
    try:
        raw = json.loads((samples.folder / "privacy.json").read_text(encoding="utf-8"))
        low, high = raw["ci95"]
        found = Privacy(**{**{f.name: raw[f.name] for f in fields(Privacy)}, "ci95": (low, high)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = isinstance(found.above_chance, bool) and isinstance(found.verdict, str)
    return found if whole and (found.model, found.images) == (samples.header["model"], len(samples.entries)) else None
