"""Comparison: runs or sample sets over the same label maps in, the paper's tables over all of them out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen.errors import SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset, Row
    from anatogen.evaluation.subject import EvaluationSettings
    from anatogen.generation.sample_set import SampleSet
    from anatogen.reporting.comparison import Compared, Comparison
    from anatogen.reporting.report import Figure
    from anatogen.reporting.results import Report

_log = logging.getLogger(__name__)
_SHOWN = 5  # label maps in the figure


@dataclass(frozen=True)
class Contender:
    """A system to compare: its name, and its run or sample set; or why it was not run.

    heldout: the sample set of heldout maps, where `path` is a sample set and utility is asked for.
    """

    name: str
    path: Path | None = None
    heldout: Path | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class CompareRequest:
    """What `anatogen compare` is asked for.

    Attributes:
        contenders: In the order of the tables' rows; the first is what differences are to.
        dataset: The prepared data set.
        out: Folder for the comparison.
        only: The questions to answer, of faithfulness, utility, realism and privacy; None for all that can be.
        split: Which label maps to sample, given runs.
        count: How many of them; None for all.
        floors: Also compare with nearest-map retrieval and painting.
        settings: Of the auxiliary models; None for the usual ones.
        command: For the record.
    """

    contenders: tuple[Contender, ...]
    dataset: Path
    out: Path
    only: tuple[str, ...] | None = None
    split: str = "test"
    count: int | None = None
    floors: bool = True
    settings: EvaluationSettings | None = None
    device: str = "auto"
    command: str = ""


@dataclass(frozen=True)
class CompareResult:
    """The comparison, and its folder with comparison.html, .json, .md and .tex, the figure and each system's report."""

    comparison: Comparison
    folder: Path

    @property
    def page(self) -> Path:
        """The page to read."""
        return self.folder / "comparison.html"


def compare(request: CompareRequest, *, monitor: Monitor | None = None) -> CompareResult:
    """Sample and evaluate every system on the same label maps, and write the tables and the figure.

    Raises SettingsError where the label maps or the names are not the same or not unique, and what `evaluate` raises.
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.reporting.comparison import write_comparison

    _require_contenders(request.contenders)
    dataset = PreparedDataset.open(request.dataset)
    with watched_by(monitor):
        contenders = [*request.contenders, *(_floors(dataset, request) if request.floors else ())]
        systems: list[Compared] = []
        reports: list[Report] = []
        sets: dict[str, SampleSet] = {}
        for contender in contenders:
            if contender.path is None:
                systems.append(_not_run(contender))
                continue
            system, report, samples = _evaluated(contender, dataset, request)
            _require_same_maps(sets, samples, contender)
            sets[contender.name] = samples
            systems.append(system)
            reports.append(report)
        comparison = _compared(request, contenders, systems, reports)
        write_comparison(request.out, comparison, _figure(dataset, sets))
    return CompareResult(comparison, request.out)


def _require_contenders(contenders: Sequence[Contender]) -> None:
    names = [contender.name for contender in contenders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"two systems are called '{twice}'", hint="Name them: anatogen compare ours=RUN other=RUN")
    if not any(contender.path is not None for contender in contenders):
        raise SettingsError("there is no system to compare", hint="Name runs or sample sets")
    bad = next((name for name in names if name in (".", "..") or not name or set(name) & set("/\\:")), None)
    if bad is not None:
        raise SettingsError(f"'{bad}' is no name for a system", hint="Use letters, digits, spaces and hyphens")


def _floors(dataset: PreparedDataset, request: CompareRequest) -> list[Contender]:
    """Retrieval and painting, made in the folder of the comparison, where no contender is one."""
    from anatogen.baselines.painting import PAINTING, make_painting
    from anatogen.baselines.retrieval import RETRIEVAL, make_retrieval
    from anatogen.errors import ModelError
    from anatogen.model import read_run

    there = {contender.name for contender in request.contenders}
    kinds = set()
    for contender in request.contenders:
        if contender.path is not None and (contender.path / "model.json").is_file():
            kinds.add(read_run(contender.path).kind)
    found = []
    for name, make in ((RETRIEVAL, make_retrieval), (PAINTING, make_painting)):
        if name in there or name in kinds:
            continue
        run = request.out / "floors" / name
        try:
            known = read_run(run).about.trained_on == dataset.digest_of("train")
        except ModelError:
            known = False
        if not known:
            make(dataset, run)
        found.append(Contender(name, run))
    return found


def _not_run(contender: Contender) -> Compared:
    from anatogen.reporting.comparison import Compared

    return Compared(name=contender.name, not_run=contender.not_run or "no reason was given")


def _evaluated(
    contender: Contender, dataset: PreparedDataset, request: CompareRequest
) -> tuple[Compared, Report, SampleSet]:
    """One system, judged."""
    from anatogen.evaluation.comparing import cost_of, scores_of
    from anatogen.generation.kinds import load_model
    from anatogen.generation.sample_set import SampleSet
    from anatogen.model import read_run
    from anatogen.reporting.comparison import Compared, Cost
    from anatogen.workflows.evaluate import EvaluateRequest, evaluate, generator_of

    assert contender.path is not None
    _log.info("%s", contender.name)
    folder = request.out / contender.name
    is_run = (contender.path / "model.json").is_file()
    subjects = (contender.path, *([contender.heldout] if contender.heldout is not None else []))
    result = evaluate(
        EvaluateRequest(
            subjects=subjects,
            dataset=dataset,
            out=folder,
            only=request.only,
            split=request.split,
            count=request.count,
            settings=request.settings,
            quick=True,
            device=request.device,
            command=request.command,
        )
    )
    samples = SampleSet.open(folder / "samples" if is_run else contender.path)
    model = load_model(contender.path, device=request.device) if is_run else None
    run: Path | None = contender.path if is_run else None
    if model is None:
        model, run = generator_of(samples, request.device, None)
    cost = Cost()
    if model is not None:
        with stage(f"measuring the cost of {contender.name}", 1, "system"):
            cost = cost_of(model, [samples.label_map(entry) for entry in samples.entries[:16]])
    system = Compared(
        name=contender.name,
        kind=read_run(run).kind if run is not None else None,
        report=contender.name,
        cost=cost,
        **scores_of(result.report),
    )
    return system, result.report, samples


def _require_same_maps(sets: dict[str, SampleSet], samples: SampleSet, contender: Contender) -> None:
    """Raises SettingsError where a sample set does not follow the label maps of the others."""

    def maps_of(these: SampleSet) -> set[tuple[str | None, ...]]:
        return {
            (e.elsewhere, e.case, str(e.slice), e.file_of_map, str(e.slice_of_map), str(e.edit), *e.edits)
            for e in these.entries
        }

    if not sets:
        return
    name, other = next(iter(sets.items()))
    ours, theirs = maps_of(samples), maps_of(other)
    if ours != theirs:
        raise SettingsError(
            f"its {len(ours)} label maps are not those of {name} ({len(theirs)}, {len(ours & theirs)} in common)",
            path=contender.path,
            hint="Compare systems on the same label maps: name runs, or sample with the same --split and --count",
        )
    if {e.free for e in samples.entries} != {e.free for e in other.entries}:
        raise SettingsError(
            f"other classes were left free than for {name}",
            path=contender.path,
            hint="Sample with the same --given or --free",
        )


def _compared(
    request: CompareRequest, contenders: Sequence[Contender], systems: Sequence[Compared], reports: Sequence[Report]
) -> Comparison:
    from anatogen import __version__
    from anatogen.baselines.painting import PAINTING
    from anatogen.baselines.retrieval import RETRIEVAL
    from anatogen.evaluation.comparing import with_differences, with_floors
    from anatogen.reporting.comparison import Comparison
    from anatogen.settings import command_of_process

    reference = next(contender.name for contender in contenders if contender.path is not None)
    floors = {system.kind: system.name for system in systems}
    judged = with_floors(with_differences(systems, reference), floors.get(RETRIEVAL), floors.get(PAINTING))
    first = reports[0]
    return Comparison(
        n=first.n,
        split=first.split,
        reference=reference,
        systems=judged,
        ceiling=first.faithfulness.dice_real_map if first.faithfulness else None,
        real=first.utility.real if first.utility else None,
        command=request.command or command_of_process(),
        version=__version__,
        dataset=first.dataset,
    )


def _figure(dataset: PreparedDataset, sets: dict[str, SampleSet]) -> Figure | None:
    """Rows of label maps, columns of systems, as in Fig. 2 of the paper; None where no map is of the data set."""
    from anatogen.data.placement import typical_spacing
    from anatogen.evaluation.sections.base import spread
    from anatogen.evaluation.selection import entries_and_rows
    from anatogen.reporting import figures
    from anatogen.reporting.report import Figure

    first = next(iter(sets.values()))
    entries, rows = entries_and_rows(first, dataset)
    if rows is None:
        return None
    spacing, lines = typical_spacing(dataset), list[list[tuple[str, object]]]()
    for place in spread(rows, _SHOWN):
        row: Row = rows[place]
        real = dataset.load([row])
        view = figures.view_of(real.labels[0].numpy(), spacing)
        line: list[tuple[str, object]] = [
            ("label map", figures.coloured(first.label_map(entries[place]), dataset.schema, view)),
            ("real image", figures.gray(real.images[0].numpy(), view)),
        ]
        for name, samples in sets.items():
            entry = next(e for e in samples.entries if (e.case, e.slice) == (row.case, row.slice))
            line.append((name, figures.gray(samples.image(entry), view)))
        lines.append(line)
    caption = (
        "A row a label map, a column a system: the map, the real image that it was drawn on, and the image that each "
        "system generated from the map. One slice a patient first, none selected by quality."
    )
    return Figure("systems", "The systems side by side", figures.grid(lines), caption)  # type: ignore[arg-type]
