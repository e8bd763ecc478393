"""The contents of a prepared set once all its cases are read: patients, splits, rows, names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.documents import CaseRecord, DatasetInfo, OriginalName, PatientGrouping, Row, SkippedCase
from anatogen.data.patients import joined_by_pixels
from anatogen.data.pseudonyms import NamedCase
from anatogen.data.slicing import SliceSettings
from anatogen.data.sources.base import Source
from anatogen.data.split import DEFAULT_SHARES, split_patients
from anatogen.data.store_writer import Entry
from anatogen.errors import DataError
from anatogen.labels import LabelSchema

MOST_RATIO = 2.0
"""How much longer the voxels of one case may be than those of another, where volumes are not resampled."""
BLANK = "blank "  # prefix of a digest that unrelated cases may share


@dataclass(frozen=True)
class PrepareSettings(SliceSettings):
    """How cases are cut (see `SliceSettings`), split and named.

    Attributes:
        shares: Of the patients for each split, if the source has no split of its own.
        seed: Of that split.
        ignore_split: Make a new split even if the source has one.
        workers: Processes that read cases; None for one per core.
        crop_margin_mm: Crop all cases to one field of view, centred on the labels of each, that contains the largest
            labelled box plus this margin on every side. Cases of different spacing are resampled to their median,
            unless spacing_mm is set.
        skip_faulty: Leave out cases that cannot be read.
        keep_names: Keep the names of cases and patients, made safe as file names (always so for virtual patients).
    """

    shares: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    seed: int = 0
    ignore_split: bool = False
    workers: int | None = None
    crop_margin_mm: float | None = None
    skip_faulty: bool = False
    keep_names: bool = False

    def plain(self) -> dict[str, Any]:
        """The settings that affect the result, as JSON values."""
        values = asdict(self)
        del values["workers"]
        return dict(json.loads(json.dumps(values)))


@dataclass(frozen=True)
class FinishedSet:
    """A set whose cases are all read: their patients, splits, rows and names.

    Attributes:
        kept: The cases in the store, by pseudonym.
    """

    source: Source
    settings: PrepareSettings
    records: dict[str, CaseRecord]
    rows: list[Row]
    names: list[OriginalName]
    skipped: list[SkippedCase]
    same_images: list[list[str]]
    fingerprint: str

    @classmethod
    def of(
        cls, entries: Sequence[Entry], cases: Sequence[NamedCase], source: Source, settings: PrepareSettings
    ) -> FinishedSet:
        """The patients and splits of what was written. Raises DataError if identical pixels are in two given splits."""
        kept = [named for named, entry in zip(cases, entries, strict=True) if entry.record is not None]
        digests = {e.case: e.digest for e in entries if e.record is not None and not e.digest.startswith(BLANK)}
        patients, same = joined_by_pixels({c.name: c.case.patient for c in kept}, digests)
        splits = splits_of(kept, patients, settings, source.location)
        if settings.sliced is None and settings.spacing_mm is None and settings.crop_margin_mm is None:
            require_similar_voxels({e.case: e.record for e in entries if e.record is not None}, cases, source)
        pseudonym = {c.case.patient: c.patient for c in cases}
        records: dict[str, CaseRecord] = {}
        rows: list[Row] = []
        for entry in entries:
            if entry.record is None:
                continue
            patient = patients[entry.case]
            records[entry.case] = replace(entry.record, patient=pseudonym[patient], split=splits[patient])
            about = pseudonym[patient], splits[patient], tuple(entry.record.annotated)
            rows += [Row(len(rows) + i, entry.case, about[0], k, *about[1:]) for i, k in enumerate(entry.positions)]
        names = [
            OriginalName(
                c.name,
                records[c.name].patient if c.name in records else c.patient,
                c.case.id,
                c.case.patient,
                "; ".join(map(str, c.case.files)),
                e.message,
            )
            for c, e in zip(cases, entries, strict=True)
        ]
        skipped = [
            SkippedCase(e.case, without_names(e.problem, c))
            for c, e in zip(cases, entries, strict=True)
            if e.record is None
        ]
        content = sorted(
            f"{e.digest}\t{e.record.annotated}\t{c.case.split}"
            for c, e in zip(cases, entries, strict=True)
            if e.record is not None
        )
        of_content = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
        return cls(source, settings, records, rows, names, skipped, same, of_content)

    def info(self, grouping: PatientGrouping, command: str, version: str) -> DatasetInfo:
        """The content of dataset.json."""
        source, settings = self.source, self.settings
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
                "fingerprint": self.fingerprint,
                **source.terms,
                **_declared(source.schema),
            },
            version=version,
            cases=self.records,
            notice=source.notice,
            field_of_view=list(settings.field_of_view) if settings.field_of_view else None,
            ignored=source.schema.ignored,
            command=command,
            settings=settings.plain(),
            names_kept=settings.keep_names,
            grouping=grouping,
            skipped=self.skipped,
            same_images=self.same_images,
        )


def require_similar_voxels(records: dict[str, CaseRecord], cases: Sequence[NamedCase], source: Source) -> None:
    """Raises DataError where the voxels of one case are over `MOST_RATIO` times as long as those of another.

    The same anatomy would have other proportions in each volume.
    """
    spacings = {case: np.linalg.norm(np.array(record.affine)[:3, :3], axis=0) for case, record in records.items()}
    if not spacings:
        return
    lengths = np.stack(list(spacings.values()))
    axis = int(np.argmax(lengths.max(axis=0) / lengths.min(axis=0)))
    if lengths[:, axis].max() <= MOST_RATIO * lengths[:, axis].min():
        return
    named = {c.name: c.case.id for c in cases}
    ends = [list(spacings)[int(pick(lengths[:, axis]))] for pick in (np.argmin, np.argmax)]
    short, long = (f"{named.get(case, case)} ({_mm(spacings[case])})" for case in ends)
    median = ",".join(f"{value:.3g}" for value in np.median(lengths, axis=0))
    raise DataError(
        f"the voxels of cases are of different size: {short} and {long}",
        path=source.location,
        hint=f"Resample them to one, for instance their median: --spacing {median}",
    )


def _mm(spacing: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing) + " mm"


def without_names(text: str, named: NamedCase) -> str:
    """`text` about a case, with its pseudonym in place of its own name and those of its files."""
    case = named.case
    names = {str(file) for file in case.files} | {file.name for file in case.files} | {case.id, case.patient}
    names |= {file.name.split(".")[0] for file in case.files} | {str(file.parent) for file in case.files}
    for name in sorted(names - {"", "."}, key=len, reverse=True):
        text = text.replace(name, named.name)
    return re.sub(r"(?<!\S)(?:/|[A-Za-z]:[/\\])\S+", "(a file)", text)


def splits_of(
    cases: Sequence[NamedCase], patients: dict[str, str], settings: PrepareSettings, location: str
) -> dict[str, str]:
    """The split of each patient: the source's own if it has one.

    Args:
        patients: The patient of each case, by its name in the prepared set; patients who share pixels count as one.

    Raises:
        DataError: A patient is in two splits, or a case in none.
    """
    given = {c.name: c.case.split for c in cases}
    if all(split is None for split in given.values()):
        return split_patients(patients.values(), settings.shares, settings.seed)
    splits: dict[str, str] = {}
    first: dict[str, str] = {}
    for named in cases:
        split, patient = named.case.split, patients[named.name]
        if split is None:
            raise DataError(f"case {named.case.id} is in no split", path=location)
        other = first.setdefault(patient, named.case.id)
        if splits.setdefault(patient, split) != split:
            what = f"patient {patient} is in the splits {splits[patient]} and {split}"
            raise DataError(
                f"{what} (cases {other} and {named.case.id})",
                path=location,
                hint="Put all cases of a patient and all copies of an image into one split, or use --ignore-split",
            )
    return splits


def _declared(schema: LabelSchema) -> dict[str, Any]:
    """The label values in the source files, if they differ from the classes: for writing such files again."""
    if (
        schema.ignore is None
        and schema.values == tuple(range(schema.count))
        and not any(c.regions for c in schema.classes)
    ):
        return {}
    regions = {c.name: list(c.regions) for c in schema.classes if c.regions}
    return {"labels": {"values": list(schema.values), "regions": regions, "ignore": schema.ignore}}
