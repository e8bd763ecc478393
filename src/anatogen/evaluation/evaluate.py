"""`anatogen evaluate`: the segmenter's judgement, the figures and the report of one sample set or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, ModelError, SettingsError
from anatogen.evaluation.report import Figure, write_report
from anatogen.evaluation.sections.base import Subject, blocks
from anatogen.evaluation.sections.faithfulness import Faithfulness
from anatogen.evaluation.sections.generator import freed_figure, steps_curve, variation
from anatogen.evaluation.sections.likeness import Likeness
from anatogen.evaluation.sections.realism import Texture
from anatogen.evaluation.segmenter import Segmenter, SegmenterSettings, train_segmenter
from anatogen.generation.engine import Generator
from anatogen.generation.request import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.labels import ClassStates
from anatogen.runtime import Progress, pick_device


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
    by one, how they vary with the seed, and the Dice-against-steps curve; `quick` leaves these out. more_figures: shown
    after the examples. Images are read block by block, whatever their count. Raises DataError, ModelError or SettingsError where
    subject and data set do not belong together.
    """
    dataset = dataset if isinstance(dataset, PreparedDataset) else PreparedDataset.open(dataset)
    _require_judge(dataset)
    if len(dataset.size) != 2:
        raise SettingsError(
            "only slices can be evaluated so far", path=dataset.folder, remedy="Prepare it with --dim 2"
        )
    out = Path(out)
    samples, generator = _samples_and_generator(Path(subject), dataset, out, split, count, device)
    entries, rows = _entries_and_rows(samples, dataset)
    judge = segmenter_for(dataset, segmenter_settings, device=device)
    judged = Subject(dataset, samples, entries, rows, judge, generator, device)

    faithfulness, texture, likeness = Faithfulness(judged), Texture(judged), Likeness(judged)
    for block in blocks(judged):
        for section in (faithfulness, texture, likeness):
            section.add(block)
    results: dict[str, Any] = {
        "n": {"images": len(entries), "patients": len(set(judged.patients()))},
        "split": sorted({row.split for row in rows}) if rows is not None else ["elsewhere"],
        "command": command,
        "version": version,
        "sampling": samples.header["sampling"],
        "model": samples.header.get("about_model", {}),
        "dataset": {**dataset.info.source, "notice": dataset.info.notice, "cases": len(dataset.info.cases)},
    }
    results["faithfulness"], pages = faithfulness.finish()
    pages = [*pages[:1], *more_figures, *pages[1:]]
    results["likeness"], figures_of_likeness = likeness.finish()
    pages += figures_of_likeness
    if generator is not None and not quick:
        pages.append(freed_figure(dataset, judged.test_rows, generator))
        if generator.about.get("mask_ablation", False):
            results["variation"], of_seeds = variation(dataset, judged.test_rows, judge, generator)
            pages += of_seeds
        results["dice_against_steps"], of_steps, texture.more_curves = steps_curve(
            dataset, judged.test_rows, judge, generator
        )
        pages += of_steps
    results["realism"], of_texture = texture.finish()
    write_report(out, results, pages + of_texture, dataset.schema)
    return results


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
    channels = generator.denoiser.config.image_channels
    if channels != dataset.channels:
        raise SettingsError(
            f"the model makes images of {channels} channels, the data set has {dataset.channels}",
            path=dataset.folder,
            remedy="Use a model that was trained on such images",
        )
    if generator.size != dataset.size:
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


def _entries_and_rows(samples: SampleSet, dataset: PreparedDataset) -> tuple[list[dict[str, Any]], list[Row] | None]:
    """The manifest lines that can be judged, and the data set's row of each: None where all label maps are from elsewhere."""
    elsewhere = [entry for entry in samples.entries if "elsewhere" in entry]
    if elsewhere:
        return elsewhere, None
    by_place = {(row.case, row.slice): row for row in dataset.rows}
    pairs = [(entry, by_place.get((entry.get("case"), entry.get("slice")))) for entry in samples.entries]  # type: ignore[arg-type]
    found = [(entry, row) for entry, row in pairs if row is not None]
    if not found:
        raise SettingsError(
            "no image of the sample set was made from a label map of this data set", path=samples.folder
        )
    return [entry for entry, _ in found], [row for _, row in found]


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
