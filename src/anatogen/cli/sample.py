"""anatogen sample"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from anatogen.cli.common import (
    device_option,
    eta_option,
    guarded,
    overview_of,
    sampling_about,
    solver_option,
    split_names,
    steps_option,
)

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.engine import Generator
    from anatogen.generation.rejection import Gate, Outcome
    from anatogen.generation.request import Requests
    from anatogen.generation.sample_set import SampleSet
    from anatogen.labels import ClassStates

_RETRIES = 3


@guarded
def sample(
    run: Path = typer.Argument(help="A run."),
    masks: Path = typer.Option(..., help="Where the label maps are: a prepared data set, or a folder of PNG or NPY."),
    out: Path = typer.Option(..., help="Folder for the sample set; an unfinished one is finished."),
    split: str = typer.Option("test", help="Which label maps of the data set."),
    given: str | None = typer.Option(None, metavar="A,B", help="Classes that are obeyed; the others are free."),
    free: str | None = typer.Option(None, metavar="A,B", help="Classes that the model infers; the others are given."),
    absent: str | None = typer.Option(
        None, metavar="A,B", help="Classes erased from the label maps, and obeyed: none there."
    ),
    combine: str | None = typer.Option(
        None, metavar="A,B|all", help="Every combination of these classes given or free, with a labelled grid."
    ),
    paired: bool = typer.Option(
        False, "--paired", help="Keep the real image of each label map beside the generated one, in folder real."
    ),
    per_mask: int = typer.Option(1, min=1, help="Images for each label map."),
    count: int | None = typer.Option(
        None, min=1, help="Images in all, spread over the label maps, --per-mask of each."
    ),
    rename: list[str] = typer.Option(
        [], "--rename", metavar="OURS=THEIRS", help="A class that another data set calls otherwise: liver=liver+tumour."
    ),
    fit: str = typer.Option("crop", help="Label maps of another geometry: crop to the field of view, or pad (shrink)."),
    solver: str | None = solver_option,
    steps: int | None = steps_option,
    eta: float | None = eta_option,
    seed: int = typer.Option(0, help="The same seed gives the same images."),
    format: str = typer.Option(
        "png", help="png (16-bit gray or RGB), npy, nifti or dicom (both in the place and units of the scan)."
    ),
    batch_size: int = typer.Option(16, min=1, help="Images made at a time; changes the speed, not the images."),
    min_dice: float | None = typer.Option(
        None, metavar="DICE", help="Keep only images in which a segmenter finds the given classes with this Dice: 0.8."
    ),
    reject_copies: bool = typer.Option(
        False, "--reject-copies", help="Keep no image that is nearer to a training image than unseen patients' are."
    ),
    retries: int | None = typer.Option(
        None, min=0, help=f"How often an image that was refused is made again.  [default: {_RETRIES}]"
    ),
    judge: Path | None = typer.Option(
        None,
        metavar="DATASET",
        help="Prepared data set: its held-out patients train the segmenter, copies are looked for among its training "
        "patients. [default: --masks, if the model was trained on it]",
    ),
    device: str = device_option,
) -> None:
    """Make images from label maps.

    Example: anatogen sample runs/liver --masks data/liver --free tumour --per-mask 4 --out samples

    Pairs of real and generated images that share the bones alone:
    anatogen sample runs/ct --masks data/ct --given bone --paired --out pairs

    Label maps of another data set, its classes matched by name:
    anatogen sample runs/ct --masks data/mr --rename liver=liver+tumour --out from-mr

    Only images that follow their label map, and copy no training patient; the manifest says what was refused:
    anatogen sample runs/liver --masks data/liver --min-dice 0.8 --reject-copies --out kept
    """
    from anatogen.errors import SettingsError, nearest
    from anatogen.generation.engine import Generator
    from anatogen.generation.plan import requests_combined
    from anatogen.generation.sample_set import write_sample_set
    from anatogen.progress import Progress

    gate = _GateOptions(min_dice, reject_copies, retries, judge)
    gate.check()
    generator = Generator.load(run, device=device)
    if fit not in ("crop", "pad"):
        raise SettingsError(f"there is no --fit '{fit}'", hint=nearest(fit, ("crop", "pad")))
    settings = generator.with_settings(solver=solver, steps=steps, eta=eta)
    names = generator.schema.names
    empty = split_names(absent) or []
    states = generator.schema.states(given=split_names(given), free=split_names(free), absent=empty)
    how_many: dict[str, Any] = {"absent": empty, "seed": seed, "per_mask": per_mask, "count": count}
    requests = _requests(generator, masks, split, states, paired, rename, cast(Literal["crop", "pad"], fit), how_many)
    combined = list(names) if combine == "all" else split_names(combine)
    if combined is not None:
        requests = requests_combined(requests, generator.schema, combined)
    if (combined or not all(states.given)) and not generator.about.get("mask_ablation", False):
        print("note: this run was trained without mask ablation: it has never seen a free class")
    asked: dict[str, Any] = {"given": states.given_names(generator.schema), "seed": seed}
    more = {
        "absent": empty,
        "combine": combined,
        "paired": paired,
        "rename": rename,
        "fit": fit if fit != "crop" else None,
    }
    asked |= {key: value for key, value in more.items() if value}
    gates, judged_by = gate.build(generator, masks, device) if gate.wanted else ([], {})
    asked |= judged_by
    tries_refused = 0

    def judged(outcome: Outcome) -> None:
        nonlocal tries_refused
        tries_refused += len(outcome.refused)

    def show(done: int, _: int) -> None:
        bar.update(done, f"{tries_refused} tries refused" if gates else "")

    with Progress("sampling", len(requests), "images") as bar:
        samples = write_sample_set(
            generator,
            requests,
            out,
            settings=settings,
            image_format=format,
            batch_size=batch_size,
            gates=gates,
            retries=gate.tries_again if gates else 0,
            about=sampling_about(generator, run, asked),
            progress=show,
            judged=judged,
        )
    print(f"{out}: {len(samples.entries)} images" + (_refusals(samples) if gates else "") + overview_of(samples))
    if "elsewhere" not in samples.entries[0]:
        print(f"Next: anatogen evaluate {out} --dataset {masks} --out REPORT")
    else:
        print(f"Next: anatogen evaluate {out} --dataset DATASET_OF_THE_MODEL --out REPORT")


def _requests(
    generator: Generator,
    masks: Path,
    split: str,
    states: ClassStates,
    paired: bool,
    rename: list[str],
    fit: Literal["crop", "pad"],
    how_many: dict[str, Any],
) -> Requests:
    """The requests for the label maps in `masks`: of the model's own geometry, of another data set, or in a folder."""
    from anatogen.data.matching import match_classes, parse_renames
    from anatogen.data.store import PreparedDataset
    from anatogen.errors import SettingsError
    from anatogen.generation.plan import (
        check_same_anatomy,
        requests_from_dataset,
        requests_from_elsewhere,
        requests_from_folder,
    )

    if not (masks / "dataset.json").is_file():
        if paired:
            hint = "Give a prepared data set as --masks"
            raise SettingsError("a folder of label maps has no real images", path=masks, hint=hint)
        return requests_from_folder(masks, generator.schema, generator.size, states, **how_many)
    dataset = PreparedDataset.open(masks)
    rows = dataset.split(split)
    if not rename and generator.geometry.is_that_of(dataset):
        if paired:
            check_same_anatomy(generator, dataset)
        return requests_from_dataset(dataset, rows, states, paired=paired, **how_many)
    if paired:
        raise SettingsError(
            "holds label maps of other classes or another geometry, and images that are no partners",
            path=masks,
            hint="Leave --paired out, or prepare the data as the model's was",
        )
    renames = parse_renames(rename)
    print(match_classes(generator.schema, dataset.schema, renames).summary())
    return requests_from_elsewhere(dataset, rows, generator.geometry, states, renames=renames, fit=fit, **how_many)


@dataclass(frozen=True)
class _GateOptions:
    """What was asked of the gate."""

    min_dice: float | None
    reject_copies: bool
    retries: int | None
    judge: Path | None

    @property
    def wanted(self) -> bool:
        return self.min_dice is not None or self.reject_copies

    @property
    def tries_again(self) -> int:
        return _RETRIES if self.retries is None else self.retries

    def check(self) -> None:
        """Raises SettingsError where an option makes no sense, before anything is loaded."""
        from anatogen.errors import SettingsError

        if not self.wanted and (self.retries is not None or self.judge is not None):
            name = "--retries" if self.retries is not None else "--judge"
            raise SettingsError(
                f"{name} is for images that are refused, and none would be",
                hint="Add --min-dice 0.8 or --reject-copies, or leave it out",
            )
        if self.min_dice is not None and not 0 < self.min_dice <= 1:
            raise SettingsError(
                f"--min-dice {self.min_dice:g} makes no sense", hint="Choose above 0 and at most 1, for instance 0.8"
            )

    def build(self, generator: Generator, masks: Path, device: str) -> tuple[list[Gate], dict[str, Any]]:
        """The gates, and what samples.json is to say of the data set behind them."""
        from anatogen.errors import SettingsError
        from anatogen.evaluation.copies import require_training_data
        from anatogen.generation.gates import copy_gate, dice_gate
        from anatogen.generation.plan import check_same_anatomy
        from anatogen.judges.copy_search import CopySearch
        from anatogen.judges.of_dataset import segmenter_for
        from anatogen.progress import Progress

        dataset = self._dataset(generator, masks)
        check_same_anatomy(generator, dataset)
        gates: list[Gate] = []
        if self.reject_copies:
            require_training_data(generator.about, dataset)
        if self.min_dice is not None:
            if len(dataset.size) != 2:
                raise SettingsError(
                    "only slices can be judged by a segmenter so far",
                    path=dataset.folder,
                    hint="Leave out --min-dice",
                )
            gates.append(dice_gate(segmenter_for(dataset, device=device), dataset.schema, self.min_dice))
        if self.reject_copies:
            search = CopySearch(dataset)
            with Progress("comparing unseen patients", len(search.heldout_rows), "images") as bar:
                gates.append(copy_gate(search, progress=lambda done, total: bar.update(done)))
        return gates, {"judge": {key: dataset.info.source.get(key) for key in ("name", "fingerprint")}}

    def _dataset(self, generator: Generator, masks: Path) -> PreparedDataset:
        """--judge, or --masks where the model was trained on them."""
        from anatogen.data.store import PreparedDataset
        from anatogen.errors import SettingsError
        from anatogen.evaluation.copies import trained_on

        if self.judge is not None:
            return PreparedDataset.open(self.judge)
        if (masks / "dataset.json").is_file():
            dataset = PreparedDataset.open(masks)
            if trained_on(generator.about, dataset) and generator.geometry.is_that_of(dataset):
                return dataset
        raise SettingsError(
            "is not the prepared data set that the model was trained on, so it cannot judge the images",
            path=masks,
            hint="Name that one: --judge DATASET",
        )


def _refusals(samples: SampleSet) -> str:
    to_the_end = len(samples.refused)
    return f"; {to_the_end} requests refused to the end (refused.jsonl), {samples.refused_tries} tries refused"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sample)
