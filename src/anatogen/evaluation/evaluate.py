"""`anatogen evaluate`: the segmenter's judgement, the figures and the report of one sample set or run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.errors import DataError, ModelError, SettingsError
from anatogen.evaluation import figures
from anatogen.evaluation.faithfulness import bootstrap_mean, class_means, dice_by_group
from anatogen.evaluation.realism import power_ratio
from anatogen.evaluation.report import Figure, write_report
from anatogen.evaluation.segmenter import Segmenter, SegmenterSettings, train_segmenter
from anatogen.generation.engine import Generator
from anatogen.generation.request import Request, requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.labels import ClassStates
from anatogen.runtime import Progress, pick_device

_CURVE_STEPS = (2, 4, 8, 16, 32)
_CURVE_IMAGES = 48
_GRID_ROWS = 8


def evaluate(
    subject: str | Path,
    dataset: PreparedDataset | str | Path,
    out: str | Path,
    *,
    split: str = "test",
    count: int | None = None,
    device: str = "auto",
    segmenter_settings: SegmenterSettings | None = None,
    command: str = "",
    version: str = "",
    quick: bool = False,
    more_figures: Sequence[Figure] = (),
) -> dict[str, Any]:
    """Judge a sample set, or a run (whose `split` is sampled first), against `dataset` and write a report to `out`.

    Returns what report.json holds. With a run at hand (named in the sample set) the report also shows classes freed one
    by one and the Dice-against-steps curve; `quick` leaves these two out. more_figures: shown after the examples. Raises DataError, ModelError or SettingsError
    where subject and data set do not belong together.
    """
    dataset = dataset if isinstance(dataset, PreparedDataset) else PreparedDataset.open(dataset)
    _require_judge(dataset)
    if len(dataset.size) != 2:
        raise SettingsError(
            "only slices can be evaluated so far", path=dataset.folder, remedy="Prepare it with --dim 2"
        )
    out = Path(out)
    samples, generator = _samples_and_generator(Path(subject), dataset, out, split, count, device)
    rows, chosen = _rows_of(samples, dataset)
    if not rows:
        raise SettingsError(
            "no image of the sample set was made from a label map of this data set", path=samples.folder
        )
    real = dataset.load(rows)
    segmenter = segmenter_for(dataset, segmenter_settings, device=device)

    generated = samples.images()[chosen]
    counted = samples.given()[chosen] & real.annotated.numpy()
    judged = _Judged(generated, segmenter(generated), real, segmenter(real.images), counted)
    groups = np.array([row.patient for row in rows])
    classes = dataset.schema.count
    faithfulness = {
        "dice_gen_map": _summary(dataset, dice_by_group(judged.found, judged.asked, groups, classes, counted)),
        "dice_gen_real": _summary(dataset, dice_by_group(judged.found, judged.found_in_real, groups, classes, counted)),
        "dice_real_map": _summary(dataset, dice_by_group(judged.found_in_real, judged.asked, groups, classes, counted)),
    }
    ratio = power_ratio(generated, real.images.numpy())
    results: dict[str, Any] = {
        "n": {"images": len(rows), "patients": len(set(groups))},
        "split": sorted({row.split for row in rows}),
        "command": command,
        "version": version,
        "faithfulness": faithfulness,
        "realism": {"power_ratio": ratio.round(4).tolist()},
        "sampling": samples.header["sampling"],
        "model": samples.header.get("about_model", {}),
        "dataset": {**dataset.info.source, "notice": dataset.info.notice, "cases": len(dataset.info.cases)},
    }
    pages = [_examples_figure(dataset, judged, rows), *more_figures]
    curves = {f"{samples.header['sampling']['steps']} steps": ratio}
    if generator is not None and not quick:
        pages.append(_freed_figure(dataset, generator, rows))
        curve, textures = _curve(dataset, generator, rows, segmenter)
        results["dice_against_steps"] = curve
        curves |= textures
        ceiling = curve["ceiling"]
        picture = figures.dice_against_steps(curve["steps"], curve["dice"], ceiling)
        caption = f"Dice(m_gen, m) against solver steps, on {curve['n']} label maps of the split {' and '.join(results['split'])}."
        pages.append(Figure("steps", "How many steps?", picture, caption))
    texture = (
        "Power of generated over real images in rings of spatial frequency. 1 is right, below is too smooth, above too "
        "noisy. Dice does not see it."
    )
    pages.append(Figure("power", "Is the texture right?", figures.power_against_frequency(curves), texture))
    write_report(out, results, pages, dataset.schema)
    return results


@dataclass(frozen=True)
class _Judged:
    """Images and what the segmenter finds in them; the label maps asked for; counted: where a class counts."""

    generated: NDArray[np.float32]
    found: NDArray[np.int64]
    real: Batch
    found_in_real: NDArray[np.int64]
    counted: NDArray[np.bool_]

    @property
    def asked(self) -> NDArray[np.int64]:
        return self.real.labels.numpy()


def _samples_and_generator(
    subject: Path, dataset: PreparedDataset, out: Path, split: str, count: int | None, device: str
) -> tuple[SampleSet, Generator | None]:
    if (subject / "model.json").exists():
        generator = Generator.load(subject, device=device)
        check_same_anatomy(generator, dataset)
        rows = dataset.split(split)
        states = ClassStates.all_given(dataset.schema)
        requests = requests_from_dataset(dataset, rows, states, count=min(count or len(rows), len(rows)))
        with Progress("sampling", len(requests), "images") as bar:
            samples = write_sample_set(
                generator,
                requests,
                out / "samples",
                about={"run": str(subject.resolve()), "about_model": generator.about},
                progress=lambda done, total: bar.update(done),
            )
        return samples, generator
    samples = SampleSet.open(subject)
    if samples.schema.names != dataset.schema.names:
        raise SettingsError(
            f"its classes ({', '.join(samples.schema.names)}) are not the data set's ({', '.join(dataset.schema.names)})",
            path=subject,
            remedy="Evaluate it against the data set that its label maps are from",
        )
    return samples, _generator_of(samples, device)


def _generator_of(samples: SampleSet, device: str) -> Generator | None:
    """The generator that made `samples`, if its run is still there and has not changed."""
    try:
        generator = Generator.load(samples.header["run"], device=device)
    except (KeyError, ModelError):
        return None
    return generator if generator.model_hash == samples.header["model"] else None


def check_same_anatomy(generator: Generator, dataset: PreparedDataset) -> None:
    """Raises SettingsError where a model and a data set differ in classes, image size or channels."""
    if generator.schema.names != dataset.schema.names:
        ours, theirs = ", ".join(generator.schema.names), ", ".join(dataset.schema.names)
        raise SettingsError(f"the model knows the classes {ours}, the data set has {theirs}", path=dataset.folder)
    if generator.size != dataset.size or generator.denoiser.config.image_channels != dataset.channels:
        raise SettingsError(
            f"the model makes images of {generator.size}, the data set has {dataset.size}",
            path=dataset.folder,
            remedy="Prepare the data with the size that the model was trained on",
        )


def _require_judge(dataset: PreparedDataset) -> None:
    """Raises DataError where a data set lacks the splits that the segmenter is trained on."""
    missing = {"heldout", "val"} - {row.split for row in dataset.rows}
    if missing:
        raise DataError(
            f"has no split {' and '.join(sorted(missing))}, which the segmenter needs",
            path=dataset.folder,
            remedy="Prepare it again with --split train=70,heldout=15,val=7.5,test=7.5 --ignore-split",
        )


def _rows_of(samples: SampleSet, dataset: PreparedDataset) -> tuple[list[Row], list[int]]:
    """The data set's row of each image, and the places of the images that have one."""
    by_place = {(row.case, row.slice): row for row in dataset.rows}
    found = [(by_place.get((e.get("case"), e.get("slice"))), i) for i, e in enumerate(samples.entries)]  # type: ignore[arg-type]
    pairs = [(row, i) for row, i in found if row is not None]
    return [row for row, _ in pairs], [i for _, i in pairs]


def segmenter_for(
    dataset: PreparedDataset, settings: SegmenterSettings | None = None, *, device: str = "auto"
) -> Segmenter:
    """The judge of `dataset`, trained on its split "heldout", chosen on "val" and kept in its folder."""
    settings = settings or SegmenterSettings()

    def part(split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = dataset.load(dataset.split(split))
        return batch.images, batch.labels, batch.annotated

    with Progress("training the segmenter", settings.steps, "steps") as bar:
        return train_segmenter(
            part("heldout"),
            part("val"),
            dataset.schema.count,
            settings,
            device=pick_device(device),
            cache=dataset.folder,
            progress=lambda done, total, text: bar.update(done, text),
        )


def _summary(dataset: PreparedDataset, scores: NDArray[np.float64]) -> dict[str, Any]:
    mean, interval = bootstrap_mean(scores)
    per_class = dict(zip(dataset.schema.names, map(float, class_means(scores, axis=0)), strict=True))
    return {"mean": mean, "per_class": per_class, "ci95": list(interval)}


def _spread(rows: Sequence[Row], count: int) -> list[int]:
    """Places of `count` rows, one patient after the other, each near the middle of its slices."""
    by_patient: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_patient.setdefault(row.patient, []).append(place)
    order = [places[len(places) * k // 8] for k in (4, 2, 6, 1, 5, 3, 7, 0) for places in by_patient.values()]
    return sorted(list(dict.fromkeys(order))[:count])


def _examples_figure(dataset: PreparedDataset, judged: _Judged, rows: list[Row]) -> Figure:
    lines = []
    for i in _spread(rows, _GRID_ROWS):
        asked, schema = judged.asked[i], dataset.schema
        lines.append(
            [
                (f"map: {rows[i].id}", figures.coloured(asked, schema)),
                ("real", figures.gray(judged.real.images[i].numpy())),
                ("generated", figures.gray(judged.generated[i])),
                ("generated, map outlined", figures.outlined(judged.generated[i], asked, schema)),
                ("found in generated", figures.coloured(judged.found[i], schema)),
            ]
        )
    caption = (
        "Label map, the real image it was drawn on, an image generated from the map alone, the same with the map's outlines, "
        "and what the segmenter finds in it. One slice a patient first, none chosen by its quality."
    )
    return Figure("examples", "Do the images follow the maps?", figures.grid(lines), caption)


def _freed_figure(dataset: PreparedDataset, generator: Generator, rows: list[Row]) -> Figure:
    """Each line: one map; everything given, then each class freed by itself, then all of them. The seed stays."""
    schema, batch = dataset.schema, dataset.load([rows[i] for i in _spread(rows, 4)])
    freed = [(), *((name,) for name in schema.names[:6]), *([schema.names] if len(schema.names) > 1 else [])]
    lines = []
    for labels, row in zip(batch.labels.numpy(), batch.rows, strict=True):
        requests = [Request(str(i), labels, schema.states(free=list(names)), seed=0) for i, names in enumerate(freed)]
        pictures = []
        for names, (_, image) in zip(freed, generator.generate(requests), strict=True):
            title = "all given" if not names else "all free" if names == schema.names else f"{names[0]} free"
            pictures.append((title, figures.gray(image)))
        lines.append([(f"map: {row.id}", figures.coloured(labels, schema)), *pictures])
    caption = "Classes left free, one by one: the model infers them. Every image of a line starts from the same noise."
    if not generator.about.get("mask_ablation", False):
        caption += " This run was trained without mask ablation, so it has never seen a free class: train with --mask-ablation."
    return Figure("freed", "What if a class is left free?", figures.grid(lines), caption)


def _curve(
    dataset: PreparedDataset, generator: Generator, rows: list[Row], segmenter: Segmenter
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    chosen = [rows[i] for i in _spread(rows, _CURVE_IMAGES)]
    states = ClassStates.all_given(dataset.schema)
    requests = requests_from_dataset(dataset, chosen, states, seed=1)
    real = dataset.load(chosen)
    groups = np.array([row.patient for row in chosen])
    counted = real.annotated.numpy()

    def dice(images: NDArray[np.float32]) -> float:
        found = segmenter(images)
        return bootstrap_mean(
            dice_by_group(found, real.labels.numpy(), groups, dataset.schema.count, counted), draws=1
        )[0]

    scores, textures = [], {}
    with Progress("Dice against steps", len(_CURVE_STEPS) * len(requests), "images") as bar:
        for steps in _CURVE_STEPS:
            images = []
            for _, image in generator.generate(requests, generator.with_settings(steps=steps)):
                images.append(image)
                bar.advance()
            scores.append(dice(np.stack(images)))
            if steps in (4, 32):
                textures[f"{steps} steps"] = power_ratio(np.stack(images), real.images.numpy())
    curve = {"steps": list(_CURVE_STEPS), "dice": scores, "ceiling": dice(real.images.numpy()), "n": len(requests)}
    return curve, textures
