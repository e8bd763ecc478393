"""Are the images of use? A segmenter trained on them is tested on real patients (Konz et al. 2024, Table 2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anatogen.data.store import PreparedDataset
from anatogen.evaluation import figures
from anatogen.evaluation.report import Figure
from anatogen.evaluation.segmenter import SegmenterSettings
from anatogen.evaluation.utility import Parts, report_entry, usefulness
from anatogen.generation.sample_set import SampleSet
from anatogen.runtime import Progress, pick_device

MOST_SYNTHETIC = 20_000


def utility(
    dataset: PreparedDataset,
    samples: SampleSet,
    entries: list[dict[str, Any]],
    settings: SegmenterSettings,
    *,
    seeds: tuple[int, ...] = (0,),
    real_shares: tuple[float, ...] = (1.0, 0.0, 1 / 2),
    device: str = "auto",
) -> tuple[dict[str, Any], list[Figure]]:
    """Train on the images of `entries` (made from heldout maps), on the real heldout images, and on both; test on test patients.

    Of more than 20,000 images, so many are drawn. A class that was free in an image has no say in its loss.
    """
    if len(entries) > MOST_SYNTHETIC:
        kept = np.random.default_rng(0).choice(len(entries), MOST_SYNTHETIC, replace=False)
        entries = [entries[i] for i in sorted(kept)]
    names = dataset.schema.names
    synthetic = Parts(
        torch.from_numpy(np.stack([samples.image(entry) for entry in entries])),
        torch.from_numpy(np.stack([samples.label_map(entry) for entry in entries])),
        torch.tensor([[name in entry["given"] for name in names] for entry in entries]),
        np.array([entry["patient"] for entry in entries]),
    )
    parts = {split: _real(dataset, split) for split in ("heldout", "val", "test")}
    total = len(set(real_shares) | {1.0}) * len(seeds) * settings.steps
    with Progress("training segmenters", total, "steps") as bar:
        results = usefulness(
            parts["heldout"],
            synthetic,
            parts["val"],
            parts["test"],
            dataset.schema.count,
            real_shares=real_shares,
            settings=replace(settings),
            seeds=seeds,
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
    picture = figures.bars({r.name: (r.mean, r.ci95) for r in results}, "Dice on real test patients")
    return entry, [Figure("utility", "Are they useful to train on?", picture, caption, "utility")]


def _real(dataset: PreparedDataset, split: str) -> Parts:
    rows = dataset.split(split)
    batch = dataset.load(rows)
    return Parts(batch.images, batch.labels, batch.annotated, np.array([row.patient for row in rows]))
