"""Completing label maps: what a model fills in for free classes, how sure it is, and full label maps of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.distributed import WHOLE, Shard, share_and_device
from anatogen.errors import SettingsError
from anatogen.progress import Monitor, watched_by
from anatogen.workflows.sample import GateChoice, MapChoice, SolverChoice, map_source, notes_of_shard, write_set

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.completion import Segment
    from anatogen.generation.plan import MapSource
    from anatogen.generation.request import Requests
    from anatogen.generation.sample_set import SampleSet
    from anatogen.judges.segmenter import SegmenterSettings
    from anatogen.model import ImageModel
    from anatogen.reporting.completion import Completion

SAMPLES_OF_A_MAP = 8
SEEN = ("train", "heldout", "val")
"""Splits whose patients the generator or the segmenter has seen."""
CALIBRATION, FITTED_ON = "calibration", "val"


@dataclass(frozen=True)
class CompleteRequest:
    """What `anatogen complete RUN` is asked for.

    Attributes:
        maps: The label maps; `per_mask` samples of each. Classes are free by name, or where a map was not annotated.
        judge: The prepared data set of the segmenter; None: the label maps' own, if the model was trained on it.
        calibrate: The number of validation label maps that frequencies are calibrated on; 0: they are not.
        format, command: As of `SampleRequest`.
        shard: The part to make of the samples, and of those to calibrate on, as of `SampleRequest`.
    """

    run: Path
    out: Path
    maps: MapChoice
    judge: Path | None = None
    calibrate: int = 0
    solver: SolverChoice = SolverChoice()
    format: str = "auto"
    batch_size: int = 16
    device: str = "auto"
    command: str = ""
    shard: Shard = WHOLE


@dataclass(frozen=True)
class CompleteResult:
    """Where the completed maps are, completion.json, the overview, and what the user should be told.

    samples: The sample set; None of real images. While other shards of it, or of the calibration, are not finished, it
    is the shard that was asked for, and there is no completion.
    """

    out: Path
    completion: Completion | None
    overview: Path | None
    notes: tuple[str, ...] = ()
    samples: SampleSet | None = None


@dataclass(frozen=True)
class Judge:
    """The segmenter that completes label maps.

    Attributes:
        dataset: On whose held-out patients it was trained.
        settings: Of its training.
        segment: Images (n, C, *spatial) -> label maps (n, *spatial).
        digest: Tells two segmenters apart.
    """

    dataset: PreparedDataset
    settings: SegmenterSettings
    segment: Segment
    digest: str

    @classmethod
    def of(cls, dataset: PreparedDataset, free: Sequence[str], device: str, *, chosen: bool = False) -> Judge:
        """The segmenter of `dataset`, trained where it was not yet.

        free: the classes that it is to find. chosen: whether a segmenter chose the weights of the generator, so that
        another seed is needed. Raises SettingsError where no held-out patient was annotated for a class.
        """
        from anatogen.evaluation.selection import segmenter_settings
        from anatogen.judges.of_dataset import name_of_segmenter, segmenter_for
        from anatogen.judges.segmenter import default_segmenter

        require_annotated(dataset, free)
        settings = segmenter_settings(default_segmenter(dataset.size), None, model_chosen=chosen)
        segment = segmenter_for(dataset, settings, device=device)
        return cls(dataset, settings, segment, Path(name_of_segmenter(dataset, settings)).stem.partition("-")[2])


def require_annotated(dataset: PreparedDataset, free: Sequence[str]) -> None:
    """Raises SettingsError where no held-out patient was annotated for a class, which a segmenter is to find."""
    rows = dataset.split("heldout")
    for name in free:
        if not any(name in row.annotated for row in rows):
            raise SettingsError(
                f"no held-out patient was annotated for class '{name}', so its segmenter does not know it",
                path=dataset.folder,
                hint="Name another data set: --judge DATASET",
            )


def complete(request: CompleteRequest, *, monitor: Monitor | None = None) -> CompleteResult:
    """Make the samples of `request` and complete their label maps; what is there of both is kept.

    Of several shards the one that finds all samples made completes the label maps; if it is stopped, any other does.

    Raises:
        SettingsError: The model takes no free class, no class is free, none is given, or the segmenter does not know
            a free class.
        DataError, ModelError, OutputError, Interrupted: As `write_sample_set` does.
    """
    from anatogen.conditioning.attributes import parse_attributes
    from anatogen.generation.completion import maps_to_complete
    from anatogen.generation.kinds import load_model
    from anatogen.generation.plan import Plan, check_same_anatomy
    from anatogen.workflows.completed_set import Whole

    maps = request.maps
    maps.check()
    share, device = share_and_device(request.device)
    request = replace(request, shard=request.shard.split(share), device=device)
    model = request.solver.applied(load_model(request.run, device=device), request.run)
    _require_free_classes(model, request.run)
    states = model.spec.schema.states(given=maps.given, free=maps.free)
    dataset = GateChoice(judge=request.judge).dataset(model, maps.masks)
    check_same_anatomy(model, dataset)
    _require_unseen(model, dataset)
    with watched_by(monitor):
        every, notes = map_source(model, maps)
        source, free = maps_to_complete(every, states, maps.given or ())
        require_annotated(dataset, free)
        plan = Plan(
            states,
            seed=maps.seed,
            per_mask=maps.per_mask,
            count=maps.count,
            attributes=parse_attributes(maps.attributes, model.spec.attributes),
        )
        fitting = _fitting_source(request, model, dataset, free)
        samples, made = _sampled(model, plan.requests(source), request, request.out)
        sets = [samples]
        if fitting is not None:
            states_of_fitting = model.spec.schema.states(free=free)
            wanted = replace(plan, states=states_of_fitting, count=request.calibrate * maps.per_mask)
            title, out = "sampling to calibrate", request.out / CALIBRATION
            fitted, more = _sampled(model, wanted.requests(fitting), request, out, title)
            sets, made = [samples, fitted], made + more
        notes += notes_of_shard(request.shard, made)
        if missing := _said_of_missing(sets):
            return CompleteResult(request.out, None, None, (*notes, *missing), samples)
        annotated, not_measured = _annotated(model, every)
        chosen = model.describe().record().get("selected_step") is not None
        judge = partial(Judge.of, dataset, free, device, chosen=chosen)
        whole = Whole(request.out, judge, annotated, calibrated=fitting is not None, command=request.command)
        samples, completion = whole.finished(request.shard)
    notes = [*notes, *not_measured, *completion.notes]
    return CompleteResult(request.out, completion, whole.overview, tuple(notes), samples)


def _said_of_missing(sets: Sequence[SampleSet]) -> list[str]:
    """What users are told of the shards that are not finished, of the samples and of those to calibrate on."""
    from anatogen.generation.sample_set import said_of_unfinished

    of_whom = ("", "of the calibration, ")
    missing = [each.unfinished for each in sets]
    return [f"note: {what}{said_of_unfinished(each)}" for what, each in zip(of_whom, missing) if each]


def _require_free_classes(model: ImageModel, run: Path) -> None:
    spec = model.spec
    if not (spec.takes_free and spec.sees_labels):
        raise SettingsError(
            "was trained without mask ablation: it has never seen a free class, so it cannot complete label maps",
            path=run,
            hint="Train with --mask-ablation",
        )
    if spec.real_patients:
        raise SettingsError(
            "gives real patients' images, which are not completions", path=run, hint="Use a trained model"
        )


def _require_unseen(model: ImageModel, dataset: PreparedDataset) -> None:
    """Raises SettingsError where the segmenter's patients may be those that the generator was trained on."""
    from anatogen.evaluation.copies import trained_on
    from anatogen.generation.header import AboutModel

    about = AboutModel.of(model.describe().record())
    same_source = about.dataset.fingerprint == dataset.info.source.get("fingerprint")
    if same_source and trained_on(about, dataset) is False:
        raise SettingsError(
            "divides the patients that the model was trained on in another way, so its segmenter may know them",
            path=dataset.folder,
            hint="Name the data set that the model was trained on: --judge DATASET",
        )


def _annotated(model: ImageModel, source: MapSource) -> tuple[PreparedDataset | None, list[str]]:
    """The data set whose annotations completed maps can be compared with, where its label maps are from one; notes."""
    from anatogen.evaluation.copies import trained_on
    from anatogen.generation.header import AboutModel
    from anatogen.generation.plan import DatasetMaps

    if not isinstance(source, DatasetMaps):
        return None, ["note: not measured: these label maps have no annotations of the model's own geometry"]
    seen = sorted({row.split for row in source.rows} & set(SEEN))
    if seen and trained_on(AboutModel.of(model.describe().record()), source.dataset) is not False:
        return None, [f"note: not measured: generator or segmenter has seen patients of the split {seen[0]}"]
    return source.dataset, []


def _fitting_source(
    request: CompleteRequest, model: ImageModel, dataset: PreparedDataset, free: Sequence[str]
) -> MapSource | None:
    """The validation label maps that frequencies are calibrated on; None where that is not asked for.

    Raises SettingsError where none of them is annotated for all classes, or where they are what is completed.
    """
    from anatogen.generation.plan import DatasetMaps

    if not request.calibrate:
        return None
    if request.maps.split == FITTED_ON and request.maps.masks.resolve() == dataset.folder.resolve():
        raise SettingsError(
            f"frequencies are calibrated on the split {FITTED_ON}, which is the one that is completed",
            hint="Complete another split, or leave --calibrate out",
        )
    if not model.spec.is_that_of(dataset):
        raise SettingsError("is not of the model's geometry", path=dataset.folder, hint="Leave --calibrate out")
    rows = [row for row in dataset.split(FITTED_ON) if set(dataset.schema.names) <= set(row.annotated)]
    if not rows:
        raise SettingsError(
            f"no label map of the split {FITTED_ON} has all classes ({', '.join(free)} are free)",
            path=dataset.folder,
            hint="Leave --calibrate out",
        )
    return DatasetMaps(dataset, rows)


def _sampled(
    model: ImageModel, requests: Requests, request: CompleteRequest, out: Path, title: str = "sampling"
) -> tuple[SampleSet, int]:
    """The set in `out`, or the shard of it, and the number of images that were made now."""
    return write_set(
        model,
        requests.only(request.shard),
        out,
        title,
        image_format=request.format,
        batch_size=request.batch_size,
        command=request.command,
    )
