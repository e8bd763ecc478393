"""From a source to a prepared data set: case by case, in parallel, resumable, atomic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from anatogen import __version__
from anatogen.data.cropping import FieldOfView
from anatogen.data.documents import SYNTHETIC_LAYOUTS, CaseRecord
from anatogen.data.finished import BLANK, FinishedSet, PrepareSettings, splits_of
from anatogen.data.patients import with_known_patients
from anatogen.data.pool import each_case
from anatogen.data.pseudonyms import NamedCase, named_cases
from anatogen.data.slicing import extent_of_case
from anatogen.data.sources.base import Source
from anatogen.data.store import PreparedDataset
from anatogen.data.store_writer import Entry, StoreWriter, clear
from anatogen.data.worker import ReadCase, read_case, slice_settings
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.files import LOCK_ENDING, locked
from anatogen.labels import LabelSchema

__all__ = ["PrepareSettings", "fingerprint", "prepare"]

_FROM_PYTHON = "anatogen.data.prepare.prepare, from Python"


def prepare(
    source: Source,
    out: str | Path,
    settings: PrepareSettings | None = None,
    *,
    command: str = _FROM_PYTHON,
    version: str = __version__,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedDataset:
    """Write the cases of `source` to a new folder `out` atomically, and open it.

    The work is done in a hidden folder beside `out`. If it is interrupted or the disk is full, that folder is kept, and
    the same call resumes after the last complete case. What was grouped, left out and kept together is in the `info` of
    the result (`grouping`, `skipped`, `same_images`), the case names in its `names`.

    Args:
        source: The cases. If their patients are unknown, they are grouped by name (`naming.grouping`).
        out: A new folder.
        settings: How to cut and split them.
        command: The command, recorded in dataset.json, so without paths.
        version: Of the program.
        progress: Called as progress(cases done, cases).

    Raises:
        DataError: A case cannot be used; names its file.
        SettingsError: `out` exists, or the case names are ambiguous.
        OutputError: `out` cannot be written, or another process is writing it.
    """
    settings = settings or PrepareSettings()
    out = Path(out)
    _refuse_existing(out)
    known = with_known_patients(source if not settings.ignore_split else _withoutsplits_of(source)).require()
    source = known.source
    if source.layout in SYNTHETIC_LAYOUTS:  # virtual patients, whose names say so
        settings = replace(settings, keep_names=True)
    cases = named_cases(source.cases, settings.seed, keep_names=settings.keep_names)
    splits_of(cases, {c.name: c.case.patient for c in cases}, settings, source.location)  # before the cases are read
    work = out.with_name(f".{out.name}.partial")
    with (
        _write_errors(out),
        locked(work, hint="Wait for it to end, or prepare to another folder"),
        _kept_if_resumable(work),
    ):
        _refuse_existing(out)
        settings = _with_field_of_view(source, settings)
        writer = StoreWriter.resume_or_create(
            work, len(source.channels), settings.size, source.schema.largest, _recipe(source, settings)
        )
        _write_cases(writer, cases, source, settings, progress)
        if not writer.items:
            raise DataError(
                "no slice has a label", path=source.location, hint="Use --keep-empty, or check the label maps"
            )
        store = FinishedSet.of(writer.entries, cases, source, settings)
        data = writer.finish(store.info(known.grouping, command, version), store.rows, store.names)
        data.replace(out)
        _remove(work)
    return PreparedDataset.open(out)


def _write_cases(
    writer: StoreWriter,
    cases: Sequence[NamedCase],
    source: Source,
    settings: PrepareSettings,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Append every case that is not in the store yet."""
    read = partial(read_case, schema=source.schema, channels=len(source.channels), settings=slice_settings(settings))
    left = cases[len(writer.entries) :]
    for named, found in zip(left, each_case(read, [c.case for c in left], settings.workers), strict=True):
        if isinstance(found, ReadCase):
            writer.append(*_entry(named, found, source.schema))
        elif settings.skip_faulty:
            writer.skip(named.name, found)
        else:
            raise _with_skip_hint(found, source, read=len(writer.entries) + 1)
        if progress is not None:
            progress(len(writer.entries), len(cases))
    if not any(entry.record for entry in writer.entries):
        raise DataError(
            f"none of {len(cases)} cases can be read; the first: {writer.entries[0].message.rstrip('.')}",
            path=source.location,
            hint="Run anatogen check",
        )


def _entry(named: NamedCase, found: ReadCase, schema: LabelSchema) -> tuple[Entry, Any, Any]:
    """The store's entry of a case; its patient and split are set once all cases are read."""
    case, items = named.case, found.items
    annotated = case.annotated if case.annotated is not None else schema.names
    record = CaseRecord(
        "",
        "",
        items.affine.tolist(),
        list(items.grid),
        items.intensity,
        list(annotated),
        items.source_axes,
        list(items.crop) if items.crop is not None else None,
        list(items.remarks),
        dict(case.attributes),
    )
    digest = f"{BLANK if found.blank else ''}{found.digest}"
    return Entry(named.name, record, list(items.positions), digest), items.images, items.labels


def _with_skip_hint(error: DataError, source: Source, read: int) -> DataError:
    """`error` of one case, with the option that leaves such cases out."""
    if len(source.cases) == 1:
        return error
    skip = f"1 of {read} cases read so far is faulty; --skip-faulty leaves such cases out and lists them"
    return DataError(error.problem, path=error.path, hint=f"{error.hint.rstrip('.')}. {skip}" if error.hint else skip)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise SettingsError("already exists", path=out, hint="Choose another folder or remove it")


@contextmanager
def _kept_if_resumable(work: Path) -> Iterator[None]:
    """Bad data removes the hidden folder; other interruptions keep it for resuming. The caller holds its lock."""
    try:
        yield
    except (DataError, SettingsError):
        _remove(work)
        raise


def _remove(work: Path) -> None:
    """Remove the hidden folder, the lock last: a waiting process then finds no folder, or creates a new one."""
    clear(work)
    try:
        (work / LOCK_ENDING).unlink(missing_ok=True)
        work.rmdir()
    except OSError:  # Windows cannot remove an open file
        pass


@contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    """Raise errors of the disk or the compressor as OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OutputError(
            f"cannot be written ({reason})",
            path=out,
            hint="Free space or choose another location; the same command resumes where it stopped",
        ) from error


def _with_field_of_view(source: Source, settings: PrepareSettings) -> PrepareSettings:
    """`settings` with the common field of view of all cases, if requested; reads every label map."""
    if settings.crop_margin_mm is None:
        return settings
    measure = partial(extent_of_case, schema=source.schema, channels=len(source.channels))
    extents = []
    for number, found in enumerate(each_case(measure, source.cases, settings.workers), start=1):
        if not isinstance(found, DataError):
            extents.append(found)
        elif not settings.skip_faulty:
            raise _with_skip_hint(found, source, read=number)
    view = FieldOfView.common(extents, settings.crop_margin_mm, settings.spacing_mm)
    spacing = view.spacing_mm if view.resampled else None
    return replace(settings, field_of_view=view.voxels, spacing_mm=spacing)


def _withoutsplits_of(source: Source) -> Source:
    return replace(source, cases=tuple(replace(case, split=None) for case in source.cases))


def _recipe(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """The inputs that a partial store must have been made from to be resumed."""
    recipe: dict[str, Any] = {
        "fingerprint": fingerprint(source),
        "classes": source.schema.names,
        "settings": settings.plain(),
    }
    if any(case.attributes for case in source.cases):
        recipe["attributes"] = [dict(sorted(case.attributes.items())) for case in source.cases]
    if source.undrawn is not None:
        recipe["undrawn"] = source.undrawn
    return dict(json.loads(json.dumps(recipe)))


def fingerprint(source: Source) -> str:
    """A digest of the cases' names, patients, splits and file sizes, which distinguishes sources without reading them.

    It is not stored in a prepared set, where it could confirm a guess of the names; the set has a digest of the images.
    """
    digest = hashlib.sha256()
    for case in source.cases:
        sizes = [f.stat().st_size if f.exists() else -1 for f in case.files]
        digest.update(f"{case.id}\t{case.patient}\t{case.split}\t{case.annotated}\t{sizes}\n".encode())
    return digest.hexdigest()[:16]
