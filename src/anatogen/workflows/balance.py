"""Rare anatomy: a synthetic set in which a class is as frequent as asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anatogen.distributed import WHOLE, Shard, share_and_device
from anatogen.errors import SettingsError
from anatogen.progress import Monitor, watched_by
from anatogen.workflows.edit import EditChoice
from anatogen.workflows.sample import GateChoice, SolverChoice, result_of, write_set

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.sample_set import SampleSet
    from anatogen.judges.segmenter import Segmenter
    from anatogen.model import ImageModel

DEFAULT_EDIT = "deform 0.2..0.4"
_AT_A_TIME = 64


@dataclass(frozen=True)
class BalanceRequest:
    """What `anatogen balance` is asked for.

    Attributes:
        dataset: A prepared data set of the model's anatomy.
        run: Of a model.
        class_name: The class that is to be as frequent.
        share: Of the images, 0 to 1.
        count: Images in all; None: as many as the split has maps.
        split: Whose label maps are edited; those of training patients by default, so that the set can train a
            segmenter for the others.
        min_dice: Lowest Dice of what the data set's segmenter finds with what was asked for; None: no image is
            rejected.
        attributes: As of `MapChoice`.
        command: As it was typed, for the record.
        shard: The part of the images to make, as of `SampleRequest`.
    """

    dataset: Path
    out: Path
    run: Path
    class_name: str
    share: float
    count: int | None = None
    split: str = "train"
    edits: EditChoice = EditChoice((DEFAULT_EDIT,))
    min_dice: float | None = 0.7
    seed: int = 0
    attributes: tuple[str, ...] = ()
    solver: SolverChoice = SolverChoice()
    format: str = "auto"
    device: str = "auto"
    command: str = ""
    shard: Shard = WHOLE


@dataclass(frozen=True)
class BalanceResult:
    """The set and the shares of the class.

    Attributes:
        samples: The set; while other shards are not finished, the shard that was asked for.
        overview: Its file; None of a shard.
        before: Share of the split's label maps that show it.
        asked: Share of the set's label maps; None of a shard, whose share is another one.
        found: Share of the set's images in which the segmenter finds it; None of a shard.
    """

    samples: SampleSet
    overview: Path | None
    before: float
    asked: float | None
    found: float | None
    notes: tuple[str, ...] = field(default=())


def balance(request: BalanceRequest, *, monitor: Monitor | None = None) -> BalanceResult:
    """Make the images of `request`; an incomplete set in its folder is resumed.

    Raises SettingsError, DataError, ModelError, OutputError or Interrupted, as `write_sample_set` does.
    """
    from anatogen.conditioning.attributes import parse_attributes
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.balanced_maps import BalancedMaps, share_that_shows
    from anatogen.generation.kinds import load_model
    from anatogen.generation.plan import Plan, check_same_anatomy
    from anatogen.judges.of_dataset import segmenter_for
    from anatogen.judges.segmenter import default_segmenter

    gate = GateChoice(request.min_dice)
    gate.check()
    request.edits.build(request.seed, None)
    share, device = share_and_device(request.device)
    shard = request.shard.split(share)
    model = request.solver.applied(load_model(request.run, device=device), request.run)
    dataset = PreparedDataset.open(request.dataset)
    check_same_anatomy(model, dataset)
    rows = dataset.split(request.split)
    with watched_by(monitor):
        limits, notes = request.edits.limits(dataset)
        count = len(rows) if request.count is None else request.count
        editing = request.edits.build(request.seed, limits)
        maps = BalancedMaps(dataset, rows, request.class_name, request.share, count=count, editing=editing)
        _refuse_what_has_no_meaning(model, request)
        attributes = parse_attributes(request.attributes, model.spec.attributes)
        plan = Plan(model.spec.schema.states(), seed=request.seed, attributes=attributes)
        requests = plan.requests(maps).only(shard)
        samples, made = write_set(
            model,
            requests,
            request.out,
            gating=gate.gating(model, request.dataset, device, edited=True),
            image_format=request.format,
            command=request.command,
        )
        if rejected := len(samples.rejected):
            notes = [*notes, f"note: {rejected} label maps have no image that follows them (rejected.jsonl)"]
        result = result_of(samples, shard, made, notes=notes)
        before = maps.showing / (maps.showing + maps.lacking)
        if samples.shard.count > 1:
            return BalanceResult(samples, None, before, None, None, result.notes)
        segmenter = segmenter_for(dataset, default_segmenter(dataset.size, edited=True), device=device)
        found = _found(samples, segmenter, dataset, request.class_name)
    asked = share_that_shows([samples.label_map(line) for line in samples.entries], dataset.schema, request.class_name)
    return BalanceResult(samples, result.overview, before, asked, found, result.notes)


def _refuse_what_has_no_meaning(model: ImageModel, request: BalanceRequest) -> None:
    if not model.spec.sees_labels or model.spec.real_patients:
        raise SettingsError(
            "this kind of model does not make images of label maps", hint=f"Name another run than {request.run.name}"
        )


def _found(samples: SampleSet, segmenter: Segmenter, dataset: PreparedDataset, name: str) -> float:
    """The share of a set's images in which the segmenter finds a class."""
    index, there = dataset.schema.index_of(name), list[bool]()
    for start in range(0, len(samples.entries), _AT_A_TIME):
        images = np.stack([samples.image(line) for line in samples.entries[start : start + _AT_A_TIME]])
        there += [bool((found == index).any()) for found in segmenter(images)]
    return float(np.mean(there))
