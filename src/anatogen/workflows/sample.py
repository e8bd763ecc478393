"""Sampling: a run and label maps in, a sample set with its overview out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from anatogen.distributed import WHOLE, Shard, share_and_device
from anatogen.errors import SettingsError, nearest
from anatogen.progress import Monitor, stage, watched_by
from anatogen.workflows.edit import EditChoice, notes_of

if TYPE_CHECKING:
    from anatogen.conditioning.regions import Region
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.plan import MapSource
    from anatogen.generation.rejection import Gate, Gating, Outcome
    from anatogen.generation.request import Requests
    from anatogen.generation.sample_set import SampleSet
    from anatogen.generation.starts import Counterfactual
    from anatogen.model import ImageModel

DEFAULT_RETRIES = 3
FITS = ("crop", "pad")


@dataclass(frozen=True)
class SolverChoice:
    """What to change in the run's own sampling settings; None changes nothing.

    tile: as "64" or "64x96x96". guidance_interval: as "0.2,0.75".
    """

    solver: str | None = None
    steps: int | None = None
    eta: float | None = None
    tile: str | None = None
    guidance: float | None = None
    guidance_interval: str | None = None
    guidance_classes: tuple[str, ...] | None = None
    attribute_guidance: float | None = None

    def applied(self, model: ImageModel, run: Path) -> ImageModel:
        """`model` with these changes.

        Raises SettingsError for an unknown solver, where the model has no steps or cannot be guided so, or where the
        guidance has an interval or classes but no weight.
        """
        from anatogen.generation.kinds import require_ability
        from anatogen.model import HasDenoiser, HasSteps
        from anatogen.settings import parse_interval, parse_sides

        if self == SolverChoice():
            return model
        changes = {each.name: getattr(self, each.name) for each in fields(self)}
        first = next(f"--{name.replace('_', '-')}" for name, value in changes.items() if value is not None)
        walking = require_ability(model, HasSteps, first, run)  # type: ignore[type-abstract]
        if self.tile is not None:
            require_ability(model, HasDenoiser, "--tile", run)  # type: ignore[type-abstract]
            changes["tile"] = parse_sides(self.tile, len(model.spec.size), "--tile")
        if self.guidance_interval is not None:
            changes["guidance_interval"] = parse_interval(self.guidance_interval, "--guidance-interval")
        settings = walking.with_settings(**changes)
        if settings.guidance == settings.attribute_guidance == 1 and first.startswith("--guidance-"):
            raise SettingsError(f"{first} makes no difference without guidance", hint="Add for instance --guidance 2")
        changed: ImageModel = walking.sampling_with(settings)  # type: ignore[assignment]
        return changed


@dataclass(frozen=True)
class MapChoice:
    """Which label maps to take, and what of them is given.

    Args:
        masks: a prepared data set, or a folder of label maps.
        split: which label maps of the data set.
        given, free: class names; by default all are given.
        within: a region, or the file of a mask; outside it every class is given. See `conditioning.regions`.
        absent: classes that are removed from the maps and enforced as absent.
        combine: every combination of these classes given or free; "all" for all classes.
        paired: keep the real image of each map beside the generated one.
        per_mask, count: images of each map, and in all.
        renames: "ours=theirs" for classes that another data set calls otherwise.
        fit: label maps of another geometry: "crop" to the field of view, or "pad" (shrink).
        seed: the same seed gives the same images, and the same edits.
        attributes: "name=value" for all images, or "name=unknown"; others are as in the map's own case.
        edits: what is done with the maps first.
        counterfactual: keep the real image but for what the edits change and this margin, such as "6px" or "4mm".
    """

    masks: Path
    split: str = "test"
    given: tuple[str, ...] | None = None
    free: tuple[str, ...] | None = None
    within: str | None = None
    absent: tuple[str, ...] = ()
    combine: tuple[str, ...] | Literal["all"] | None = None
    paired: bool = False
    per_mask: int = 1
    count: int | None = None
    renames: tuple[str, ...] = ()
    fit: str = "crop"
    seed: int = 0
    attributes: tuple[str, ...] = ()
    edits: EditChoice = EditChoice()
    counterfactual: str | None = None

    def check(self) -> None:
        """Raises SettingsError for an unknown fit, edits that cannot be read, edits of what is paired, or a region in
        which nothing is free.
        """
        if self.edits.edits:
            self.edits.build(self.seed, None)
            if self.paired:
                problem = "--paired keeps the real image of each label map, and an edited one has none"
                raise SettingsError(problem, hint="Leave out --paired or --edit")
        elif self.counterfactual is not None:
            raise SettingsError("--counterfactual is for --edit", hint='Add for instance --edit "grow liver 5mm"')
        elif self.edits.per_map > 1:
            raise SettingsError("--edits-per-map is for --edit", hint='Add for instance --edit "deform 0.3"')
        if self.fit not in FITS:
            raise SettingsError(f"there is no --fit '{self.fit}'", hint=nearest(self.fit, FITS))
        if self.within is not None and self.given is None and not self.free and self.combine is None:
            raise SettingsError("no class is free in the region", hint="Name them with --free")

    def combined(self, model: ImageModel) -> tuple[str, ...] | None:
        """The classes whose combinations are asked for."""
        return tuple(model.spec.schema.names) if self.combine == "all" else self.combine


@dataclass(frozen=True)
class GateChoice:
    """Which images to keep.

    Args:
        min_dice: lowest Dice of what a segmenter finds with what was asked for, in (0, 1].
        reject_copies: whether images nearer to a training image than unseen patients' are rejected.
        retries: how often a rejected image is sampled again; None: 3.
        judge: the prepared data set behind both; None: the label maps' own, if the model was trained on it.
    """

    min_dice: float | None = None
    reject_copies: bool = False
    retries: int | None = None
    judge: Path | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything can be rejected."""
        return self.min_dice is not None or self.reject_copies

    def check(self) -> None:
        """Raises SettingsError for options that contradict each other, before anything is loaded."""
        if not self.wanted and (self.retries is not None or self.judge is not None):
            name = "--retries" if self.retries is not None else "--judge"
            raise SettingsError(
                f"{name} is for images that are rejected, and none would be",
                hint="Add --min-dice 0.8 or --reject-copies, or leave it out",
            )
        if self.min_dice is not None and not 0 < self.min_dice <= 1:
            raise SettingsError(f"--min-dice must be in (0, 1], got {self.min_dice:g}", hint="Choose for instance 0.8")

    def gating(self, model: ImageModel, masks: Path, device: str, *, edited: bool = False) -> Gating:
        """The gates and how often an image that they reject is sampled again; nothing where none can be rejected.

        edited: whether label maps were: their segmenter is one that knows such shapes.

        Raises SettingsError as `dataset` does.
        """
        from anatogen.generation.rejection import Gating

        if not self.wanted:
            return Gating()
        return Gating(
            self._gates(model, masks, device, edited), DEFAULT_RETRIES if self.retries is None else self.retries
        )

    def _gates(self, model: ImageModel, masks: Path, device: str, edited: bool) -> list[Gate]:
        from anatogen.evaluation.copies import require_training_data
        from anatogen.generation.gates import copy_gate, dice_gate
        from anatogen.generation.header import AboutModel, DatasetName
        from anatogen.generation.plan import check_same_anatomy
        from anatogen.judges.copy_search import CopySearch
        from anatogen.judges.of_dataset import segmenter_for
        from anatogen.judges.segmenter import default_segmenter

        dataset = self.dataset(model, masks)
        check_same_anatomy(model, dataset)
        source = dataset.info.source
        judge = DatasetName(name=source.get("name"), fingerprint=source.get("fingerprint"))
        gates: list[Gate] = []
        if self.reject_copies:
            require_training_data(AboutModel.of(model.describe().record()), dataset)
        if self.min_dice is not None:
            settings = default_segmenter(dataset.size, edited=edited)
            segmenter = segmenter_for(dataset, settings, device=device)
            warped = settings.warped or None
            gates.append(dice_gate(segmenter, dataset.schema, self.min_dice, judge=judge, warped=warped))
        if self.reject_copies:
            search = CopySearch(dataset)
            with stage("comparing unseen patients", len(search.heldout_rows), "images") as bar:
                gates.append(copy_gate(search, judge=judge, progress=lambda done, total: bar.update(done)))
        return gates

    def dataset(self, model: ImageModel, masks: Path) -> PreparedDataset:
        """The prepared data set behind the gates.

        Raises SettingsError where `masks` is not the one that the model was trained on and none is named.
        """
        from anatogen.data.store import PreparedDataset
        from anatogen.evaluation.copies import trained_on
        from anatogen.generation.header import AboutModel

        if self.judge is not None:
            return PreparedDataset.open(self.judge)
        if (masks / "dataset.json").is_file():
            dataset = PreparedDataset.open(masks)
            if trained_on(AboutModel.of(model.describe().record()), dataset) and model.spec.is_that_of(dataset):
                return dataset
        raise SettingsError(
            "is not the prepared data set that the model was trained on, so it cannot judge the images",
            path=masks,
            hint="Name that one: --judge DATASET",
        )


@dataclass(frozen=True)
class SampleRequest:
    """What `anatogen sample` is asked for.

    Attributes:
        format: See `generation.formats`.
        command: As it was typed, for the record.
        shard: The part of the images to make; of several processes that `torchrun` has started each makes its share of
            it.
    """

    run: Path
    out: Path
    maps: MapChoice
    gate: GateChoice = GateChoice()
    solver: SolverChoice = SolverChoice()
    format: str = "auto"
    batch_size: int = 16
    device: str = "auto"
    command: str = ""
    shard: Shard = WHOLE


@dataclass(frozen=True)
class SampleResult:
    """The sample set, its overview where one was drawn, and what the user should be told.

    While other shards of the set are not finished, `samples` is the shard that was asked for, without an overview.
    """

    samples: SampleSet
    overview: Path | None
    notes: tuple[str, ...] = field(default=())


def sample(request: SampleRequest, *, monitor: Monitor | None = None) -> SampleResult:
    """Make the images of `request`; an incomplete sample set in its folder is resumed.

    Raises SettingsError, DataError, ModelError, OutputError or Interrupted, as `write_sample_set` does.
    """
    from anatogen.conditioning.attributes import parse_attributes
    from anatogen.generation.kinds import load_model
    from anatogen.generation.plan import Plan

    gate, maps = request.gate, request.maps
    gate.check()
    maps.check()
    share, device = share_and_device(request.device)
    request = replace(request, shard=request.shard.split(share), device=device)
    model = request.solver.applied(load_model(request.run, device=device), request.run)
    states = model.spec.schema.states(given=maps.given, free=maps.free, absent=maps.absent)
    with watched_by(monitor):
        source, notes = map_source(model, maps)
        plan = Plan(
            states,
            within=_region(model, maps),
            absent=maps.absent,
            combine=maps.combined(model),
            real=_counterfactual(model, maps, request.run),
            paired=maps.paired or maps.counterfactual is not None,
            seed=maps.seed,
            per_mask=maps.per_mask,
            count=maps.count,
            attributes=parse_attributes(maps.attributes, model.spec.attributes),
        )
        if (plan.combine or not all(states.given)) and not model.spec.takes_free:
            notes.append("note: this run was trained without mask ablation: it has never seen a free class")
        if plan.within is not None and not model.describe().regions:
            notes.append("note: this run was trained without regions (conditioning.regional_share)")
        if model.spec.real_patients:
            notes.append("note: these are real patients' images, not synthetic ones, and cannot be exported")
        if maps.per_mask > 1 and not model.spec.seeds_vary:
            notes.append("note: the seed makes no difference to this kind of model")
        samples, made = write_set(
            model,
            plan.requests(source).only(request.shard),
            request.out,
            gating=gate.gating(
                model, maps.masks, device, edited=bool(len(source)) and bool(source.item(0).origin.edits)
            ),
            image_format=request.format,
            batch_size=request.batch_size,
            command=request.command,
        )
    if odd := sum(bool(line.implausible) for line in samples.entries):
        notes.append(f"note: {odd} of {len(samples.entries)} label maps are implausible (manifest.jsonl says why)")
    if maps.counterfactual is not None:
        write_differences(samples)
    return result_of(samples, request.shard, made, notes=notes)


def write_differences(samples: SampleSet) -> None:
    """Write what differs between each image of a set and its real image to `difference/`, where that is missing.

    float32 NPY (C, *spatial): generated minus real, both in [-1, 1].
    """
    from anatogen.files import writing
    from anatogen.io.npy import write_npy

    for line in samples.entries:
        below = Path(line.labels).relative_to("labels").parent
        path = samples.folder / "difference" / below / f"{line.id}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path) as partial:
                write_npy(partial, samples.image(line) - samples.real_image(line))


def result_of(
    samples: SampleSet,
    shard: Shard,
    made: int,
    *,
    notes: Sequence[str] = (),
    dataset: PreparedDataset | None = None,
) -> SampleResult:
    """The result of a call that has made `made` images of `shard`: with an overview where that completes the set."""
    from anatogen.generation.sample_set import said_of_unfinished

    notes = [*notes, *notes_of_shard(shard, made)]
    if samples.shard.count == 1:
        return SampleResult(samples, overview_of(samples, dataset), tuple(notes))
    if missing := samples.unfinished:  # none where another shard has completed the set since
        notes.append(f"note: {said_of_unfinished(missing)}")
    return SampleResult(samples, None, tuple(notes))


def notes_of_shard(shard: Shard, made: int) -> list[str]:
    """What users are told of a call that has made `made` images of `shard`."""
    from anatogen.generation.shards import name_of_shard

    if shard.count == 1 or made:
        return []
    return [f"note: shard {name_of_shard(shard)} was complete already: there was nothing to make"]


def write_set(
    model: ImageModel,
    requests: Requests,
    out: Path,
    title: str = "sampling",
    *,
    gating: Gating | None = None,
    image_format: str,
    batch_size: int = 16,
    command: str,
) -> tuple[SampleSet, int]:
    """The set in `out`, or the shard of it, its progress called `title`, and the number of requests dealt with now.

    See `write_sample_set`, which also says what is raised.
    """
    from anatogen.generation.rejection import Gating
    from anatogen.generation.request import shard_of
    from anatogen.generation.sample_set import write_sample_set

    made = tries_rejected = 0

    def judged(outcome: Outcome) -> None:
        nonlocal made, tries_rejected
        made += 1
        tries_rejected += len(outcome.rejected)

    gating = replace(gating or Gating(), judged=judged)
    with stage(title, len(shard_of(requests).of(len(requests))), "images") as bar:
        samples = write_sample_set(
            model,
            requests,
            out,
            image_format=image_format,
            batch_size=batch_size,
            gating=gating,
            command=command or None,
            progress=lambda done, _: bar.update(done, f"{tries_rejected} images rejected" if gating.gates else ""),
        )
    return samples, made


def overview_of(samples: SampleSet, dataset: PreparedDataset | None = None) -> Path | None:
    """Draws a sample set's overview; where it lies, None where none can be drawn."""
    from anatogen.reporting.overview import write_overview

    name = write_overview(samples, dataset)
    return samples.folder / name if name else None


def _counterfactual(model: ImageModel, maps: MapChoice, run: Path) -> Counterfactual | None:
    """How images start where they are counterfactuals. Raises SettingsError for a margin that cannot be read."""
    import re

    from anatogen.generation.kinds import require_ability
    from anatogen.generation.starts import Counterfactual
    from anatogen.model import HasRealStarts

    if maps.counterfactual is None:
        return None
    require_ability(model, HasRealStarts, "--counterfactual", run)  # type: ignore[type-abstract]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(px|mm)", maps.counterfactual.strip())
    if found is None:
        raise SettingsError(f"--counterfactual '{maps.counterfactual}' is no distance", hint="Write it as 6px or 4mm")
    spacing = model.spec.spacing_mm if found[2] == "mm" else None
    if found[2] == "mm" and spacing is None:
        raise SettingsError("the model's pixel size is not known", hint="Give the margin in px")
    return Counterfactual(float(found[1]), spacing)


def _region(model: ImageModel, maps: MapChoice) -> Region | None:
    """The region in which the states hold. Raises SettingsError or DataError where it cannot be made out."""
    from anatogen.conditioning.regions import Brush, parse_region
    from anatogen.generation.folder_maps import read_mask

    if maps.within is None:
        return None
    spec = model.spec
    if (path := Path(maps.within)).suffix and path.is_file():
        mask = read_mask(path, spec.size)
        return Brush(f"mask {path.name} {hashlib.sha256(mask.tobytes()).hexdigest()[:16]}", mask)
    return parse_region(maps.within, spec.size, spec.schema.index_of, spec.spacing_mm)


def map_source(model: ImageModel, maps: MapChoice) -> tuple[MapSource, list[str]]:
    """The label maps, after edits if there are any; and notes."""
    from anatogen.data.matching import parse_renames
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.edited_maps import EditedMaps

    source, notes = _source(model, maps)
    if not maps.edits.edits:
        return source, notes
    dataset = PreparedDataset.open(maps.masks) if (maps.masks / "dataset.json").is_file() else None
    as_is = dataset is None or (not maps.renames and model.spec.is_that_of(dataset))
    limits, more = maps.edits.limits(dataset, None if as_is else model.spec, parse_renames(maps.renames))
    edited = EditedMaps(source, maps.edits.build(maps.seed, limits))
    return edited, [*notes, *more, *notes_of(edited)]


def _source(model: ImageModel, maps: MapChoice) -> tuple[MapSource, list[str]]:
    """The label maps: of the model's own geometry, of another data set, or in a folder; and notes."""
    from anatogen.data.matching import match_classes, parse_renames
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.plan import DatasetMaps, FolderMaps, ForeignMaps, check_same_anatomy

    fit = cast(Literal["crop", "pad"], maps.fit)
    if not (maps.masks / "dataset.json").is_file():
        if maps.paired:
            hint = "Give a prepared data set as --masks"
            raise SettingsError("a folder of label maps has no real images", path=maps.masks, hint=hint)
        return FolderMaps(maps.masks, model.spec, renames=parse_renames(maps.renames), fit=fit), []
    dataset = PreparedDataset.open(maps.masks)
    rows = dataset.split(maps.split)
    if not maps.renames and model.spec.is_that_of(dataset):
        if maps.paired:
            check_same_anatomy(model, dataset)
        return DatasetMaps(dataset, rows), []
    if maps.paired:
        raise SettingsError(
            "holds label maps of other classes or another geometry; its images cannot be paired with the model's",
            path=maps.masks,
            hint="Leave --paired out, or prepare the data as the model's was",
        )
    renames = parse_renames(maps.renames)
    note = match_classes(model.spec.schema, dataset.schema, renames).summary()
    return ForeignMaps(dataset, rows, model.spec, renames=renames, fit=fit), [note]
