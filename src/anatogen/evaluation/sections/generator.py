"""What only the generator itself can show: classes left free, how they vary, and what more steps bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.needs import free_classes, seeds, solver_steps, trained_with_free_classes
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, spread
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.segmenter import Segmenter
from anatogen.labels import LabelSchema
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.metrics.texture import power_ratio
from anatogen.metrics.variation import seed_variation
from anatogen.model import HasSteps, ImageModel, Query
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Report, StepsResult, VariationResult
from anatogen.reporting.tables import ratio
from anatogen.seeds import derive_seed

_CURVE_STEPS = (2, 4, 8, 16, 32)
_CURVE_IMAGES = 48
_VARIATION_MAPS, _VARIATION_SEEDS, _VARIATION_CLASSES = 12, 4, 8
_CLASSES_SHOWN = 6
_SEEDS_SHOWN = 6


class LeftFree(Section[None]):
    """A figure: a map a line; everything given, then each class left free by itself, then all of them.

    The seed stays.
    """

    name: ClassVar[str] = "left_free"
    question: ClassVar[Question] = "model"
    needs: ClassVar[tuple[Need, ...]] = (free_classes,)

    def finish(self) -> Finding[None]:
        """The figure."""
        dataset, rows, generator = self.subject.dataset, self.subject.test_rows, self.subject.required_generator
        schema, batch = dataset.schema, dataset.load([rows[i] for i in spread(rows, 4)])
        free = [(), *((name,) for name in schema.names[:_CLASSES_SHOWN])]
        free += [schema.names] if len(schema.names) > 1 else []
        spacing, lines = self.subject.samples.header.about_model.spacing_mm, []
        for labels, row in zip(batch.labels.numpy(), batch.rows, strict=True):
            requests = [Query(labels, schema.states(free=list(names)), 0) for names in free]
            pictures, view = [], figures.view_of(labels, spacing)
            for names, (_, image) in zip(free, generator.generate(requests), strict=True):
                title = "all given" if not names else "all free" if names == schema.names else f"{names[0]} free"
                pictures.append((title, figures.gray(image, view)))
            lines.append([(f"map: {row.id}", figures.coloured(labels, schema, view)), *pictures])
        caption = (
            "Classes left free, one by one: the model infers them. Every image of a line starts from the same noise."
        )
        if trained_with_free_classes(self.subject):
            caption += " This run was trained without mask ablation, so it has never seen a free class: "
            caption += "train with --mask-ablation."
        return Finding(
            None, [Figure("left_free", "What if a class is left free?", figures.grid(lines), caption, "model")]
        )

    @classmethod
    def place(cls, report: Report, result: None) -> Report:  # noqa: ARG003
        """`report` as it is: nothing is measured."""
        return report


class Variation(Section[VariationResult]):
    """How much each class differs between seeds, given and left free; see `variation`."""

    name: ClassVar[str] = "variation"
    question: ClassVar[Question] = "model"
    needs: ClassVar[tuple[Need, ...]] = (trained_with_free_classes, seeds)

    def finish(self) -> Finding[VariationResult]:
        """The measures, and images of several seeds."""
        subject = self.subject
        return variation(subject.dataset, subject.test_rows, subject.segmenter, subject.required_generator)


@dataclass(frozen=True)
class _Seeds:
    """Images (maps x seeds, C, H, W) of some maps (maps, H, W), and what the segmenter found in them (maps, seeds, H,
    W).
    """

    maps: NDArray[np.int64]
    images: NDArray[np.float32]
    found: NDArray[np.int64]

    def apart(self, schema: LabelSchema, index: int) -> float:
        """1 - Dice of a class between two seeds, the mean over maps."""
        return float(class_means(seed_variation(self.found, schema.count)[:, index - 1], axis=0))


def variation(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    segmenter: Segmenter,
    generator: ImageModel,
    *,
    maps: int = _VARIATION_MAPS,
    seeds: int = _VARIATION_SEEDS,
) -> Finding[VariationResult]:
    """How much each class differs between seeds, given and free: `seed_variation` on `maps` maps that show the class.

    Two figures: images of one map from several seeds with a class free, and with it given.
    """
    schema = dataset.schema
    names = schema.names[:_VARIATION_CLASSES]
    apart: dict[str, dict[str, float | None]] = {"given": {}, "free": {}}
    count: dict[str, int] = {}
    most, shown = -np.inf, list[Figure]()
    with stage("seeds apart", len(names), "classes") as bar:
        for c, name in enumerate(names, start=1):
            chosen = _maps_with(dataset, rows, c, maps)
            if chosen:
                made = {}
                for kind, states in (("given", schema.states()), ("free", schema.states(free=[name]))):
                    requests = requests_from_dataset(
                        dataset, chosen, states, seed=derive_seed("apart", 0), per_mask=seeds
                    )
                    images = np.stack([image for _, image in generator.generate(requests)])
                    found = segmenter(images).reshape(len(chosen), seeds, *dataset.size)
                    made[kind] = _Seeds(dataset.load(chosen).labels.numpy(), images, found)
                values = {kind: each.apart(schema, c) for kind, each in made.items()}
                for kind, value in values.items():
                    apart[kind][name] = value
                count[name] = len(chosen)
                if (gap := values["free"] - values["given"]) > most:
                    most = gap
                    shown = [_seeds_figure(dataset, name, kind, each, values[kind]) for kind, each in made.items()]
            bar.advance()
    return Finding(VariationResult(given=apart["given"], free=apart["free"], maps=count, seeds=seeds), shown)


def _maps_with(dataset: PreparedDataset, rows: Sequence[Row], index: int, most: int) -> list[Row]:
    """At most `most` rows whose label map shows the class, on 8 pixels or more."""
    name = dataset.schema.names[index - 1]
    annotated = [row for row in rows if name in row.annotated]
    drawn = [row for row in annotated if (dataset.load([row]).labels == index).sum() >= 8]
    return [drawn[i] for i in spread(drawn, most)]


def _seeds_figure(dataset: PreparedDataset, name: str, kind: str, made: _Seeds, value: float) -> Figure:
    schema, spacing = dataset.schema, typical_spacing(dataset)
    index = schema.index_of(name)
    maps, seeds = made.found.shape[:2]
    sizes = (made.maps == index).reshape(maps, -1).sum(axis=1)
    lines = []
    for m in np.argsort(-sizes)[:3]:
        view = figures.view_of(made.maps[m] == index, spacing)
        line = [("map", figures.coloured(made.maps[m], schema, view))]
        for s in range(min(seeds, _SEEDS_SHOWN)):
            only = np.where(made.found[m, s] == index, index, 0)
            line.append((f"seed {s}", figures.outlined(made.images[m * seeds + s], only, schema, view)))
        lines.append(line)
    caption = (
        f"One label map a line, only the seed differs; outlined is where the segmenter finds {name}, which was "
        f"{'left free' if kind == 'free' else 'given'}. "
        f"Between two seeds it differs by {ratio(value)} (1 - Dice, mean over {maps} maps and {seeds} seeds)."
    )
    heading = "A free class varies with the seed" if kind == "free" else "A given class does not"
    return Figure(f"seeds_{kind}", heading, figures.grid(lines), caption, "model")


class StepsCurve(Section[StepsResult]):
    """Dice(m_gen, m) against solver steps; the power ratios at few and at many steps are left to realism's figure."""

    name: ClassVar[str] = "dice_against_steps"
    question: ClassVar[Question] = "model"
    needs: ClassVar[tuple[Need, ...]] = (solver_steps,)

    def finish(self) -> Finding[StepsResult]:
        """The curve and its plot."""
        dataset, rows, generator = self.subject.dataset, self.subject.test_rows, self.subject.required_generator
        if not isinstance(generator, HasSteps):
            raise ValueError("this section needs a generator with solver steps")
        chosen = [rows[i] for i in spread(rows, _CURVE_IMAGES)]
        requests = requests_from_dataset(dataset, chosen, dataset.schema.states(), seed=1)
        real = dataset.load(chosen)
        groups, counted = np.array([row.patient for row in chosen]), real.annotated.numpy()

        def dice(images: NDArray[np.float32]) -> float:
            found = self.subject.segmenter(images)
            scores = dice_by_group(found, real.truth.numpy(), groups, dataset.schema.count, counted)
            return float(class_means(class_means(scores, axis=0), axis=0))

        scores = []
        with stage("Dice against steps", len(_CURVE_STEPS) * len(requests), "images") as bar:
            for steps in _CURVE_STEPS:
                images = []
                stepping = generator.sampling_with(generator.with_settings(steps=steps))
                for _, image in stepping.generate(requests):
                    images.append(image)
                    bar.advance()
                scores.append(dice(np.stack(images)))
                if steps in (4, 32):
                    self.subject.power_curves[f"{steps} steps"] = power_ratio(np.stack(images), real.images.numpy())
        ceiling = dice(real.images.numpy())
        result = StepsResult(steps=_CURVE_STEPS, dice=tuple(scores), ceiling=ceiling, n=len(requests))
        splits = " and ".join(sorted({row.split for row in chosen}))
        caption = f"Dice(m_gen, m) against solver steps, on {len(requests)} label maps of the split {splits}."
        picture = figures.dice_against_steps(_CURVE_STEPS, scores, ceiling)
        return Finding(result, [Figure("steps", "How many steps?", picture, caption, "model")])
