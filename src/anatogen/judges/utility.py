"""Utility: a segmenter trained on synthetic, real or both images, tested on real patients (Konz et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.errors import DataError, SettingsError
from anatogen.judges.fitting import Items, Joined, Lazy, Part, each_of
from anatogen.judges.segmenter import SegmenterSettings, confusion_of, train_segmenter
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.metrics.intervals import Interval, mean_interval
from anatogen.metrics.overlap import class_means
from anatogen.seeds import derive_seed

REAL_SHARES = (1.0, 0.0, 1 / 2, 1 / 3, 1 / 5)  # real only, synthetic only, then real to synthetic 1:1, 1:2, 1:4


@dataclass(frozen=True)
class Parts:
    """Images with label maps; they need not be in memory (`Lazy`).

    Attributes:
        images: float32 (N, C, *spatial) in [-1, 1].
        labels: int64 (N, *spatial), -1 where unknown.
        annotated: Bool (N, C-1), the classes that the label map covers; for a synthetic image those annotated and
            given.
        groups: (N,), the patient of each image.

    Raises:
        DataError: There are no images, or the numbers of items differ.
    """

    images: Items
    labels: Items
    annotated: Tensor
    groups: NDArray[np.generic]

    def __post_init__(self) -> None:
        counts = {len(part) for part in (self.images, self.labels, self.annotated, self.groups)}
        if counts == {0} or len(counts) > 1:
            raise DataError(
                "there must be as many label maps, annotated classes and patients as images, and at least one"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def tensors(self) -> Part:
        """(images, labels, annotated), as `train_segmenter` takes them."""
        return self.images, self.labels, self.annotated

    def of_patients(self, count: int, seed: int) -> Parts:
        """The images of `count` patients, chosen by `seed`; a larger count includes the patients of a smaller one.

        Raises:
            SettingsError: There are fewer patients.
        """
        patients = np.unique(self.groups)
        if not 1 <= count <= len(patients):
            raise SettingsError(f"{count} of {len(patients)} real patients were requested")
        order = np.random.default_rng(derive_seed("real patients", seed)).permutation(len(patients))
        places = torch.from_numpy(np.flatnonzero(np.isin(self.groups, patients[order[:count]])))
        images, labels = (_some(items, places) for items in (self.images, self.labels))
        return Parts(images, labels, self.annotated[places], self.groups[places.numpy()])


@dataclass(frozen=True)
class UtilityData:
    """The images that `utility_of_mixtures` trains and tests on.

    Attributes:
        real: Real images to train on.
        synthetic: Synthetic images to train on.
        validation: Real images that select the best weights of each training.
        test: Real images of the test patients.

    Raises:
        DataError: The images differ in size, channels or classes.
    """

    real: Parts
    synthetic: Parts
    validation: Parts
    test: Parts

    def __post_init__(self) -> None:
        wanted = [tuple(part.shape[1:]) for part in self.real.tensors]
        for other in (self.synthetic, self.validation, self.test):
            found = [tuple(part.shape[1:]) for part in other.tensors]
            if found != wanted:
                raise DataError(
                    f"images, label maps and classes of {_shapes(found)} do not match the real ones of "
                    f"{_shapes(wanted)}",
                    hint="Use samples of a model that was trained on this data set",
                )

    @property
    def class_count(self) -> int:
        """C, the background included."""
        return self.real.annotated.shape[1] + 1


@dataclass(frozen=True)
class UtilitySettings:
    """What `utility_of_mixtures` trains.

    Attributes:
        real_shares: For each mixture, the share of real images among the images drawn: 0 synthetic only, 1 real only.
            Real only is always trained, and first.
        real_patients: Number of real patients to train on, chosen anew for each seed (the low-data setting, in which
            synthetic images help most); by default all.
        segmenter: Settings of each training; `seeds` replaces its seed.
        seeds: One training of each mixture per seed.

    Raises:
        SettingsError: A share is outside [0, 1], or there are no or repeated seeds.
    """

    real_shares: tuple[float, ...] = REAL_SHARES
    real_patients: int | None = None
    segmenter: SegmenterSettings = SegmenterSettings()
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.real_shares):
            raise SettingsError("a share of real images must be between 0 and 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError("utility needs at least one seed, without duplicates")


@dataclass(frozen=True)
class MixtureUtility:
    """The utility of one training mixture, on real test patients.

    Attributes:
        name: "real", "synthetic" or, for instance, "real 1 : 2 synthetic".
        real_share: Share of real images among the images drawn, 0 to 1.
        seeds: The seed of each training.
        steps: Steps of each training.
        real_images: Number of real images available, for each seed.
        real_patients: Number of real patients available.
        synthetic_images: Number of synthetic images available.
        patients: The test patients, in the order of `scores`.
        scores: Dice (seeds, patients, C-1), NaN where the patient lacks the class.
        mean: Mean over seeds, classes and patients.
        ci95: 95 % interval of `mean` over patients, by `mean_interval`; None where there is none.
        per_class: Mean of each class, (C-1,).
        difference: Difference from training on real images alone, paired by patient.
        difference_ci95: 95 % interval of `difference`; None where there is none.
        no_interval: Why `ci95` is None.
        no_difference_interval: Why `difference_ci95` is None.
    """

    name: str
    real_share: float
    seeds: tuple[int, ...]
    steps: int
    real_images: tuple[int, ...]
    real_patients: int
    synthetic_images: int
    patients: NDArray[np.generic]
    scores: NDArray[np.float64]
    mean: float
    ci95: Interval | None
    per_class: NDArray[np.float64]
    difference: float
    difference_ci95: Interval | None
    no_interval: str = ""
    no_difference_interval: str = ""

    @classmethod
    def of(cls, scores: NDArray[np.float64], reference: MixtureUtility | None, **about: Any) -> MixtureUtility:
        """Summarise scores, compared with training on real images alone.

        Args:
            scores: (seeds, patients, C-1).
            reference: The result for real images alone; None if this is it.
            **about: The fields that do not follow from the scores.
        """
        averaged = scores.mean(axis=0)  # NaN for one seed is NaN for all
        mean, ci95, no_interval = mean_interval(averaged, within=(0, 1))
        less = averaged if reference is None else reference.scores.mean(axis=0)
        difference, difference_ci95, no_difference = mean_interval(averaged - less, within=(-1, 1))
        return cls(
            scores=scores,
            mean=mean,
            ci95=ci95,
            per_class=class_means(averaged, axis=0),
            difference=difference,
            difference_ci95=difference_ci95,
            no_interval=no_interval,
            no_difference_interval=no_difference,
            **about,
        )

    @property
    def mean_of_each_seed(self) -> tuple[float, ...]:
        """The mean Dice of each training."""
        return tuple(_mean(scores) for scores in self.scores)


def utility_of_mixtures(
    data: UtilityData,
    settings: UtilitySettings = UtilitySettings(),
    *,
    device: torch.device | None = None,
    cache: Path | None = None,
    real_cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[MixtureUtility]:
    """Train the segmenter on mixtures of real and synthetic images, and test each on real patients.

    All trainings have the same steps, seeds and validation. The synthetic images stay the same with fewer real
    patients, so the caller should report whose label maps they follow. A class counts for the test patients who have
    it, so every mixture is scored on the same classes and patients, and a difference of means is the mean of
    differences; false positives in patients without the class do not count. Intervals are over patients; `scores` shows
    the variation between seeds.

    Args:
        data: The images.
        settings: Mixtures, seeds and the segmenter.
        device: By default the CPU.
        cache: A folder for trained segmenters; see `train_segmenter`.
        real_cache: A folder for those trained on real images alone; by default `cache`.
        progress: Called with (step, steps of all trainings, text).

    Returns:
        A result for each mixture; the first is real images alone, which the others are compared with.

    Raises:
        SettingsError: There are fewer real patients than `settings.real_patients`.
    """
    real = data.real
    shares = [1.0, *dict.fromkeys(share for share in map(float, settings.real_shares) if share != 1)]
    patients, seeds, steps = settings.real_patients, settings.seeds, settings.segmenter.steps
    chosen = [real if patients is None else real.of_patients(patients, seed) for seed in seeds]
    total = len(shares) * len(seeds) * steps
    results: list[MixtureUtility] = []
    for share in shares:
        scores = []
        for k, (seed, some) in enumerate(zip(seeds, chosen, strict=True)):
            before = (len(results) * len(seeds) + k) * steps
            doing = f"{name_of(share)}, seed {seed}"
            images, weights = _mixture(some, data.synthetic, share)
            segmenter = train_segmenter(
                images,
                data.validation.tensors,
                data.class_count,
                replace(settings.segmenter, seed=seed),
                weights=weights,
                device=device,
                cache=(real_cache or cache) if share == 1 else cache,
                progress=_shifted(progress, before, total, doing),
            )
            scores.append(confusion_of(segmenter, data.test.tensors, data.class_count).dice_by(data.test.groups))
            if progress is not None:
                progress(before + steps, total, doing)
        results.append(
            MixtureUtility.of(
                np.stack(scores),
                results[0] if results else None,
                name=name_of(share),
                real_share=share,
                seeds=seeds,
                steps=steps,
                real_images=tuple(len(some) if share else 0 for some in chosen),
                real_patients=len(np.unique(chosen[0].groups)) if share else 0,
                synthetic_images=len(data.synthetic) if share < 1 else 0,
                patients=np.unique(data.test.groups),
            )
        )
    return results


def dice_of_patients(found: Iterable[NDArray[np.integer]], test: Parts, class_count: int) -> NDArray[np.float64]:
    """Dice (patients, C-1) of the label maps `found`, NaN where the patient lacks the class.

    Args:
        found: A label map (*spatial) for each image of `test`; one at a time is kept.
        test: The images of the test patients, with their true label maps.
        class_count: C, the background included.
    """
    counts = [
        confusion_counts(one[None], truth[None].numpy(), class_count, counted=counted[None].numpy(), surfaces=False)
        for one, truth, counted in zip(found, each_of(test.labels), test.annotated, strict=True)
    ]
    return ConfusionCounts.joined(counts).dice_by(test.groups)


def name_of(real_share: float) -> str:
    """ "real", "synthetic" or, for instance, "real 1 : 2 synthetic"."""
    if real_share in (0, 1):
        return "real" if real_share else "synthetic"
    ratio = Fraction(real_share).limit_denominator(100)
    return f"real {ratio.numerator} : {ratio.denominator - ratio.numerator} synthetic"


def _some(items: Items, places: Tensor) -> Items:
    """The items at `places`, read on demand where `items` are."""
    if isinstance(items, Tensor):
        return items[places]
    return Lazy((len(places), *items.shape[1:]), lambda asked: items[places[torch.tensor(asked)]])


def _mixture(real: Parts, synthetic: Parts, share: float) -> tuple[Part, Tensor | None]:
    """The images to train on, and the relative probability (N,) of each; None for uniform."""
    if share in (0, 1):
        return (real if share else synthetic).tensors, None
    weights = [torch.full((len(real),), share / len(real)), torch.full((len(synthetic),), (1 - share) / len(synthetic))]
    images, labels = Joined(real.images, synthetic.images), Joined(real.labels, synthetic.labels)
    return (images, labels, torch.cat([real.annotated, synthetic.annotated])), torch.cat(weights)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)


def _shifted(
    progress: Callable[[int, int, str], None] | None, before: int, total: int, doing: str
) -> Callable[[int, int, str], None] | None:
    if progress is None:
        return None
    return lambda done, _, text: progress(before + done, total, f"{doing}: {text}")


def _mean(scores: NDArray[np.float64]) -> float:
    return float(class_means(class_means(scores, axis=0), axis=0))
