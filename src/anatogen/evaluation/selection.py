"""Which images of a sample set are evaluated: what a gate kept of those that were made, and how many label maps they
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import SettingsError
from anatogen.evaluation.subject import SampleSets
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, said_of_unfinished
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.reporting.results import MapsUsed, SegmenterChoice, SelectionResult
from anatogen.seeds import derive_seed


def entries_and_rows(samples: SampleSet, dataset: PreparedDataset) -> tuple[list[Line], list[Row] | None]:
    """The manifest lines that can be evaluated, and the data set's row of each:

    None where all label maps are from elsewhere, or were edited: no real image has such a map.

    Raises SettingsError where no image follows a label map of `dataset`.
    """
    elsewhere = [entry for entry in samples.entries if entry.elsewhere is not None or entry.edit is not None]
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


def selection_of(samples: SampleSet) -> SelectionResult | None:
    """What the gate of `samples` asked for, and how many images were made, kept and rejected;

    None where there was no gate.

    Images are counted, and not requests: a request can have several rejected images, and then one that is kept or none.
    """
    selection = samples.selection
    if (gate := selection.gate) is None:
        return None
    return SelectionResult(
        min_dice=gate.min_dice,
        reject_copies=gate.reject_copies.level if gate.reject_copies is not None else None,
        retries=gate.retries,
        made=selection.made,
        kept=selection.kept,
        rejected=selection.rejected,
        requests=selection.kept + selection.given_up,
        requests_without_image=selection.given_up,
    )


def segmenter_settings(
    settings: SegmenterSettings, selection: SelectionResult | None, *, model_chosen: bool = False, edited: bool = False
) -> SegmenterSettings:
    """`settings`, with a seed derived from theirs where a segmenter chose the images, or the model (`live.best`): what
    chose may not evaluate its own work.

    What differs are the first weights and the order of the images; the patients that it is trained on stay the same.
    Where label maps were edited, it is trained on warped images too: one that saw real shapes only finds about half
    of a growth, in right images too.
    """
    if edited:
        settings = settings.for_edited_maps()
    if not model_chosen and (selection is None or selection.min_dice is None):
        return settings
    return replace(settings, seed=derive_seed("judge of a gated set", settings.seed) % 2**31)


def segmenter_choice(
    settings: SegmenterSettings, selection: SelectionResult | None, *, model_chosen: bool = False
) -> SegmenterChoice:
    """The seed of the segmenter; where another one chose the images or the model, that it is not that one; which share
    of the images that it learns from is warped.
    """
    independent: dict[str, Any] = {"warped": settings.warped} if settings.warped else {}
    if selection is not None and selection.min_dice is not None:
        independent["independent_of_gate"] = True
    if model_chosen:
        independent["independent_of_training"] = True
    return SegmenterChoice(seed=settings.seed, **independent)


def splits_of(entries: Sequence[Line], rows: Sequence[Row] | None) -> tuple[str, ...]:
    """The splits of the rows; without rows "edited" for maps of the model's own data set, else "elsewhere"."""
    if rows is not None:
        return tuple(sorted({row.split for row in rows}))
    own = all(entry.elsewhere is None for entry in entries)
    return ("edited",) if own and were_edited(entries) else ("elsewhere",)


def were_edited(entries: Sequence[Line]) -> bool:
    """Whether the label maps of some images were edited."""
    return any(entry.edits for entry in entries)


def incomplete(sets: SampleSets) -> tuple[str, ...]:
    """What the sample sets lack, as far as it is known: shards that are not finished."""
    every = [sets.main] if sets.heldout in (None, sets.main) else [sets.main, sets.heldout]
    return tuple(said_of_unfinished(missing) for each in every if each is not None and (missing := each.unfinished))


def was_chosen(samples: SampleSet) -> bool:
    """Whether the weights of the model were chosen by a segmenter while it trained."""
    return samples.header.about_model.selected_step is not None


def maps_used(dataset: PreparedDataset, rows: Sequence[Row] | None) -> MapsUsed | None:
    """How many of the label maps of their splits the images follow; None where the maps are from elsewhere."""
    if rows is None:
        return None
    splits = {row.split for row in rows}
    return MapsUsed(used=len({row.id for row in rows}), of=sum(row.split in splits for row in dataset.rows))
