"""From a source to a prepared data set, case by case, in parallel, resumable, whole or not there."""

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
    """Write the cases of `source` to a new folder `out`, which is whole or not there, and open it.

    The work is done beside `out` in a hidden folder. Where it is interrupted or the disk is full, that folder stays, and
    the same call resumes after the last whole case. What was grouped, left out and kept together is in the `info` of the result
    (`grouping`, `skipped`, `same_images`), the names of cases in its `names`.

    Args:
        source: the cases. Where nobody says which patient each is of, their names do (`naming.grouping`).
        out: a new folder.
        settings: how to cut and split them.
        command: how the work was asked for; written to dataset.json, so without paths.
        version: of the program.
        progress: called as progress(cases done, cases).

    Raises:
        DataError: for a case that cannot be used, naming its file.
        SettingsError: where `out` exists, or where the names of cases do not tell their patients.
        OutputError: where `out` cannot be written, or another process is writing it.
    """
    settings = settings or PrepareSettings()
    out = Path(out)
    _refuse_existing(out)
    known = with_known_patients(source if not settings.ignore_split else _withoutsplits_of(source)).require()
    source = known.source
    if source.layout in SYNTHETIC_LAYOUTS:  # names of nobody, which say that they are
        settings = replace(settings, keep_names=True)
    cases = named_cases(source.cases, settings.seed, keep_names=settings.keep_names)
    splits_of(cases, {c.name: c.case.patient for c in cases}, settings, source.location)  # before the long work
    work = out.with_name(f".{out.name}.partial")
    with _told(out), locked(work, hint="Wait for it to end, or prepare to another folder"), _kept_if_resumable(work):
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
            raise _with_the_way_out(found, source, read=len(writer.entries) + 1)
        if progress is not None:
            progress(len(writer.entries), len(cases))
    if not any(entry.record for entry in writer.entries):
        raise DataError(
            f"none of {len(cases)} cases can be read; the first: {writer.entries[0].message.rstrip('.')}",
            path=source.location,
            hint="Run anatogen check",
        )


def _entry(named: NamedCase, found: ReadCase, schema: LabelSchema) -> tuple[Entry, Any, Any]:
    """What the store keeps of a case; its patient and split are known once all cases are read."""
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


def _with_the_way_out(error: DataError, source: Source, read: int) -> DataError:
    """`error` of one case, with the option that leaves such cases out."""
    if len(source.cases) == 1:
        return error
    way = f"1 of {read} cases read so far is faulty; --skip-faulty leaves such cases out, and names them"
    return DataError(error.problem, path=error.path, hint=f"{error.hint.rstrip('.')}. {way}" if error.hint else way)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")


@contextmanager
def _kept_if_resumable(work: Path) -> Iterator[None]:
    """Bad data removes the hidden folder; a full disk, Ctrl-C or a crash leaves it to be resumed. The caller holds its lock."""
    try:
        yield
    except (DataError, SettingsError):
        _remove(work)
        raise


def _remove(work: Path) -> None:
    """Remove the hidden folder, the lock last: who waits for that finds the folder gone, or makes it anew."""
    clear(work)
    try:
        (work / LOCK_ENDING).unlink(missing_ok=True)
        work.rmdir()
    except OSError:  # Windows removes no file that is held
        pass


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """What a disk or a compressor says, as OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OutputError(
            f"cannot be written ({reason})",
            path=out,
            hint="Free space or choose another place; the same command resumes where it stopped",
        ) from error


def _with_field_of_view(source: Source, settings: PrepareSettings) -> PrepareSettings:
    """`settings` with the field of view that all cases are cut to, where one was asked for; reads every label map."""
    if settings.crop_margin_mm is None:
        return settings
    measure = partial(extent_of_case, schema=source.schema, channels=len(source.channels))
    extents = []
    for number, found in enumerate(each_case(measure, source.cases, settings.workers), start=1):
        if not isinstance(found, DataError):
            extents.append(found)
        elif not settings.skip_faulty:
            raise _with_the_way_out(found, source, read=number)
    view = FieldOfView.common(extents, settings.crop_margin_mm, settings.spacing_mm)
    spacing = view.spacing_mm if view.resampled else None
    return replace(settings, field_of_view=view.voxels, spacing_mm=spacing)


def _withoutsplits_of(source: Source) -> Source:
    return replace(source, cases=tuple(replace(case, split=None) for case in source.cases))


def _recipe(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """What a half-written store must have been made from for its work to be resumed."""
    recipe = {"fingerprint": fingerprint(source), "classes": source.schema.names, "settings": settings.plain()}
    return dict(json.loads(json.dumps(recipe)))


def fingerprint(source: Source) -> str:
    """A digest of the cases' names, patients, splits and file sizes: it tells two sources apart without reading them.

    Never kept in a prepared set, where it would confirm a guess of the names; there is a digest of the images' content.
    """
    digest = hashlib.sha256()
    for case in source.cases:
        sizes = [f.stat().st_size if f.exists() else -1 for f in case.files]
        digest.update(f"{case.id}\t{case.patient}\t{case.split}\t{case.annotated}\t{sizes}\n".encode())
    return digest.hexdigest()[:16]
