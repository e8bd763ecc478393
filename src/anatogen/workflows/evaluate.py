"""Evaluation: a run or sample sets in, a report, a model card and a data sheet out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.errors import AnatogenError, DataError, ModelError, SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.evaluation.evaluate import Evaluated
    from anatogen.evaluation.subject import EvaluationSettings, SampleSets
    from anatogen.generation.sample_set import SampleSet
    from anatogen.model import ImageModel
    from anatogen.reporting.cards import ModelFacts
    from anatogen.reporting.report import Figure
    from anatogen.reporting.results import Report


@dataclass(frozen=True)
class EvaluateRequest:
    """What `anatogen evaluate` is asked for.

    Attributes:
        subjects: A run, which is sampled first; or a sample set, or two: from test and from heldout maps.
        dataset: The prepared data set, or its folder.
        out: Folder for the report.
        only: The questions to answer; None for all that can be.
        split: Which label maps to sample, given a run.
        count: How many images to sample of each split, given a run; None for one of every label map.
        run: That made the sample set; None to look for it beside the set.
        settings: Of the auxiliary models; None for the usual ones.
        quick: Leave out what the generator itself can do (classes left free, variation, steps).
        figures: Shown with the examples.
        command, version: For the record; by default those of this process and package.
    """

    subjects: tuple[Path, ...]
    dataset: Path | PreparedDataset
    out: Path
    only: tuple[str, ...] | None = None
    split: str = "test"
    count: int | None = None
    run: Path | None = None
    settings: EvaluationSettings | None = None
    quick: bool = False
    figures: tuple[Figure, ...] = field(default=())
    device: str = "auto"
    command: str = ""
    version: str = ""


@dataclass(frozen=True)
class EvaluateResult:
    """The report, and the folder with report.html, report.json, figures, model_card.md and data_sheet.md."""

    report: Report
    folder: Path

    @property
    def page(self) -> Path:
        """The report to read."""
        return self.folder / "report.html"


def evaluate(request: EvaluateRequest, *, monitor: Monitor | None = None) -> EvaluateResult:
    """Evaluate sample sets, or a run, which is sampled first, and write the report and the cards.

    Raises DataError, ModelError or SettingsError where samples, run and data set do not belong together.
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.evaluation.evaluate import QUESTIONS, require_evaluable, run_sections, subject_of
    from anatogen.evaluation.subject import EvaluationSettings

    given, settings = request.dataset, request.settings or EvaluationSettings()
    dataset = given if isinstance(given, PreparedDataset) else PreparedDataset.open(given)
    only = QUESTIONS if request.only is None else request.only
    require_evaluable(dataset, only, settings)
    with watched_by(monitor):
        sets, run = _sample_sets(request, dataset, sample_heldout="utility" in only)
        if settings.nnunet_epochs is not None:
            _require_for_nnunet(sets)

        def publish(evaluated: Evaluated) -> None:
            _publish(request, evaluated, sets, dataset, run)

        subject = subject_of(sets, dataset, settings, device=request.device, work=request.out)
        evaluated = run_sections(
            subject,
            only=only,
            quick=request.quick,
            command=request.command,
            version=request.version,
            interim=publish,
        )
        publish(evaluated)
    return EvaluateResult(evaluated.report, request.out)


def _sample_sets(
    request: EvaluateRequest, dataset: PreparedDataset, *, sample_heldout: bool
) -> tuple[SampleSets, Path | None]:
    """The sample sets to evaluate, given or made, and the run of the generator that made them, where it is at hand."""
    from anatogen.evaluation.subject import SampleSets
    from anatogen.generation.kinds import load_model
    from anatogen.generation.plan import check_same_anatomy

    first = request.subjects[0]
    if len(request.subjects) == 1 and (first / "model.json").exists():
        generator = load_model(first, device=request.device)
        check_same_anatomy(generator, dataset)
        main = _sample(generator, dataset, request.split, request.out / "samples", request)
        heldout = None
        if sample_heldout:
            heldout = _sample(generator, dataset, "heldout", request.out / "samples-heldout", request)
        return SampleSets(main, heldout, generator), first
    main, heldout = opened(request.subjects, dataset)
    found, run = generator_of(main, request.device, request.run)
    return SampleSets(main, heldout, found), run


def opened(subjects: Sequence[Path], dataset: PreparedDataset) -> tuple[SampleSet, SampleSet | None]:
    """The sample set to evaluate, and the one from heldout maps where there is one; of one alone, both can be the same.

    Raises SettingsError where the classes are not the data set's, or where there are too many sets.
    """
    from anatogen.generation.sample_set import SampleSet

    sets = [SampleSet.open(subject) for subject in subjects]
    for samples in sets:
        if samples.schema.names != dataset.schema.names:
            raise SettingsError(
                f"its classes ({', '.join(samples.schema.names)}) are not the data set's "
                f"({', '.join(dataset.schema.names)})",
                path=samples.folder,
                hint="Evaluate it against the data set that its label maps are from",
            )
    of_heldout = [s for s in sets if any(e.split == "heldout" and e.elsewhere is None for e in s.entries)]
    others = [s for s in sets if s not in of_heldout]
    if len(others) > 1 or len(of_heldout) > 1:
        raise SettingsError(
            f"{len(sets)} sample sets are too many for one report",
            hint="Give one from test maps and one from heldout maps, and evaluate the others apart",
        )
    return (others or of_heldout)[0], of_heldout[0] if of_heldout else None


def generator_of(samples: SampleSet, device: str, run: Path | None) -> tuple[ImageModel | None, Path | None]:
    """The generator that made `samples`, and its run: `run`, or one beside the set. None where none is found.

    Raises SettingsError where `run` did not make them.
    """
    from anatogen.generation.kinds import load_model

    for place in samples.runs(run):
        try:
            generator = load_model(place, device=device)
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


def _sample(
    generator: ImageModel, dataset: PreparedDataset, split: str, out: Path, request: EvaluateRequest
) -> SampleSet:
    from anatogen.generation.plan import requests_from_dataset
    from anatogen.generation.sample_set import write_sample_set
    from anatogen.labels import ClassStates

    rows = dataset.split(split)
    states = ClassStates.all_given(dataset.schema)
    requests = requests_from_dataset(dataset, rows, states, count=min(request.count or len(rows), len(rows)))
    with stage(f"sampling {split}", len(requests), "images") as bar:
        return write_sample_set(
            generator,
            requests,
            out,
            command=request.command or None,
            progress=lambda done, total: bar.update(done),
        )


def _require_for_nnunet(sets: SampleSets) -> None:
    """Raises SettingsError or DataError where there are no images to train nnU-Net on."""
    from anatogen.generation.sample_set import require_true_maps

    if sets.heldout is None:
        raise SettingsError(
            "nnU-Net needs images from the held-out patients' maps",
            hint="Give the run, or add the sample set of anatogen sample RUN --masks DATASET --split heldout",
        )
    require_true_maps(sets.heldout)


def _publish(
    request: EvaluateRequest, evaluated: Evaluated, sets: SampleSets, dataset: PreparedDataset, run: Path | None
) -> None:
    """Write the report, the model card and the data sheet."""
    from anatogen.files import writing
    from anatogen.reporting.cards import count_entries, data_sheet, model_card
    from anatogen.reporting.report import write_report

    report, samples = evaluated.report, sets.main
    write_report(request.out, report, [*request.figures, *evaluated.figures], dataset.schema)
    counts = count_entries(samples.entries, samples.selection)
    texts = {
        "model_card.md": model_card(report, _model_facts(sets, run), dataset.info),
        "data_sheet.md": data_sheet(report, samples.header, counts),
    }
    for name, text in texts.items():
        with writing(request.out / name) as path:
            path.write_text(text, encoding="utf-8")


def _model_facts(sets: SampleSets, run: Path | None) -> ModelFacts:
    """What is known of the model; files of its run that cannot be read are left out."""
    from anatogen.generation.kinds import KINDS
    from anatogen.model import DENOISER, ModelDocument, read_run
    from anatogen.reporting.cards import ModelFacts
    from anatogen.training.train import default_settings

    document, settings, kind = None, None, DENOISER
    if run is not None:
        with suppress(AnatogenError):
            kind = read_run(run).kind
        with suppress(DataError):
            document = ModelDocument.read(run / "model.json")
        system = KINDS[kind].system if kind in KINDS else None
        if system is not None:
            with suppress(AnatogenError):
                settings = default_settings(system, run / "config.yaml")
    spec = sets.generator.spec if sets.generator is not None else None
    return ModelFacts(kind, document, settings, spec, digest=sets.main.header.model)
