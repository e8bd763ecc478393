"""Running the sections of the report over given sample sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from anatogen import __version__
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError, nearest
from anatogen.evaluation.sections.base import Question, Section, not_applicable
from anatogen.evaluation.sections.faithfulness import Faithfulness
from anatogen.evaluation.sections.floors import Floors
from anatogen.evaluation.sections.generator import LeftFree, StepsCurve, Variation
from anatogen.evaluation.sections.membership import Membership
from anatogen.evaluation.sections.privacy import Privacy
from anatogen.evaluation.sections.realism import Realism
from anatogen.evaluation.sections.reconstruction import Reconstruction
from anatogen.evaluation.sections.similarity import Similarity
from anatogen.evaluation.sections.utility import Utility
from anatogen.evaluation.sections.utility_nnunet import NnunetUtility, require_for_nnunet
from anatogen.evaluation.selection import (
    entries_and_rows,
    incomplete,
    maps_used,
    segmenter_choice,
    segmenter_settings,
    selection_of,
    splits_of,
    was_chosen,
    were_edited,
)
from anatogen.evaluation.subject import EvaluationSettings, SampleSets, Subject, blocks
from anatogen.judges.of_dataset import segmenter_for
from anatogen.reporting.report import Figure
from anatogen.reporting.results import AboutDataset, ImageCount, Report
from anatogen.settings import command_of_process

QUESTIONS = tuple(question for question in get_args(Question) if question != "model")
SECTIONS: tuple[type[Section[Any]], ...] = (
    LeftFree,
    Variation,
    StepsCurve,
    Floors,
    Faithfulness,
    Reconstruction,
    Similarity,
    Realism,
    Privacy,
    Membership,
    Utility,
    NnunetUtility,
)
"""In the order in which they are finished."""


@dataclass(frozen=True)
class Evaluated:
    """The report and its figures."""

    report: Report
    figures: tuple[Figure, ...]


def require_evaluable(dataset: PreparedDataset, only: Sequence[str], settings: EvaluationSettings) -> None:
    """Raises SettingsError for an unknown question, or trainings of nnU-Net that cannot be; DataError where `dataset`
    lacks the splits that the segmenter is trained on.
    """
    for name in only:
        if name not in QUESTIONS:
            raise SettingsError(f"there is no question '{name}'", hint=nearest(name, QUESTIONS))
    missing = {"heldout", "val"} - {row.split for row in dataset.rows}
    if missing:
        raise DataError(
            f"has no split {' and '.join(sorted(missing))}, which the segmenter needs",
            path=dataset.folder,
            hint="Prepare it again with --split train=70,heldout=15,val=7.5,test=7.5 --ignore-split",
        )
    if settings.nnunet_epochs is not None:
        if "utility" not in only:
            raise SettingsError("nnU-Net is trained to measure utility only", hint="Add utility to --only")
        require_for_nnunet(dataset, settings.nnunet_epochs)


def subject_of(
    sets: SampleSets,
    dataset: PreparedDataset,
    settings: EvaluationSettings = EvaluationSettings(),
    *,
    device: str = "auto",
    work: Path | None = None,
) -> Subject:
    """What is evaluated, with the auxiliary segmenter trained. work: folder for what takes too long to be done
    twice.
    """
    settings = settings.suiting(dataset.size)
    entries, rows = entries_and_rows(sets.main, dataset)
    selection, chosen, edited = selection_of(sets.main), was_chosen(sets.main), were_edited(entries)
    of_segmenter = segmenter_settings(settings.segmenter, selection, model_chosen=chosen, edited=edited)
    settings = replace(settings, segmenter=of_segmenter)
    segmenter = segmenter_for(dataset, of_segmenter, device=device)
    return Subject(dataset, sets, entries, rows, segmenter, settings, device, work)


def run_sections(
    subject: Subject,
    *,
    only: Sequence[str] = QUESTIONS,
    quick: bool = False,
    command: str = "",
    version: str = "",
    interim: Callable[[Evaluated], None] | None = None,
) -> Evaluated:
    """Run every section that was asked for and is applicable.

    Args:
        subject: What is evaluated.
        only: The questions of QUESTIONS to answer.
        quick: Leave out what the generator itself can do (classes left free, variation, steps).
        command, version: For the record; by default the command of this process and the version of this package.
        interim: Is given what was found before a section that can take days.
    """
    report = _described(subject, command, version)
    running: list[Section[Any]] = []
    reasons: dict[str, str] = {}
    for kind in SECTIONS:
        if not _asked(kind, subject, only, quick):
            continue
        if reason := not_applicable(kind, subject):
            meant = kind is not Similarity or any(entry.similarity is not None for entry in subject.entries)
            if meant and not kind.quiet:
                reasons[kind.name] = reason  # of a set that was not meant to be similar, nothing is to be said
            report = report if kind.without is None else kind.place(report, kind.without)
        else:
            running.append(kind(subject))
    report = report.model_copy(update={"not_applicable": reasons})
    streaming = [section for section in running if section.streams]
    for block in blocks(subject) if streaming else ():
        for section in streaming:
            section.add(block)
    figures: list[Figure] = []
    for section in running:
        if section.takes_days and interim is not None:
            interim(Evaluated(report, tuple(figures)))
        finding = section.finish()
        report = section.place(report, finding.result)
        figures += finding.figures
    return Evaluated(report, tuple(figures))


def _asked(kind: type[Section[Any]], subject: Subject, only: Sequence[str], quick: bool) -> bool:
    if kind.question == "model":
        return not quick
    if kind is NnunetUtility and subject.settings.nnunet_epochs is None:
        return False
    return kind.question in only


def _described(subject: Subject, command: str, version: str) -> Report:
    """The report before anything is measured: which images they are, what made them, and of what."""
    dataset, samples, rows = subject.dataset, subject.samples, subject.rows
    selection, chosen = selection_of(samples), was_chosen(samples)
    about = {**dataset.info.source, "notice": dataset.info.notice, "cases": len(dataset.info.cases)}
    return Report(
        n=ImageCount(images=len(subject.entries), patients=len(set(subject.patients()))),
        split=splits_of(subject.entries, rows),
        maps=maps_used(dataset, rows),
        selection=selection,
        judge=segmenter_choice(subject.settings.segmenter, selection, model_chosen=chosen),
        seed=samples.header.request.seed,
        command=command or command_of_process(),
        version=version or __version__,
        model_digest=samples.header.model,
        sampling=samples.header.sampling,
        model=samples.header.about_model,
        dataset=AboutDataset.model_validate(about),
        **({"real_patients": True} if samples.header.real_patients else {}),
        **({"incomplete": missing} if (missing := incomplete(subject.sets)) else {}),
    )
