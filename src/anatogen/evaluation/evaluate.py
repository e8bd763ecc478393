"""`anatogen evaluate`: the four questions of the report, on one sample set or run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import DataError, ModelError, SettingsError, nearest
from anatogen.evaluation.sections.base import Section, Subject, blocks
from anatogen.evaluation.sections.faithfulness import Faithfulness
from anatogen.evaluation.sections.generator import freed_figure, steps_curve, variation
from anatogen.evaluation.sections.likeness import Likeness
from anatogen.evaluation.sections.privacy import Privacy
from anatogen.evaluation.sections.realism import Realism
from anatogen.evaluation.sections.utility import utility
from anatogen.evaluation.sections.utility_nnunet import require_for_nnunet, utility_by_nnunet
from anatogen.evaluation.selection import judge_entry, judge_settings, maps_used, selection_of
from anatogen.files import writing
from anatogen.generation.engine import Generator
from anatogen.generation.manifest import Line
from anatogen.generation.plan import check_same_anatomy, requests_from_dataset
from anatogen.generation.sample_set import SampleSet, require_true_maps, write_sample_set
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.of_dataset import encoder_for, segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.labels import ClassStates
from anatogen.progress import stage
from anatogen.reporting.cards import count_entries, data_sheet, model_card
from anatogen.reporting.report import Figure, write_report

QUESTIONS = ("faithfulness", "utility", "realism", "privacy")


@dataclass(frozen=True)
class EvaluationSettings:
    """The judges. segmenter: of faithfulness; encoder: of realism and privacy; usefulness: each training of `utility`.

    utility_seeds: how many trainings of each mixture. real_shares: the mixtures, by the share of real images; see `usefulness`.
    nnunet_epochs: for how long nnU-Net is trained on real, synthetic and both (see `utility_by_nnunet`); None: not at all.
    """

    segmenter: SegmenterSettings = SegmenterSettings()
    encoder: EncoderSettings = EncoderSettings()
    usefulness: SegmenterSettings = field(default_factory=lambda: SegmenterSettings(steps=600))
    utility_seeds: int = 1
    real_shares: tuple[float, ...] = (1.0, 0.0, 1 / 2)
    nnunet_epochs: int | None = None


def evaluate(
    subject: str | Path | Sequence[str | Path],
    dataset: PreparedDataset | str | Path,
    out: str | Path,
    *,
    only: Sequence[str] = QUESTIONS,
    split: str = "test",
    count: int | None = None,
    device: str = "auto",
    settings: EvaluationSettings = EvaluationSettings(),
    command: str = "",
    version: str = "",
    quick: bool = False,
    more_figures: Sequence[Figure] = (),
    run: str | Path | None = None,
) -> dict[str, Any]:
    """Judge a sample set, or a run, against `dataset` and write a report, a model card and a data sheet to `out`.

    subject: a run, which is sampled first, from `split` and, for its usefulness, from the held-out patients; or a sample
    set, or two: one from test maps and one from heldout maps. only: the questions of QUESTIONS to answer. Usefulness is
    left out, with a word on why, where there are no images from heldout maps.
    Returns what report.json holds. run: that made a sample set; without it a folder of its name is looked for beside the set. With a run at hand the report also shows classes freed one
    by one, how they vary with the seed, and the Dice-against-steps curve; `quick` leaves these out. more_figures: shown
    with the examples. Images are read block by block, whatever their count. Raises DataError, ModelError or SettingsError where
    subject and data set do not belong together.
    """
    for name in only:
        if name not in QUESTIONS:
            raise SettingsError(f"there is no question '{name}'", hint=nearest(name, QUESTIONS))
    dataset = dataset if isinstance(dataset, PreparedDataset) else PreparedDataset.open(dataset)
    _require_judge(dataset)
    if len(dataset.size) != 2:
        raise SettingsError("only slices can be evaluated so far", path=dataset.folder, hint="Prepare it with --dim 2")
    if settings.nnunet_epochs is not None:
        if "utility" not in only:
            raise SettingsError("nnU-Net answers for usefulness only", hint="Add utility to --only")
        require_for_nnunet(dataset, settings.nnunet_epochs)
    out = Path(out)
    subjects = [subject] if isinstance(subject, str | Path) else list(subject)
    samples, of_heldout, generator, run = _sets(
        [Path(s) for s in subjects],
        dataset,
        out,
        split,
        count,
        device,
        "utility" in only,
        Path(run) if run is not None else None,
        command,
    )
    if settings.nnunet_epochs is not None:
        if of_heldout is None:
            raise SettingsError(
                "nnU-Net needs images from the held-out patients' maps",
                hint="Give the run, or add the sample set of anatogen sample RUN --masks DATASET --split heldout",
            )
        require_true_maps(of_heldout)
    entries, rows = _entries_and_rows(samples, dataset)
    selection = selection_of(samples)
    of_judge = judge_settings(settings.segmenter, selection)
    judge = segmenter_for(dataset, of_judge, device=device)
    judged = Subject(dataset, samples, entries, rows, judge, generator, device)

    sections: dict[str, Section] = {}
    if "faithfulness" in only:
        sections |= {"faithfulness": Faithfulness(judged), "likeness": Likeness(judged)}
    if {"realism", "privacy"} & set(only):
        encoder = encoder_for(dataset, settings.encoder, device=device)
        sections |= {"realism": Realism(judged, encoder)} if "realism" in only else {}
        sections |= {"privacy": Privacy(judged, encoder)} if "privacy" in only else {}
    for block in blocks(judged) if sections else ():
        for section in sections.values():
            section.add(block)

    results: dict[str, Any] = {
        "n": {"images": len(entries), "patients": len(set(judged.patients()))},
        "split": sorted({row.split for row in rows}) if rows is not None else ["elsewhere"],
        "maps": maps_used(dataset, rows),
        "selection": selection,
        "judge": judge_entry(of_judge, selection),
        "seed": samples.header.request.seed,
        "command": command,
        "version": version,
        "sampling": samples.header.sampling.model_dump(mode="json") if samples.header.sampling else None,
        "model": samples.header.about_model.content(),
        "dataset": {**dataset.info.source, "notice": dataset.info.notice, "cases": len(dataset.info.cases)},
    }
    pages = list(more_figures)
    if generator is not None and not quick:
        pages.append(freed_figure(dataset, judged.test_rows, generator))
        if generator.about.mask_ablation:
            results["variation"], of_seeds = variation(dataset, judged.test_rows, judge, generator)
            pages += of_seeds
        results["dice_against_steps"], of_steps, textures = steps_curve(dataset, judged.test_rows, judge, generator)
        pages += of_steps
        if isinstance(realism := sections.get("realism"), Realism):
            realism.more_curves = textures
    for name, section in sections.items():
        results[name], found = section.finish()
        pages += found
    if "utility" in only and of_heldout is not None:
        chosen = [entry for entry in of_heldout.entries if entry.split == "heldout"]
        seeds = tuple(range(settings.utility_seeds))
        results["utility"], found = utility(
            dataset,
            of_heldout,
            chosen,
            settings.usefulness,
            seeds=seeds,
            real_shares=settings.real_shares,
            device=device,
        )
        results["utility"]["selection"] = selection_of(of_heldout)
        pages += found
        if settings.nnunet_epochs is not None:
            _publish(out, results, pages, samples, dataset, run)  # for nnU-Net can take days
            results["utility"]["nnunet"] = utility_by_nnunet(
                dataset, of_heldout, chosen, out / "nnunet", settings.nnunet_epochs, device=device
            )
    _publish(out, results, pages, samples, dataset, run)
    return results


def _publish(
    out: Path,
    results: dict[str, Any],
    pages: list[Figure],
    samples: SampleSet,
    dataset: PreparedDataset,
    run: Path | None,
) -> None:
    write_report(out, results, pages, dataset.schema)
    _write_cards(out, results, samples, dataset, run)


def _write_cards(
    out: Path, results: dict[str, Any], samples: SampleSet, dataset: PreparedDataset, run: Path | None
) -> None:
    model: dict[str, Any] = {"about": results["model"], "hash": samples.header.model}
    with suppress(OSError, ValueError, yaml.YAMLError):
        if run is None:
            raise FileNotFoundError
        model |= json.loads((run / "model.json").read_text(encoding="utf-8"))
        model["settings"] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    about = {
        **results["dataset"],
        "channels": dataset.info.channels,
        "axis": dataset.info.axis,
        "size": dataset.info.size,
    }
    about["classes"] = [c.name for c in dataset.schema.classes]
    counts = count_entries(samples.entries, samples.selection)
    texts = {
        "model_card.md": model_card(results, model, about),
        "data_sheet.md": data_sheet(results, samples.header, counts),
    }
    for name, text in texts.items():
        with writing(out / name) as path:
            path.write_text(text, encoding="utf-8")


def _sets(
    subjects: list[Path],
    dataset: PreparedDataset,
    out: Path,
    split: str,
    count: int | None,
    device: str,
    useful: bool,
    run: Path | None,
    command: str,
) -> tuple[SampleSet, SampleSet | None, Generator | None, Path | None]:
    """The sample set to judge, the one from heldout maps where there is one, and the generator that made them."""
    if len(subjects) == 1 and (subjects[0] / "model.json").exists():
        generator = Generator.load(subjects[0], device=device)
        check_same_anatomy(generator, dataset)
        samples = _sample(generator, dataset, split, count, out / "samples", command)
        heldout = _sample(generator, dataset, "heldout", count, out / "samples-heldout", command) if useful else None
        return samples, heldout, generator, subjects[0]
    sets = [SampleSet.open(subject) for subject in subjects]
    for samples in sets:
        if samples.schema.names != dataset.schema.names:
            raise SettingsError(
                f"its classes ({', '.join(samples.schema.names)}) are not the data set's ({', '.join(dataset.schema.names)})",
                path=samples.folder,
                hint="Evaluate it against the data set that its label maps are from",
            )
    of_heldout = [s for s in sets if any(e.split == "heldout" and e.elsewhere is None for e in s.entries)]
    others = [s for s in sets if s not in of_heldout]
    if len(others) > 1 or len(of_heldout) > 1:
        raise SettingsError(
            f"{len(sets)} sample sets are too many for one report",
            hint="Give one from test maps and one from heldout maps, and the others a report each",
        )
    main = (others or of_heldout)[0]
    return main, of_heldout[0] if of_heldout else None, *_generator_of(main, device, run)


def _sample(
    generator: Generator, dataset: PreparedDataset, split: str, count: int | None, out: Path, command: str
) -> SampleSet:
    rows = dataset.split(split)
    states = ClassStates.all_given(dataset.schema)
    requests = requests_from_dataset(dataset, rows, states, count=min(count or len(rows), len(rows)))
    with stage(f"sampling {split}", len(requests), "images") as bar:
        return write_sample_set(
            generator,
            requests,
            out,
            command=command or None,
            progress=lambda done, total: bar.update(done),
        )


def _generator_of(samples: SampleSet, device: str, run: Path | None) -> tuple[Generator | None, Path | None]:
    """The generator that made `samples`, and its run: `run`, or one beside the set. None where none is found.

    Raises SettingsError where `run` did not make them.
    """
    for place in samples.runs(run):
        try:
            generator = Generator.load(place, device=device)
        except ModelError:
            if run is not None:
                raise
            continue
        if generator.digest == samples.header.model:
            return generator, place
        if run is not None:
            problem = f"is not the run that made the images of {samples.folder}"
            raise SettingsError(problem, path=run, hint="Name the run that did, or leave out --run")
    return None, None


def _require_judge(dataset: PreparedDataset) -> None:
    """Raises DataError where a data set lacks the splits that the segmenter is trained on."""
    missing = {"heldout", "val"} - {row.split for row in dataset.rows}
    if missing:
        raise DataError(
            f"has no split {' and '.join(sorted(missing))}, which the segmenter needs",
            path=dataset.folder,
            hint="Prepare it again with --split train=70,heldout=15,val=7.5,test=7.5 --ignore-split",
        )


def _entries_and_rows(samples: SampleSet, dataset: PreparedDataset) -> tuple[list[Line], list[Row] | None]:
    """The manifest lines that can be judged, and the data set's row of each: None where all label maps are from elsewhere."""
    elsewhere = [entry for entry in samples.entries if entry.elsewhere is not None]
    if elsewhere:
        return elsewhere, None
    by_place: dict[tuple[str | None, int | None], Row] = {(row.case, row.slice): row for row in dataset.rows}
    pairs = [(entry, by_place.get((entry.case, entry.slice))) for entry in samples.entries]
    found = [(entry, row) for entry, row in pairs if row is not None]
    if not found:
        raise SettingsError(
            "no image of the sample set was made from a label map of this data set", path=samples.folder
        )
    return [entry for entry, _ in found], [row for _, row in found]
