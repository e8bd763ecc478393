"""From a source to a prepared data set, case by case, in parallel, resumable, whole or not there."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anatogen.data.cropping import FieldOfView
from anatogen.data.slicing import CaseItems, SliceSettings, cut_case, extent_of_case
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.split import DEFAULT_SHARES, split_patients
from anatogen.data.store import CaseRecord, DatasetInfo, PreparedDataset, Row, StoreWriter
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.labels import LabelSchema

_Result = TypeVar("_Result")

_FEW_CASES = 12  # below, starting workers takes longer than the work


@dataclass(frozen=True)
class PrepareSettings(SliceSettings):
    """How cases are cut, and: shares, of the patients for each split, where the source has no split of its own.

    seed: of that split. ignore_split: split anew even then. workers: processes that read cases; None for one a core.
    crop_margin_mm: cut one field of view out of every case, centred on its labels, that shows the largest labelled box and
    this margin on every side. Cases of different spacing are resampled to their median then, unless spacing_mm says more.
    """

    shares: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    seed: int = 0
    ignore_split: bool = False
    workers: int | None = None
    crop_margin_mm: float | None = None


def prepare(
    source: Source,
    out: str | Path,
    settings: PrepareSettings | None = None,
    *,
    version: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> PreparedDataset:
    """Write the cases of `source` to a new folder `out`, which is whole or not there, and open it.

    The work is done beside `out` in a hidden folder. Where it is interrupted or the disk is full, that folder stays, and
    the same call goes on after the last whole case. progress: called as progress(cases done, cases). Raises DataError
    for a case that cannot be used, naming its file, OutputError where `out` cannot be written, SettingsError where it
    is there already.
    """
    settings = settings or PrepareSettings()
    out = Path(out)
    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")
    splits = _splits(source, settings)
    settings = _with_field_of_view(source, settings)
    work = out.with_name(f".{out.name}.partial")
    with _kept_if_resumable(out, work):
        writer = StoreWriter.resume_or_create(
            work, len(source.channels), settings.size, source.schema.largest, _recipe(source, settings)
        )
        remaining = replace(source, cases=source.cases[len(writer.records) :])
        for case, items in zip(remaining.cases, _cut_all(remaining, settings), strict=True):
            annotated = case.annotated if case.annotated is not None else source.schema.names
            split, first = splits[case.patient], len(writer.rows)
            rows = [
                Row(first + i, case.id, case.patient, k, split, tuple(annotated)) for i, k in enumerate(items.positions)
            ]
            record = CaseRecord(
                case.patient,
                split,
                items.affine.tolist(),
                list(items.grid),
                items.intensity,
                list(annotated),
                items.source_axes,
                list(items.crop) if items.crop is not None else None,
                list(items.remarks),
                dict(case.attributes),
            )
            writer.append(case.id, record, items.images, items.labels, rows)
            if progress is not None:
                progress(len(writer.records), len(source.cases))
        if not writer.rows:
            raise DataError(
                "no slice has a label", path=source.location, hint="Use --keep-empty, or check the label maps"
            )
        writer.finish(_info(source, settings, writer.records, version))
        work.replace(out)
    return PreparedDataset.open(out)


@contextmanager
def _kept_if_resumable(out: Path, work: Path) -> Iterator[None]:
    """Bad data removes the hidden folder; a full disk, Ctrl-C or a crash leaves it to be gone on with."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (DataError, SettingsError):
        shutil.rmtree(work, ignore_errors=True)
        raise
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OutputError(
            f"cannot be written ({reason})",
            path=out,
            hint="Free space or choose another place; the same command goes on where it stopped",
        ) from error


def _with_field_of_view(source: Source, settings: PrepareSettings) -> PrepareSettings:
    """`settings` with the field of view that all cases are cut to, where one was asked for; reads every label map."""
    if settings.crop_margin_mm is None:
        return settings
    measure = partial(extent_of_case, schema=source.schema, channels=len(source.channels))
    view = FieldOfView.common(_each_case(measure, source, settings), settings.crop_margin_mm, settings.spacing_mm)
    spacing = view.spacing_mm if view.resampled else None
    return replace(settings, field_of_view=view.voxels, spacing_mm=spacing)


def _cut_all(source: Source, settings: PrepareSettings) -> Iterator[CaseItems]:
    """The items of every case in order."""
    return _each_case(
        partial(cut_case, schema=source.schema, channels=len(source.channels), settings=settings), source, settings
    )


def _each_case(cut: Callable[[SourceCase], _Result], source: Source, settings: PrepareSettings) -> Iterator[_Result]:
    """What `cut` makes of every case in order, a few cases ahead of their consumer where there are workers."""
    workers = settings.workers or os.cpu_count() or 1
    if workers == 1 or len(source.cases) < _FEW_CASES:
        yield from map(cut, source.cases)
        return
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(start)) as pool:
        waiting: deque[Future[_Result]] = deque()
        cases = iter(source.cases)
        try:
            for case in cases:
                waiting.append(pool.submit(cut, case))
                if len(waiting) > 2 * workers:  # bounds the memory, whatever the number of cases
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, perhaps for lack of memory", path=source.location, hint="Use --workers 1"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _splits(source: Source, settings: PrepareSettings) -> dict[str, str]:
    """The split of each patient: the source's own where it has one. Raises DataError where a patient is in two."""
    if settings.ignore_split or all(case.split is None for case in source.cases):
        return split_patients((case.patient for case in source.cases), settings.shares, settings.seed)
    splits: dict[str, str] = {}
    for case in source.cases:
        if case.split is None:
            raise DataError(f"case {case.id} is in no split", path=source.location)
        if splits.setdefault(case.patient, case.split) != case.split:
            raise DataError(
                f"patient {case.patient} is in the splits {splits[case.patient]} and {case.split}",
                path=source.location,
                hint="Put all cases of a patient into one split",
            )
    return splits


def _recipe(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """What a half-written store must have been made from for its work to be gone on with."""
    recipe = {
        "fingerprint": fingerprint(source),
        "classes": source.schema.names,
        "settings": {**asdict(settings), "workers": None},
    }
    return dict(json.loads(json.dumps(recipe)))


def _info(source: Source, settings: PrepareSettings, records: dict[str, CaseRecord], version: str) -> DatasetInfo:
    return DatasetInfo(
        classes=list(source.schema.classes),
        channels=list(source.channels),
        axis=settings.axis if settings.sliced is not None else "volume",
        size=list(settings.size),
        fit=settings.fit,
        spacing_mm=list(settings.spacing_mm) if settings.spacing_mm else None,
        intensity_rule=asdict(settings.intensity),
        split_seed=settings.seed,
        source={
            "layout": source.layout,
            "name": Path(source.location).name,
            "fingerprint": fingerprint(source),
            **source.terms,
            **_declared(source.schema),
        },
        version=version,
        cases=records,
        notice=source.notice,
        field_of_view=list(settings.field_of_view) if settings.field_of_view else None,
        ignored=source.schema.ignored,
    )


def _declared(schema: LabelSchema) -> dict[str, Any]:
    """What stood for the classes in the files, where that is something else: for who writes such files again."""
    if (
        schema.ignore is None
        and schema.values == tuple(range(schema.count))
        and not any(c.regions for c in schema.classes)
    ):
        return {}
    regions = {c.name: list(c.regions) for c in schema.classes if c.regions}
    return {"labels": {"values": list(schema.values), "regions": regions, "ignore": schema.ignore}}


def fingerprint(source: Source) -> str:
    """A digest of the cases' names, patients, splits and file sizes: it tells two sources apart without reading them."""
    digest = hashlib.sha256()
    for case in source.cases:
        sizes = [f.stat().st_size if f.exists() else -1 for f in case.files]
        digest.update(f"{case.id}\t{case.patient}\t{case.split}\t{case.annotated}\t{sizes}\n".encode())
    return digest.hexdigest()[:16]
