"""Are the images useful for training? A segmenter trained on them is tested on real patients (Konz et al. 2024, Table
2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anatogen.data.store import PreparedDataset, Row
from anatogen.device import pick_device
from anatogen.evaluation.needs import heldout_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, by_name
from anatogen.evaluation.selection import selection_of
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.fitting import Lazy
from anatogen.judges.of_dataset import HELD_BYTES, part_of
from anatogen.judges.utility import MixtureUtility, Parts, UtilityData, UtilitySettings, utility_of_mixtures
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Trained, TrainedCount, UtilityResult, UtilitySplit

MOST_SYNTHETIC = 20_000


class Utility(Section[UtilityResult]):
    """Train on the images of heldout maps, on the real heldout images, and on both; test on test patients.

    Of more than 20,000 images, so many are drawn. A class that was free in an image is excluded from its loss.
    """

    name: ClassVar[str] = "utility"
    question: ClassVar[Question] = "utility"
    needs: ClassVar[tuple[Need, ...]] = (heldout_images,)

    def finish(self) -> Finding[UtilityResult]:
        """The trainings, and their Dice."""
        results = self._trained()
        result = UtilityResult(
            **trainings_of(results, self.subject.dataset.schema.names),
            mixtures=tuple(trained(r, self.subject.dataset.schema.names) for r in results if 0 < r.real_share < 1),
            split=UtilitySplit(trained="heldout", chosen="val", tested="test"),
            selection=None if self.subject.sets.heldout is None else selection_of(self.subject.sets.heldout),
        )
        return Finding(result, [self._figure(results)])

    def _trained(self) -> list[MixtureUtility]:
        subject, settings = self.subject, self.subject.settings
        dataset, samples = subject.dataset, subject.sets.heldout
        if samples is None:
            raise ValueError("this section needs images of held-out patients' label maps")
        seeds = tuple(range(settings.utility_seeds))
        total = len(set(settings.real_shares) | {1.0}) * len(seeds) * settings.utility.steps
        with stage("training segmenters", total, "steps") as bar:
            return utility_of_mixtures(
                UtilityData(
                    real_parts(dataset, "heldout"),
                    synthetic_parts(samples, at_most(subject.heldout_entries), dataset.schema.names, dataset),
                    real_parts(dataset, "val"),
                    real_parts(dataset, "test"),
                ),
                UtilitySettings(settings.real_shares, segmenter=settings.utility, seeds=seeds),
                device=pick_device(subject.device),
                cache=samples.folder,
                real_cache=dataset.folder,
                progress=lambda done, of, text: bar.update(done, text),
            )

    def _figure(self, results: Sequence[MixtureUtility]) -> Figure:
        steps, seeds = self.subject.settings.utility.steps, self.subject.settings.utility_seeds
        caption = (
            "Dice on real test patients of a segmenter trained on real images, on synthetic ones made from the same "
            f"patients' label maps, and on both; {steps} steps each, {seeds} training{'s' if seeds > 1 else ''} a bar, "
            "95 % intervals by patient."
        )
        if any(result.ci95 is None for result in results):
            caption += " Where no interval is drawn, there are too few patients for an interval, or they do not differ."
        picture = figures.bars({r.name: (r.mean, r.ci95) for r in results}, "Dice on real test patients")
        return Figure("utility", "Are they useful to train on?", picture, caption, "utility")


def trained(found: MixtureUtility, class_names: Sequence[str]) -> Trained:
    """One mixture as report.json holds it."""
    missing = {} if found.ci95 is not None else {"no_interval": found.no_interval}
    if found.difference_ci95 is None:
        missing["no_difference_interval"] = found.no_difference_interval
    return Trained(
        name=found.name,
        mean=found.mean,
        per_class=by_name(class_names, found.per_class),
        ci95=found.ci95,
        difference_to_real=found.difference,
        difference_ci95=found.difference_ci95,
        mean_of_each_seed=found.mean_of_each_seed,
        real_share=found.real_share,
        n=TrainedCount(
            test_patients=len(found.patients),
            real_images=found.real_images,
            real_patients=found.real_patients,
            synthetic_images=found.synthetic_images,
            seeds=found.seeds,
            steps=found.steps,
        ),
        **missing,
    )


def trainings_of(results: Sequence[MixtureUtility], class_names: Sequence[str]) -> dict[str, Any]:
    """real, synthetic and both, where there are.

    "both" is the first mixture and not the best one, which would be chosen on the test patients.
    """
    mixtures = [r for r in results if 0 < r.real_share < 1]
    named = {r.name: r for r in results if r.real_share in (0, 1)} | ({"both": mixtures[0]} if mixtures else {})
    return {name: trained(each, class_names) for name, each in named.items()}


def at_most(entries: list[Line], count: int = MOST_SYNTHETIC) -> list[Line]:
    """`entries`, or `count` of them that are drawn, always the same."""
    if len(entries) <= count:
        return entries
    kept = np.random.default_rng(0).choice(len(entries), count, replace=False)
    return [entries[i] for i in sorted(kept)]


def real_parts(dataset: PreparedDataset, split: str) -> Parts:
    """The images of a split, in the order of its rows."""
    rows = dataset.split(split)
    return Parts(*part_of(dataset, rows), np.array([row.patient for row in rows]))


def synthetic_parts(
    samples: SampleSet,
    entries: list[Line],
    names: Sequence[str],
    dataset: PreparedDataset | None = None,
    *,
    held_bytes: int = HELD_BYTES,
) -> Parts:
    """The images of `entries`, read when they are needed where they are many; names: the classes.

    What is unknown in the label maps' rows of `dataset` is unknown here too.
    """
    rows: dict[tuple[str | None, int | None], Row] = {}
    if dataset is not None and dataset.info.ignored is not None:
        rows = {(row.case, row.slice): row for row in dataset.rows}

    def label_map(entry: Line) -> Tensor:
        labels = torch.from_numpy(samples.label_map(entry))
        row = rows.get((entry.case, entry.slice))
        return labels if row is None or dataset is None else labels.masked_fill(dataset.load([row]).truth[0] < 0, -1)

    shape, size = samples.image(entries[0]).shape, samples.label_map(entries[0]).shape
    images = Lazy(
        (len(entries), *shape),
        lambda places: torch.from_numpy(np.stack([samples.image(entries[place]) for place in places])),
    )
    labels = Lazy((len(entries), *size), lambda places: torch.stack([label_map(entries[place]) for place in places]))
    annotated = torch.tensor([[name in entry.given for name in names] for entry in entries])
    patients = np.array([patient_of(entry) for entry in entries])
    if len(entries) * (4 * math.prod(shape) + 8 * math.prod(size)) <= held_bytes:
        return Parts(images[:], labels[:], annotated, patients)
    return Parts(images, labels, annotated, patients)
