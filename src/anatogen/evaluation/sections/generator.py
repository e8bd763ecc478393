"""What only the generator itself can show: classes left free, how they vary, and what more steps bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.sections.base import spread
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.segmenter import Segmenter
from anatogen.labels import LabelSchema
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.metrics.texture import power_ratio
from anatogen.metrics.variation import seed_variation
from anatogen.model import Query
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.seeds import derive_seed

_CURVE_STEPS = (2, 4, 8, 16, 32)
_CURVE_IMAGES = 48
_VARIATION_MAPS, _VARIATION_SEEDS, _VARIATION_CLASSES = 12, 4, 8
_CLASSES_SHOWN = 6
_SEEDS_SHOWN = 6


def freed_figure(dataset: PreparedDataset, rows: Sequence[Row], generator: Generator) -> Figure:
    """Each line: one map; everything given, then each class freed by itself, then all of them. The seed stays."""
    schema, batch = dataset.schema, dataset.load([rows[i] for i in spread(rows, 4)])
    freed = [(), *((name,) for name in schema.names[:_CLASSES_SHOWN])]
    freed += [schema.names] if len(schema.names) > 1 else []
    lines = []
    for labels, row in zip(batch.labels.numpy(), batch.rows, strict=True):
        requests = [Query(labels, schema.states(free=list(names)), 0) for names in freed]
        pictures = []
        for names, (_, image) in zip(freed, generator.generate(requests), strict=True):
            title = "all given" if not names else "all free" if names == schema.names else f"{names[0]} free"
            pictures.append((title, figures.gray(image)))
        lines.append([(f"map: {row.id}", figures.coloured(labels, schema)), *pictures])
    caption = "Classes left free, one by one: the model infers them. Every image of a line starts from the same noise."
    if not generator.about.mask_ablation:
        caption += " This run was trained without mask ablation, so it has never seen a free class: train with --mask-ablation."
    return Figure("freed", "What if a class is left free?", figures.grid(lines), caption, "model")


def variation(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    segmenter: Segmenter,
    generator: Generator,
    *,
    maps: int = _VARIATION_MAPS,
    seeds: int = _VARIATION_SEEDS,
) -> tuple[dict[str, Any], list[Figure]]:
    """How much each class differs between seeds, given and free: `seed_variation` on `maps` maps that show the class.

    Two figures: images of one map from several seeds with a class free, and with it given.
    """
    schema = dataset.schema
    names = schema.names[:_VARIATION_CLASSES]
    results: dict[str, Any] = {"given": {}, "free": {}, "maps": {}, "seeds": seeds}
    most: tuple[float, list[Figure]] = (-np.inf, [])
    with stage("seeds apart", len(names), "classes") as bar:
        for c, name in enumerate(names, start=1):
            annotated = [row for row in rows if name in row.annotated]
            drawn = [row for row in annotated if (dataset.load([row]).labels == c).sum() >= 8]
            chosen = [drawn[i] for i in spread(drawn, maps)]
            if not chosen:
                bar.advance()
                continue
            found = {}
            for kind, states in (("given", schema.states()), ("free", schema.states(free=[name]))):
                requests = requests_from_dataset(dataset, chosen, states, seed=derive_seed("apart", 0), per_mask=seeds)
                images = np.stack([image for _, image in generator.generate(requests)])
                found[kind] = (images, segmenter(images).reshape(len(chosen), seeds, *dataset.size))
                results[kind][name] = float(class_means(seed_variation(found[kind][1], schema.count)[:, c - 1], axis=0))
            results["maps"][name] = len(chosen)
            gap = results["free"][name] - results["given"][name]
            if gap > most[0]:
                labels = dataset.load(chosen).labels.numpy()
                most = (gap, [_seeds_figure(schema, name, kind, labels, *found[kind], results) for kind in found])
            bar.advance()
    return results, most[1]


def _seeds_figure(
    schema: LabelSchema,
    name: str,
    kind: str,
    labels: NDArray[np.int64],
    images: NDArray[np.float32],
    found: NDArray[np.int64],
    results: dict[str, Any],
) -> Figure:
    index = schema.index_of(name)
    maps, seeds = found.shape[:2]
    sizes = (labels == index).reshape(maps, -1).sum(axis=1)
    lines = []
    for m in np.argsort(-sizes)[:3]:
        line = [("map", figures.coloured(labels[m], schema))]
        for s in range(min(seeds, _SEEDS_SHOWN)):
            only = np.where(found[m, s] == index, index, 0)
            line.append((f"seed {s}", figures.outlined(images[m * seeds + s], only, schema)))
        lines.append(line)
    value = results[kind][name]
    caption = (
        f"One label map a line, only the seed differs; outlined is where the segmenter finds {name}, which was {kind}. "
        f"Between two seeds it differs by {value:.2f} (1 - Dice, mean over {maps} maps and {seeds} seeds)."
    )
    heading = "A free class varies with the seed" if kind == "free" else "A given class does not"
    return Figure(f"seeds_{kind}", heading, figures.grid(lines), caption, "model")


def steps_curve(
    dataset: PreparedDataset, rows: Sequence[Row], segmenter: Segmenter, generator: Generator
) -> tuple[dict[str, Any], list[Figure], dict[str, NDArray[np.float64]]]:
    """Dice(m_gen, m) against solver steps, its plot, and the power ratios at few and many steps."""
    chosen = [rows[i] for i in spread(rows, _CURVE_IMAGES)]
    requests = requests_from_dataset(dataset, chosen, dataset.schema.states(), seed=1)
    real = dataset.load(chosen)
    groups, counted = np.array([row.patient for row in chosen]), real.annotated.numpy()

    def dice(images: NDArray[np.float32]) -> float:
        scores = dice_by_group(segmenter(images), real.truth.numpy(), groups, dataset.schema.count, counted)
        return float(class_means(class_means(scores, axis=0), axis=0))

    scores, textures = [], {}
    with stage("Dice against steps", len(_CURVE_STEPS) * len(requests), "images") as bar:
        for steps in _CURVE_STEPS:
            images = []
            for _, image in generator.generate(requests, generator.with_settings(steps=steps)):
                images.append(image)
                bar.advance()
            scores.append(dice(np.stack(images)))
            if steps in (4, 32):
                textures[f"{steps} steps"] = power_ratio(np.stack(images), real.images.numpy())
    ceiling = dice(real.images.numpy())
    results = {"steps": list(_CURVE_STEPS), "dice": scores, "ceiling": ceiling, "n": len(requests)}
    splits = " and ".join(sorted({row.split for row in chosen}))
    caption = f"Dice(m_gen, m) against solver steps, on {len(requests)} label maps of the split {splits}."
    picture = figures.dice_against_steps(_CURVE_STEPS, scores, ceiling)
    return results, [Figure("steps", "How many steps?", picture, caption, "model")], textures
