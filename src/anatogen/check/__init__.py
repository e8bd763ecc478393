"""Data validation before training: what is wrong with which file, and how to fix it."""

from anatogen.check.findings import CheckReport, ClassUse, Example, Finding, group
from anatogen.check.fix import fix_labels
from anatogen.check.prepared import check_prepared
from anatogen.check.run import check, check_source

__all__ = [
    "CheckReport",
    "ClassUse",
    "Example",
    "Finding",
    "check",
    "check_prepared",
    "check_source",
    "fix_labels",
    "group",
]
