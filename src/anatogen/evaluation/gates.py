"""Gates for generated images (does the anatomy follow the map? is it nobody's copy?), and the search for copies behind them.

The copy rate of a whole set is measured here too, for the report and for `anatogen export`, which both keep it in the
sample set's `privacy.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.evaluation.faithfulness import class_means
from anatogen.evaluation.neighbours import Neighbours, coarsening, nearest_neighbours
from anatogen.evaluation.privacy import CopyRate, certainty, copy_rate, copy_threshold
from anatogen.evaluation.tally import tally
from anatogen.generation.gate import Gate, Verdict
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.labels import LabelSchema
from anatogen.runtime import writing

Images = NDArray[np.float32]
Progress = Callable[[int, int], None]

UNSEEN = ("heldout", "val", "test")
"""The splits that the generator never saw."""

_STRAY_SHARE, _STRAY_PIXELS = 1e-3, 4
_BLOCK = 256
_MOST_BYTES = 2 << 30
_SHIFTS = 2


def dice_gate(segmenter: Callable[[Images], NDArray[np.int64]], schema: LabelSchema, min_dice: float) -> Gate:
    """A gate that keeps an image whose Dice of what `segmenter` finds with what was asked for is at least `min_dice`.

    segmenter: images (B, C, *spatial) in [-1, 1] -> label maps (B, *spatial). The Dice of an image is the mean over its
    given classes that are drawn in its map. A given class that is not drawn is to be absent: found on more than 4
    pixels, and more than one in a thousand, it counts as a class with Dice 0; on fewer it does not count. An image for
    which nothing counts is kept, with a note. Small structures have a low Dice in real images too, so a high bound
    favours slices through the middle of an organ. Raises SettingsError for a bound outside (0, 1].
    """
    if not 0 < min_dice <= 1:
        raise SettingsError(f"a Dice of at least {min_dice:g} makes no sense", remedy="Choose above 0 and at most 1")
    return _DiceGate(segmenter, schema, min_dice)


@dataclass(frozen=True)
class _DiceGate:
    segmenter: Callable[[Images], NDArray[np.int64]]
    schema: LabelSchema
    min_dice: float

    @property
    def settings(self) -> dict[str, Any]:
        return {"min_dice": self.min_dice}

    def __call__(self, requests: Sequence[Request], images: Images) -> list[Verdict]:
        asked = np.stack([request.labels for request in requests])
        given = np.array([request.states.given for request in requests])
        return [self._verdict(dice) for dice in given_dice(self.segmenter(images), asked, given, self.schema.count)]

    def _verdict(self, dice: float) -> Verdict:
        if math.isnan(dice):
            return Verdict(True, {"note": "no given class is in the map, so there is no Dice"})
        measures = {"dice": round(dice, 4)}
        if dice >= self.min_dice:
            return Verdict(True, measures)
        return Verdict(False, measures, f"Dice {dice:.4f} is below {self.min_dice:g}")


def given_dice(
    found: NDArray[np.integer], asked: NDArray[np.integer], given: NDArray[np.bool_], class_count: int
) -> NDArray[np.float64]:
    """How well each image's label map `found` (N, *spatial) obeys `asked` where `given` (N, C-1), (N,); see `dice_gate`.

    NaN where no given class is drawn, and none that was given as absent is found.
    """
    counts = tally(found, asked, class_count, counted=given, surfaces=False)
    scores = counts.dice_by(np.arange(len(asked)))
    stray = max(_STRAY_PIXELS, _STRAY_SHARE * math.prod(asked.shape[1:]))
    scores[(counts.truth == 0) & (counts.predicted <= stray)] = np.nan
    return class_means(scores, axis=1)


class CopySearch:
    """Looks for the nearest training image of any image, and knows how near images of unseen patients come to one.

    Images larger in all than `most_bytes` of float32 are averaged over squares (or cubes) first, on both sides alike.
    Raises SettingsError where `dataset` has no split "train", DataError where it has no patients beside it.
    """

    def __init__(self, dataset: PreparedDataset, *, most_bytes: int = _MOST_BYTES) -> None:
        self.dataset = dataset
        self.train_rows = dataset.split("train")
        self.heldout_rows = [row for row in dataset.rows if row.split in UNSEEN]
        if not self.heldout_rows:
            raise DataError(
                "has no patients whom the model never saw, beside whom a copy could be told",
                path=dataset.folder,
                remedy="Prepare it again with --split train=70,heldout=15,val=7.5,test=7.5 --ignore-split",
            )
        most_pixels = most_bytes // (4 * len(self.train_rows) * dataset.channels)
        self.factor = coarsening(dataset.size, most_pixels)
        size = tuple(n // self.factor for n in dataset.size)
        self._train = np.empty((len(self.train_rows), dataset.channels, *size), np.float32)
        self._shifts = min(math.ceil(_SHIFTS / self.factor), (min(size) - 1) // 2)
        start = 0
        for block in _blocks(dataset, self.train_rows):
            self._train[start : start + len(block)] = _pooled(block, self.factor)
            start += len(block)

    def nearest(self, images: Images) -> Neighbours:
        """The nearest training images of `images` (N, C, *spatial); indices are places in `train_rows`."""
        return nearest_neighbours(_pooled(images, self.factor), self._train, shifts=self._shifts)

    @cached_property
    def digest(self) -> str:
        """Of what is compared: the training and the held-out images, and how."""
        digest = hashlib.sha256(f"1 {self._train.shape} {self.factor} {self._shifts}".encode())
        digest.update(self._train.data)
        for block in _blocks(self.dataset, self.heldout_rows):
            digest.update(np.ascontiguousarray(_pooled(block, self.factor)).data)
        return digest.hexdigest()[:16]

    @property
    def heldout_patients(self) -> NDArray[np.str_]:
        """Whose image each held-out one is, (K,)."""
        return np.array([row.patient for row in self.heldout_rows])

    @property
    def _cache(self) -> Path:
        return self.dataset.folder / f"copies-{self.digest}.npz"

    def kept(self) -> Neighbours | None:
        """The held-out images' nearest, where an earlier search left them in the data set's folder."""
        try:
            with np.load(self._cache, allow_pickle=False) as file:
                found = Neighbours(**{f.name: file[f.name] for f in fields(Neighbours)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return found if found.distance.shape == (len(self.heldout_rows),) else None

    def heldout(self, progress: Progress | None = None) -> Neighbours:
        """The held-out images' nearest, measured once and kept in the data set's folder where that can be written."""
        if (found := self.kept()) is not None:
            return found
        found = self.nearest_of(_blocks(self.dataset, self.heldout_rows), len(self.heldout_rows), progress)
        if os.access(self.dataset.folder, os.W_OK):
            with suppress(OutputError), writing(self._cache) as path:  # nothing is lost but time
                np.savez(path, **asdict(found))
        return found

    def nearest_of(self, blocks: Iterable[Images], total: int, progress: Progress | None = None) -> Neighbours:
        """The same as `nearest` for blocks of images one after the other, `total` in all."""
        found: list[Neighbours] = []
        done = 0
        for block in blocks:
            found.append(self.nearest(block))
            done += len(block)
            if progress is not None:
                progress(done, total)
        return Neighbours.joined(found)


def copy_gate(search: CopySearch, *, level: float = 0.01, progress: Progress | None = None) -> Gate:
    """A gate that refuses an image nearer to a training image than all but a share `level` of unseen patients' are.

    By `Neighbours.relative` and `copy_threshold`: about `level` of the images of a model that copies nothing are refused
    too. The manifest then names the nearest training image by its row (case and slice), and the distance.
    progress: of measuring the held-out images, see `CopySearch.heldout`.
    """
    threshold, _ = copy_threshold(search.heldout(progress).relative, level=level)
    return _CopyGate(search, threshold, level)


@dataclass(frozen=True)
class _CopyGate:
    search: CopySearch
    threshold: float
    level: float

    @property
    def settings(self) -> dict[str, Any]:
        return {"reject_copies": {"level": self.level, "compared_with": self.search.digest}}

    def __call__(self, requests: Sequence[Request], images: Images) -> list[Verdict]:  # noqa: ARG002
        found = self.search.nearest(images)
        return [self._verdict(*each) for each in zip(found.relative.tolist(), found.index.tolist(), strict=True)]

    def _verdict(self, distance: float, index: int) -> Verdict:
        row = self.search.train_rows[index].id
        measures = {"nearest": {"row": row, "distance": round(distance, 4), "threshold": round(self.threshold, 4)}}
        if distance >= self.threshold:
            return Verdict(True, measures)
        return Verdict(
            False,
            measures,
            f"its distance to training image {row}, {distance:.4f}, is below {self.threshold:.4f}, under which few "
            "images of unseen patients lie",
        )


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
            remedy="Name the prepared data set that the model was trained on",
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


def _blocks(dataset: PreparedDataset, rows: Sequence[Row]) -> Iterator[Images]:
    """The images of `rows` as float32 (B, C, *spatial), a block at a time."""
    return (batch.images.numpy() for batch in dataset.batches(rows, _BLOCK))


def _pooled(images: Images, factor: int) -> Images:
    """Means over squares or cubes of `factor` pixels; what is left over at the far borders is dropped."""
    if factor == 1:
        return images
    pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    return pool(torch.from_numpy(np.ascontiguousarray(images)), factor).numpy()
