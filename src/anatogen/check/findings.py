"""The results of a check: findings, the use of each class, and the report of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anatogen.labels import LabelSchema

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: An error makes the data unfit for training, a warning is likely a mistake, a note is information.
        code: The kind of the finding.
        file: Relative to the data set, if it is inside.
        what: What was found.
        hint: What to do about it.
        fixable: Whether `fix_labels` can fix it without guessing.
    """

    severity: Severity
    code: str
    file: str
    what: str
    hint: str = ""
    fixable: bool = False


@dataclass(frozen=True)
class ClassUse:
    """How often one class occurs. Shares are of the voxels of the cases in which the class was annotated.

    Attributes:
        patients: The number of patients in whom it occurs, of `annotated` patients for whom it was annotated.
        per_patient: Lowest, median and highest share over these patients.
    """

    index: int
    name: str
    colour: str
    share: float
    patients: int
    annotated: int
    per_patient: tuple[float, float, float]


@dataclass(frozen=True)
class Example:
    """An example slice: image (H, W) or (H, W, 3) in [-1, 1], labels (H, W)."""

    case: str
    image: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class CheckReport:
    """Everything that was found at `location`.

    Attributes:
        layout: The name of the layout, or "" if the data could not be opened.
        schema: The declared classes.
        class_voxels: {patient: {class name: labelled voxels}}.
        real: Whether the images are of real patients.
    """

    location: str
    layout: str
    cases: int
    patients: int
    schema: LabelSchema
    findings: tuple[Finding, ...]
    classes: tuple[ClassUse, ...] = ()
    class_voxels: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    real: bool = True

    @property
    def fit(self) -> bool:
        """Whether the data is fit for training (no errors)."""
        return not self.count("error")

    def count(self, severity: Severity) -> int:
        """The number of findings of one severity."""
        return sum(f.severity == severity for f in self.findings)

    def of(self, code: str) -> list[Finding]:
        """The findings with one code."""
        return [f for f in self.findings if f.code == code]

    def groups(self) -> list[list[Finding]]:
        """The findings grouped by severity and code, most severe first."""
        return group(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything except the pictures, for JSON."""
        return {
            "location": self.location,
            "layout": self.layout,
            "fit": self.fit,
            "cases": self.cases,
            "patients": self.patients,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "classes": [asdict(c) for c in self.classes],
            "class_voxels": self.class_voxels,
            "findings": [asdict(f) for f in self.findings],
        }


def group(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Group findings by severity and code: errors before warnings before notes, otherwise in their order."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((SEVERITIES.index(finding.severity), finding.code), []).append(finding)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def shown(names: Iterable[object], most: int = 5) -> str:
    """ "a, b, c and 7 more"."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
