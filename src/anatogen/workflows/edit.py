"""Editing: a data set's label maps and a text of edits in, new label maps with a picture of them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from anatogen.errors import DataError, Interrupted, SettingsError, nearest
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.conditioning.plausibility import Limits
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.edited_folder import EditedFolder
    from anatogen.generation.edited_maps import EditedMaps, Editing, Implausible
    from anatogen.generation.manifest import EditsHeader, MapLine
    from anatogen.generation.plan import MapSource
    from anatogen.model import ModelSpec

OVERVIEW = "overview.png"
_SHOWN = 8


@dataclass(frozen=True)
class EditChoice:
    """How label maps are edited.

    Args:
        edits: texts in the edit language, each a recipe; edit k of a map takes recipe k modulo their number.
        per_map: edits of each map.
        implausible: "warn", "refuse" or "keep"; see `Editing`.
    """

    edits: tuple[str, ...] = ()
    per_map: int = 1
    implausible: str = "warn"

    def build(self, seed: int, limits: Limits | None, count: int | None = None) -> Editing:
        """The editing with these limits.

        Raises SettingsError for a text that is no edit, or an unknown word for what is implausible.
        """
        from anatogen.conditioning.edit_language import parse_edits
        from anatogen.generation.edited_maps import Editing, Implausible

        known = get_args(Implausible)
        if self.implausible not in known:
            raise SettingsError(
                f"there is no --implausible '{self.implausible}'", hint=nearest(self.implausible, known)
            )
        implausible = cast("Implausible", self.implausible)
        return Editing(parse_edits(self.edits), self.per_map, count, seed, limits, implausible)

    def limits(
        self, dataset: PreparedDataset | None, model: ModelSpec | None = None, renames: Mapping[str, str] | None = None
    ) -> tuple[Limits | None, list[str]]:
        """The limits of a data set's training patients, None where there are none, and why.

        Raises DataError where there are none and implausible edits are to be refused.
        """
        from anatogen.generation.edited_maps import limits_of

        if self.implausible == "keep":
            return None, []
        try:
            if dataset is None:
                hint = "Give a prepared data set as --masks, or --implausible keep"
                raise DataError("a folder of label maps has no training patients to learn limits from", hint=hint)
            return limits_of(dataset, model, renames=renames), []
        except DataError as error:
            if self.implausible == "refuse":
                raise
            return None, [f"note: edits are not checked for plausibility: {error.problem}"]


@dataclass(frozen=True)
class EditRequest:
    """What `anatogen edit` is asked for.

    Attributes:
        dataset: A prepared data set.
        out: The folder of the new maps; an incomplete one is resumed.
        split: Which maps are edited.
        count: New maps in all, of maps spread evenly; None: per_map of every map.
        command: As it was typed, for the record.
    """

    dataset: Path
    out: Path
    edits: EditChoice
    split: str = "test"
    count: int | None = None
    seed: int = 0
    command: str = ""


@dataclass(frozen=True)
class EditResult:
    """The new maps, their overview, and what the user should be told."""

    folder: Path
    maps: tuple[MapLine, ...]
    overview: Path
    notes: tuple[str, ...] = field(default=())


def edit(request: EditRequest, *, monitor: Monitor | None = None) -> EditResult:
    """Edit label maps, and draw an overview of them.

    Raises:
        SettingsError: An edit that cannot be read or done, or a folder that holds something else.
        DataError: No map shows a class that the edits need, or all are refused.
        OutputError, Interrupted: What was written stays valid; run it again to resume.
    """
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.edited_folder import EditedFolder
    from anatogen.generation.edited_maps import EditedMaps
    from anatogen.generation.plan import DatasetMaps

    request.edits.build(request.seed, None)  # what cannot be read is known before anything is learned
    dataset = PreparedDataset.open(request.dataset)
    source = DatasetMaps(dataset, dataset.split(request.split))
    with watched_by(monitor):
        limits, notes = request.edits.limits(dataset)
        maps = EditedMaps(source, request.edits.build(request.seed, limits, request.count))
        header = _header(request, dataset, source, limits)
        with EditedFolder(request.out, header) as folder:
            lines = _write(maps, folder)
            overview = _draw(maps, request.out)
    return EditResult(request.out, tuple(lines), overview, (*notes, *notes_of(maps, lines)))


def _header(request: EditRequest, dataset: PreparedDataset, source: MapSource, limits: Limits | None) -> EditsHeader:
    from anatogen import __version__
    from anatogen.data.placement import typical_spacing
    from anatogen.generation.manifest import EditsHeader, LearnedFrom
    from anatogen.settings import command_of_process

    editing = request.edits.build(request.seed, limits, request.count)
    return EditsHeader(
        version=__version__,
        command=request.command or command_of_process(),
        classes=tuple((c.name, c.colour) for c in dataset.schema.classes),
        label_maps=source.asked["label_maps"],
        split=request.split,
        edits=tuple(each.text for each in editing.edits),
        per_map=editing.per_map,
        count=editing.count,
        seed=editing.seed,
        implausible=editing.implausible,
        axis=source.axis,
        size=dataset.size,
        spacing_mm=typical_spacing(dataset),
        limits=None if limits is None else LearnedFrom(patients=limits.patients, maps=limits.maps),
    )


def _write(maps: EditedMaps, folder: EditedFolder) -> list[MapLine]:
    """Write the maps that are not there yet; the lines of all that were asked for."""
    names = [maps.name(number) for number in range(len(maps))]
    with stage("editing", len(names), "label maps") as bar:
        try:
            for number, name in enumerate(names):
                if name not in folder:
                    item = maps.item(number)
                    known = item.known.given_names(maps.schema)
                    folder.add(name, item.labels, known, item.origin, item.place)
                bar.update(number + 1)
        except KeyboardInterrupt as error:
            problem = f"editing was stopped; the {len(folder.lines)} label maps that were written stay valid"
            hint = "Run the same command again to make the rest"
            raise Interrupted(problem, path=folder.folder, hint=hint) from error
    asked = set(names)
    return [line for line in folder.lines if line.id in asked]


def _draw(maps: EditedMaps, out: Path) -> Path:
    from anatogen.files import writing
    from anatogen.reporting.edit_overview import edits_overview

    edits, spacing = [], None
    for number in maps.spread(min(_SHOWN, len(maps))):
        item = maps.item(number)
        assert item.unedited is not None
        spacing = spacing or item.spacing_mm
        done = "; ".join(item.origin.edits)
        mark = " (implausible)" if item.origin.implausible else ""
        edits.append((maps.name(number), done + mark, item.unedited, item.labels))
    with writing(out / OVERVIEW) as path:
        path.write_bytes(edits_overview(edits, maps.schema, spacing_mm=spacing))
    return out / OVERVIEW


def notes_of(maps: EditedMaps, lines: list[MapLine] | None = None) -> list[str]:
    """What users are told of edited maps: how many were left out, and, of `lines`, how many are implausible or as they
    were.
    """
    from anatogen.generation.edited_maps import TRIES

    notes = []
    if maps.unfit:
        notes.append(f"note: {maps.unfit} label maps lack a class that the edits need, and were left out")
    if maps.refused:
        notes.append(f"note: {maps.refused} edits were left out: {TRIES} tries of each were implausible")
    for line in (odd := [line for line in lines or () if line.implausible])[:1]:
        notes.append(
            f"note: {len(odd)} of {len(lines or ())} are implausible (maps.jsonl says why), "
            f"as {line.id}: {line.implausible[0]}"
        )
    if same := sum(not line.edits for line in lines or ()):
        notes.append(
            f"note: {same} of {len(lines or ())} are as they were: nothing to do, or no other map to take from"
        )
    return notes
