"""Utility: a segmenter trained on synthetic, on real or on both images, tested on real patients (Konz et al. 2024, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anatogen.errors import DataError, SettingsError
from anatogen.judges.fitting import Items, Joined, Lazy, Part
from anatogen.judges.segmenter import SegmenterSettings, tally_of, train_segmenter
from anatogen.metrics.intervals import Interval, mean_interval
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.seeds import derive_seed

REAL_SHARES = (1.0, 0.0, 1 / 2, 1 / 3, 1 / 5)  # real only, synthetic only, then real to synthetic 1:1, 1:2, 1:4


@dataclass(frozen=True)
class Parts:
    """Images with label maps, which need not be in memory (`Lazy`).

    images: float32 (N, C, *spatial) in [-1, 1]. labels: int64 (N, *spatial), -1 where unknown. annotated: bool (N, C-1), which classes the
    label map speaks for; for a synthetic image those that were annotated and given. groups: (N,), the patient of each.
    """

    images: Items
    labels: Items
    annotated: Tensor
    groups: NDArray[np.generic]

    def __post_init__(self) -> None:
        counts = {len(part) for part in (self.images, self.labels, self.annotated, self.groups)}
        if counts == {0} or len(counts) > 1:
            raise DataError("images, label maps, annotated classes and patients must be equally many, and at least one")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def tensors(self) -> Part:
        """(images, labels, annotated), as `train_segmenter` takes them."""
        return self.images, self.labels, self.annotated

    def of_patients(self, count: int, seed: int) -> Parts:
        """The images of `count` patients, chosen by `seed`; a larger count has the smaller one's patients too.

        Raises SettingsError where there are not as many.
        """
        patients = np.unique(self.groups)
        if not 1 <= count <= len(patients):
            raise SettingsError(f"{count} of {len(patients)} real patients were asked for")
        order = np.random.default_rng(derive_seed("real patients", seed)).permutation(len(patients))
        places = torch.from_numpy(np.flatnonzero(np.isin(self.groups, patients[order[:count]])))
        images, labels = (_some(items, places) for items in (self.images, self.labels))
        return Parts(images, labels, self.annotated[places], self.groups[places.numpy()])


@dataclass(frozen=True)
class MixtureUtility:
    """Dice on real test patients of a segmenter trained on one mixture of images.

    real_share: how many of the images it saw were real, 0 to 1. seeds: of the trainings, one each.
    real_images, real_patients, synthetic_images: how many there were to draw from (real_images: for each seed).
    patients: of the test, in the order of `scores`. scores: Dice (seeds, patients, C-1), NaN where the patient has not
    got the class. mean, ci95: over classes and patients, seeds averaged, by `mean_interval`. per_class: (C-1,).
    difference, difference_ci95: to training on the real images alone, paired by patient. Intervals are None where there are
    too few patients for one, or where they do not differ, as no_interval and no_difference_interval then say.
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
        """Sums up `scores` (seeds, patients, C-1), beside training on the real images alone (None: that is what it is).

        about: the fields that do not follow from the scores.
        """
        averaged = scores.mean(axis=0)  # NaN in one seed is NaN in all
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
    real: Parts,
    synthetic: Parts,
    validation: Parts,
    test: Parts,
    class_count: int,
    *,
    real_shares: Sequence[float] = REAL_SHARES,
    real_patients: int | None = None,
    settings: SegmenterSettings = SegmenterSettings(),
    seeds: Sequence[int] = (0,),
    device: torch.device | None = None,
    cache: Path | None = None,
    real_cache: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[MixtureUtility]:
    """Train the segmenter on mixtures of `real` and `synthetic`, each with the same steps, seeds and validation; test it on `test`.

    real_shares: for each mixture, the share of real images among those a training draws: 1 real only (always there, and
    first: the others are compared with it), 0 synthetic only. real_patients: how many of the real patients are used, chosen
    anew for each seed; the low-data setting, in which augmentation helps most. The synthetic images stay as they are, so it
    is for the caller to say from whose label maps they were made.
    cache: where trained segmenters are kept (see `train_segmenter`); real_cache: where those trained on real images alone are.
    progress: called with (steps done, steps in all, what is going on).

    A class counts for a test patient who has it, so that every mixture is scored on the same classes and patients, and a
    difference of means is the mean of differences; what is found in a patient without the class does not count.
    Intervals are over patients; `scores` shows how far the seeds are apart. Raises DataError where images do not fit one
    another, SettingsError for a share outside [0, 1] or seeds or patients that there are none of.
    """
    shares = [1.0, *dict.fromkeys(share for share in map(float, real_shares) if share != 1)]
    if not all(0 <= share <= 1 for share in shares):
        raise SettingsError("a share of real images must lie between 0 and 1")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError("utility needs one seed or more, each of them once")
    _check_shapes(real, synthetic, validation, test)
    chosen = [real if real_patients is None else real.of_patients(real_patients, seed) for seed in seeds]
    total = len(shares) * len(seeds) * settings.steps
    results: list[MixtureUtility] = []
    for share in shares:
        scores = []
        for k, (seed, some) in enumerate(zip(seeds, chosen, strict=True)):
            before = (len(results) * len(seeds) + k) * settings.steps
            doing = f"{name_of(share)}, seed {seed}"
            images, weights = _mixture(some, synthetic, share)
            segmenter = train_segmenter(
                images,
                validation.tensors,
                class_count,
                replace(settings, seed=seed),
                weights=weights,
                device=device,
                cache=(real_cache or cache) if share == 1 else cache,
                progress=_shifted(progress, before, total, doing),
            )
            scores.append(tally_of(segmenter, test.tensors, class_count).dice_by(test.groups))
            if progress is not None:
                progress(before + settings.steps, total, doing)
        results.append(
            MixtureUtility.of(
                np.stack(scores),
                results[0] if results else None,
                name=name_of(share),
                real_share=share,
                seeds=tuple(seeds),
                steps=settings.steps,
                real_images=tuple(len(some) if share else 0 for some in chosen),
                real_patients=len(np.unique(chosen[0].groups)) if share else 0,
                synthetic_images=len(synthetic) if share < 1 else 0,
                patients=np.unique(test.groups),
            )
        )
    return results


def dice_of_patients(found: NDArray[np.integer], test: Parts, class_count: int) -> NDArray[np.float64]:
    """Dice (patients, C-1) of the label maps `found` (N, *spatial), NaN where the patient has not got the class."""
    return dice_by_group(found, test.labels[:].numpy(), test.groups, class_count, test.annotated.numpy())


def name_of(real_share: float) -> str:
    """ "real", "synthetic" or, for instance, "real 1 : 2 synthetic"."""
    if real_share in (0, 1):
        return "real" if real_share else "synthetic"
    ratio = Fraction(real_share).limit_denominator(100)
    return f"real {ratio.numerator} : {ratio.denominator - ratio.numerator} synthetic"


def _some(items: Items, places: Tensor) -> Items:
    """The items at `places`, not read before they are needed where the others are not."""
    if isinstance(items, Tensor):
        return items[places]
    return Lazy((len(places), *items.shape[1:]), lambda asked: items[places[torch.tensor(asked)]])


def _mixture(real: Parts, synthetic: Parts, share: float) -> tuple[Part, Tensor | None]:
    """The images to train on, and how often each is drawn (N,); None: all alike."""
    if share in (0, 1):
        return (real if share else synthetic).tensors, None
    weights = [torch.full((len(real),), share / len(real)), torch.full((len(synthetic),), (1 - share) / len(synthetic))]
    images, labels = Joined(real.images, synthetic.images), Joined(real.labels, synthetic.labels)
    return (images, labels, torch.cat([real.annotated, synthetic.annotated])), torch.cat(weights)


def _check_shapes(real: Parts, *others: Parts) -> None:
    """Raises DataError where images differ in size, channels or classes."""
    wanted = [tuple(part.shape[1:]) for part in real.tensors]
    for other in others:
        found = [tuple(part.shape[1:]) for part in other.tensors]
        if found != wanted:
            raise DataError(
                f"images, label maps and classes of {_shapes(found)} do not fit the real ones of {_shapes(wanted)}",
                hint="Use samples of a model that was trained on this data set",
            )


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
