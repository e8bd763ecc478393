"""Which images of a sample set are judged: what a gate kept of those that were made, and how many label maps they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.sample_set import SampleSet
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.seeds import derive_seed


def selection_of(samples: SampleSet) -> dict[str, Any] | None:
    """What the gate of `samples` asked for, and how many images were made, kept and rejected; None where there was no gate.

    Images are counted, and not requests: a request can have several rejected images, and then one that is kept or none.
    """
    selection = samples.selection
    if (gate := selection.gate) is None:
        return None
    return {
        "min_dice": gate.min_dice,
        "reject_copies": gate.reject_copies.level if gate.reject_copies is not None else None,
        "retries": gate.retries,
        "made": selection.made,
        "kept": selection.kept,
        "rejected": selection.rejected,
        "requests": selection.kept + selection.given_up,
        "requests_without_image": selection.given_up,
    }


def judge_settings(settings: SegmenterSettings, selection: dict[str, Any] | None) -> SegmenterSettings:
    """`settings`, with a seed derived from theirs where a segmenter chose the images: a gate may not judge its own work.

    What differs are the first weights and the order of the images; the patients that it is trained on stay the same.
    """
    if selection is None or selection["min_dice"] is None:
        return settings
    return replace(settings, seed=derive_seed("judge of a gated set", settings.seed) % 2**31)


def judge_entry(settings: SegmenterSettings, selection: dict[str, Any] | None) -> dict[str, Any]:
    """`judge` of report.json: the seed of the segmenter; of a set that a segmenter's gate chose, that it is another one."""
    gated = selection is not None and selection["min_dice"] is not None
    return {"seed": settings.seed, **({"independent_of_gate": True} if gated else {})}


def maps_used(dataset: PreparedDataset, rows: Sequence[Row] | None) -> dict[str, int] | None:
    """How many of the label maps of their splits the images follow; None where the maps are from elsewhere."""
    if rows is None:
        return None
    splits = {row.split for row in rows}
    return {"used": len({row.id for row in rows}), "of": sum(row.split in splits for row in dataset.rows)}
