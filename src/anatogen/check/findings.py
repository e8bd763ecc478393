"""What the check says: findings, the use of each class, and the report of them all."""

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
    """One thing that was found.

    severity: an error keeps the data from being fit, a warning is likely a mistake, a note is to be known. file:
    relative to the data set where it lies inside. fixable: whether `mend` can put it right without a guess.
    """

    severity: Severity
    code: str
    file: str
    what: str
    hint: str = ""
    fixable: bool = False


@dataclass(frozen=True)
class ClassUse:
    """How much of one class there is. Shares are of the voxels of those cases where the class was annotated.

    patients: in how many patients it occurs, of `annotated` patients in whom it was drawn or looked for.
    per_patient: lowest, median and highest share over these patients.
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
    """A slice to look at: image (H, W) or (H, W, 3) in [-1, 1], labels (H, W)."""

    case: str
    image: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class CheckReport:
    """All that was found at `location`. layout: its name, or "" where none could be opened. schema: declared classes.

    class_voxels: labelled voxels of each class in each patient, {patient: {class name: voxels}}. real: whether the images are of
    real patients.
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
        """Whether nothing was found that keeps the data from being trained on."""
        return not self.count("error")

    def count(self, severity: Severity) -> int:
        """How many findings there are of one severity."""
        return sum(f.severity == severity for f in self.findings)

    def of(self, code: str) -> list[Finding]:
        """The findings with one code."""
        return [f for f in self.findings if f.code == code]

    def groups(self) -> list[list[Finding]]:
        """The findings by severity and code, the gravest first."""
        return group(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
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
    """Findings of one severity and code together, errors before warnings before notes, otherwise in their order."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((SEVERITIES.index(finding.severity), finding.code), []).append(finding)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def shown(names: Iterable[object], most: int = 5) -> str:
    """ "a, b, c and 7 more"."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
