"""The doctor at the door: is this data fit to train on, and where it is not, what is wrong with which file."""

from anatogen.check.findings import CheckReport, ClassUse, Example, Finding, group
from anatogen.check.fix import mend
from anatogen.check.prepared import check_prepared
from anatogen.check.run import check, check_source

__all__ = ["CheckReport", "ClassUse", "Example", "Finding", "check", "check_prepared", "check_source", "group", "mend"]
