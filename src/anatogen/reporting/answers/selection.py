"""What was left out before anything was measured: images that a gate rejected, label maps that were not chosen."""

from __future__ import annotations

from dataclasses import replace

from anatogen.reporting.answers.base import Answer, capital
from anatogen.reporting.results import Report, SelectionResult
from anatogen.reporting.tables import amount, counted, general, percent
from anatogen.reporting.verdicts import SELECTED_BY_COPIES

LABEL = "after selection"


def selection_in_words(report: Report) -> tuple[str, ...]:
    """Paragraphs for the top of the page and of the cards, none where nothing was left out."""
    paragraphs = []
    if report.real_patients:
        paragraphs.append(
            "Not generated: the evaluated images are training images of real patients, found by nearest-map retrieval. "
            "They are a baseline; every one is a copy."
        )
    paragraphs += [f"Incomplete samples: {each}." for each in report.incomplete]
    if found := report.selection:
        paragraphs.append(_gated(found) + _segmenter(report, found))
    if report.segmenter and report.segmenter.independent_of_training:
        paragraphs.append(
            "A chosen model: while it trained, the weights with the best Dice of validation label maps were kept "
            "(live.best). The segmenter of this report has another seed than the one that chose them; its held-out "
            "patients are the same."
        )
    if report.utility and (of_heldout := report.utility.selection):
        paragraphs.append(f"The images that utility was measured with were selected too. {_gated(of_heldout)}")
    used, of = (report.maps.used, report.maps.of) if report.maps else (None, None)
    if used is not None and of is not None and used < of:
        names = report.split
        of_split = f" of the split{'s' * (len(names) > 1)} {' and '.join(names)}" if names else ""
        paragraphs.append(f"A subset: the images follow {amount(used)} of the {counted(of, 'label map')}{of_split}.")
    return tuple(paragraphs)


def after_selection(answer: Answer, report: Report) -> Answer:
    """`answer`, said to be of selected images where it is."""
    found = report.selection
    if answer.chapter == "utility":
        found = report.utility.selection if report.utility else None
    if not (found and answer.measured):
        return answer
    verdict = f"After selection: {answer.verdict[:1].lower()}{answer.verdict[1:]}"
    if answer.chapter == "privacy" and found.reject_copies is not None:
        verdict += f" {SELECTED_BY_COPIES}"
    tables = tuple(
        replace(table, caption=f"{capital(LABEL)}: {table.caption[:1].lower()}{table.caption[1:]}")
        for table in answer.tables
    )
    return replace(answer, topic=f"{answer.topic} ({LABEL})", verdict=verdict, tables=tables)


def _gated(found: SelectionResult) -> str:
    asked = []
    if found.min_dice is not None:
        asked.append(
            f"images in which a segmenter finds the given classes with a Dice of at least {general(found.min_dice)} "
            "(--min-dice)"
        )
    if found.reject_copies is not None:
        asked.append(
            f"images that lie no nearer to a training image than all but {percent(found.reject_copies)} of unseen "
            "patients' do (--reject-copies)"
        )
    without = found.requests_without_image or 0
    return (
        f"Selected images: a gate kept only {' and '.join(asked) or 'some images'}. "
        f"{counted(found.made, 'image')} were made for {counted(found.requests, 'request')}: "
        f"{amount(found.kept)} kept, {amount(found.rejected)} rejected"
        + (f"; {counted(without, 'request')} ended without an image" if without else "")
        + f". All numbers of these images are {LABEL}: they do not describe everything the model makes."
    )


def _segmenter(report: Report, found: SelectionResult) -> str:
    if found.min_dice is None:
        return ""
    if report.segmenter and report.segmenter.independent_of_gate:
        return (
            " They are evaluated by a segmenter of another seed than the gate's, trained on the same held-out patients."
        )
    return " They are evaluated by the gate's own segmenter."
