"""Workflows under the names and with the arguments that `import anatogen` promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.workflows.evaluate import EvaluateRequest
from anatogen.workflows.evaluate import evaluate as evaluate_request

if TYPE_CHECKING:
    from anatogen.reporting.report import Figure

QUESTIONS = ("faithfulness", "utility", "realism", "privacy")


class EvaluateOptions(TypedDict, total=False):
    """The options of `evaluate`.

    Attributes:
        only: The questions to answer. What is not applicable is left out, and the report says why.
        split: Which label maps to sample, given a run.
        count: How many of each split, given a run.
        device: "auto", "cpu", "cuda", ...
        settings: Of the auxiliary models.
        command: For the record; by default that of this process.
        version: For the record; by default that of this package.
        quick: Leave out what the generator itself can do.
        more_figures: Shown with the examples.
        run: That made a sample set; without it a folder of its name is looked for beside the set.
    """

    only: Sequence[str]
    split: str
    count: int | None
    device: str
    settings: EvaluationSettings
    command: str
    version: str
    quick: bool
    more_figures: Sequence[Figure]
    run: str | Path | None


def evaluate(
    subject: str | Path | Sequence[str | Path],
    dataset: PreparedDataset | str | Path,
    out: str | Path,
    **options: Unpack[EvaluateOptions],
) -> dict[str, Any]:
    """Evaluate a sample set, or a run, against `dataset` and write a report, a model card and a data sheet to `out`.

    With the run at hand the report also shows classes left free one by one, how they vary with the seed, and Dice
    against solver steps. Images are read block by block, whatever their count.

    Args:
        subject: A run, which is sampled first, from `split` and, for utility, from the held-out patients; or a sample
            set, or two: one from test maps and one from heldout maps.
        dataset: The prepared data set.
        out: Folder for the report.
        **options: See `EvaluateOptions`.

    Returns:
        What report.json holds.

    Raises:
        DataError, ModelError, SettingsError: Subject and data set do not belong together.
    """
    if unknown := sorted(set(options) - set(EvaluateOptions.__annotations__)):
        raise TypeError(f"evaluate() got an unexpected keyword argument '{unknown[0]}'")
    subjects = [subject] if isinstance(subject, str | Path) else list(subject)
    run = options.get("run")
    request = EvaluateRequest(
        subjects=tuple(Path(each) for each in subjects),
        dataset=dataset if isinstance(dataset, PreparedDataset) else Path(dataset),
        out=Path(out),
        only=tuple(options.get("only", QUESTIONS)),
        split=options.get("split", "test"),
        count=options.get("count"),
        run=Path(run) if run is not None else None,
        settings=options.get("settings"),
        quick=options.get("quick", False),
        figures=tuple(options.get("more_figures", ())),
        device=options.get("device", "auto"),
        command=options.get("command", ""),
        version=options.get("version", ""),
    )
    return evaluate_request(request).report.content()
