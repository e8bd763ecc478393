"""The text files of a prepared data set: dataset.json, index.csv, and names.csv, which is private.

names.csv is the only file with the names of cases and patients. Everything else, including whatever is made from the
data set, has running numbers instead (`pseudonyms`).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from anatogen.data.intensity import IntensityMapping
from anatogen.errors import DataError
from anatogen.files import writing
from anatogen.labels import LabelClass
from anatogen.settings import Document

SYNTHETIC_LAYOUTS = ("phantom", "brain-template")  # sources without real patients
INDEX, NAMES = "index.csv", "names.csv"
_INDEX_FIELDS = ("row", "case", "patient", "slice", "split", "annotated")
_NAMES_FIELDS = ("pseudonym", "patient_pseudonym", "case", "patient", "file", "note")


@dataclass(frozen=True)
class CaseRecord:
    """One case: its patient and split, the geometry of its canonical volume, and an intensity mapping for each channel.

    Attributes:
        affine: From voxel (x, y, z) of the volume, whose axes run to left, posterior, inferior, to RAS millimetres.
        source_axes: The orientation of the file, for instance "RAS".
        crop: The volume's first voxel in the whole scan, if it was cropped.
        remarks: The readers' remarks on its files.
        attributes: Of the patient, as in the source.
    """

    patient: str
    split: str
    affine: list[list[float]]
    grid: list[int]
    intensity: list[IntensityMapping]
    annotated: list[str]
    source_axes: str = ""
    crop: list[int] | None = None
    remarks: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance of voxel centres along x, y and z, in mm."""
        x, y, z = np.linalg.norm(np.asarray(self.affine)[:3, :3], axis=0)
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class PatientGrouping:
    """How cases were grouped into patients.

    Attributes:
        by: The layout's own ids, the case names, a pattern, or a table.
        cases, patients: Their numbers before any were left out.
        words: The words in the names that distinguished scans of one patient.
    """

    by: Literal["layout", "names", "pattern", "table"]
    cases: int
    patients: int
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SkippedCase:
    """A case that could not be read and was left out, and the reason."""

    case: str
    problem: str


class DatasetInfo(Document):
    """dataset.json.

    Attributes:
        axis: The slice direction, or "volume".
        size: (H, W) or (D, H, W).
        notice: A caution on the use of the data.
        fit, spacing_mm, intensity_rule, field_of_view: How the items were made.
        settings: All settings of `prepare`.
        ignored: The value of voxels of unknown class in the label maps, which no class has.
        names_kept: Whether cases and patients have their original names.
        grouping: None if it was not recorded (format 1).
        skipped: Cases that could not be read.
        same_images: Cases with identical pixels, which count as one patient.
    """

    FORMAT: ClassVar[int] = 2
    HINT: ClassVar[str] = "Prepare the data again"

    classes: list[LabelClass]
    channels: list[str]
    axis: str
    size: list[int]
    fit: str
    intensity_rule: dict[str, Any]
    split_seed: int
    source: dict[str, Any]
    version: str
    cases: dict[str, CaseRecord]
    notice: str = ""
    spacing_mm: list[float] | None = None
    field_of_view: list[int] | None = None
    ignored: int | None = None
    command: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    names_kept: bool = False
    grouping: PatientGrouping | None = None
    skipped: list[SkippedCase] = Field(default_factory=list)
    same_images: list[list[str]] = Field(default_factory=list)

    @property
    def real(self) -> bool:
        """Whether the images are of real patients."""
        return self.source.get("layout") not in SYNTHETIC_LAYOUTS

    @classmethod
    def upgraded(cls, raw: dict[str, Any], format: int) -> dict[str, Any]:  # noqa: ARG003
        """Format 1 contains the names of cases and patients, and neither settings nor grouping."""
        return {**raw, "names_kept": True}


@dataclass(frozen=True)
class Row:
    """One line of index.csv: one image and label map in the store."""

    row: int
    case: str
    patient: str
    slice: int
    split: str
    annotated: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name for files: case and slice, without the separators that names in sets of format 1 may contain."""
        return re.sub(r"^\.*[/\\]|[/\\]", "_", f"{self.case}_{self.slice:04d}")


def write_index(path: Path, rows: Iterable[Row]) -> None:
    """Write index.csv. Raises OutputError if it cannot be written."""
    with writing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_INDEX_FIELDS)
        for r in rows:
            annotated = json.dumps(r.annotated, ensure_ascii=False)
            writer.writerow([r.row, r.case, r.patient, r.slice, r.split, annotated])


def read_index(path: Path) -> tuple[Row, ...]:
    """The rows of index.csv. Raises DataError if it is damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_row(line) for line in csv.DictReader(file))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"is damaged ({error})", path=path, hint="Prepare the data again") from error


def _row(line: dict[str, str]) -> Row:
    annotated = tuple(str(name) for name in json.loads(line["annotated"]))
    return Row(int(line["row"]), line["case"], line["patient"], int(line["slice"]), line["split"], annotated)


@dataclass(frozen=True)
class OriginalName:
    """A line of names.csv: the names of a case and its patient in the source, and the files of the case.

    Attributes:
        note: Why it was left out, if it was.
    """

    pseudonym: str
    patient_pseudonym: str
    case: str
    patient: str
    file: str
    note: str = ""


def write_names(path: Path, names: Iterable[OriginalName]) -> None:
    """Write names.csv. Raises OutputError if it cannot be written."""
    with writing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_NAMES_FIELDS)
        writer.writerows([n.pseudonym, n.patient_pseudonym, n.case, n.patient, n.file, n.note] for n in names)


def read_names(path: Path) -> dict[str, OriginalName]:
    """The lines of names.csv by pseudonym; empty if the file was removed. Raises DataError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [OriginalName(*(line[name] for name in _NAMES_FIELDS)) for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"is damaged ({error})", path=path, hint="Remove it; only the original names are lost"
        ) from error
    return {line.pseudonym: line for line in lines}
