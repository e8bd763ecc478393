"""Are the images of use? A segmenter trained on them is tested on real patients (Konz et al. 2024, Table 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anatogen.data.store import PreparedDataset, Row
from anatogen.device import pick_device
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, patient_of
from anatogen.judges.fitting import Lazy
from anatogen.judges.of_dataset import HELD_BYTES, part_of
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.judges.usefulness import Parts, UsefulnessData, UsefulnessSettings, report_entry, usefulness
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure

MOST_SYNTHETIC = 20_000


def utility(
    dataset: PreparedDataset,
    samples: SampleSet,
    entries: list[Line],
    settings: SegmenterSettings,
    *,
    seeds: tuple[int, ...] = (0,),
    real_shares: tuple[float, ...] = (1.0, 0.0, 1 / 2),
    device: str = "auto",
) -> tuple[dict[str, Any], list[Figure]]:
    """Train on the images of `entries` (made from heldout maps), on the real heldout images, and on both; test on test patients.

    Of more than 20,000 images, so many are drawn. A class that was free in an image has no say in its loss.
    """
    names = dataset.schema.names
    synthetic = synthetic_parts(samples, at_most(entries), names, dataset)
    parts = {split: real_parts(dataset, split) for split in ("heldout", "val", "test")}
    total = len(set(real_shares) | {1.0}) * len(seeds) * settings.steps
    with stage("training segmenters", total, "steps") as bar:
        results = usefulness(
            UsefulnessData(parts["heldout"], synthetic, parts["val"], parts["test"]),
            UsefulnessSettings(real_shares, segmenter=settings, seeds=seeds),
            device=pick_device(device),
            cache=samples.folder,
            real_cache=dataset.folder,
            progress=lambda done, of, text: bar.update(done, text),
        )
    entry = report_entry(results, names)
    entry["split"] = {"trained": "heldout", "chosen": "val", "tested": "test"}
    caption = (
        "Dice on real test patients of a segmenter trained on real images, on synthetic ones made from the same patients' label maps, "
        f"and on both; {settings.steps} steps each, {len(seeds)} training{'s' if len(seeds) > 1 else ''} a bar, 95 % intervals by patient."
    )
    if any(result.ci95 is None for result in results):
        caption += " Where no interval is drawn, there are too few patients for an interval, or they do not differ."
    picture = figures.bars({r.name: (r.mean, r.ci95) for r in results}, "Dice on real test patients")
    return entry, [Figure("utility", "Are they useful to train on?", picture, caption, "utility")]


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
