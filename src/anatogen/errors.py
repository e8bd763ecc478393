"""The exceptions of the package. A message names the file, what is wrong with it and a hint, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class AnatogenError(Exception):
    """An error that the user can fix. The command line prints it in one line and exits with `exit_code`.

    Args:
        problem: What is wrong, without a final full stop.
        path: The file or folder that has the problem.
        hint: What to do about it.

    Attributes:
        told: Another process of a group prints the message.
    """

    exit_code = 2
    told = False

    def __init__(self, problem: str, *, path: str | Path | None = None, hint: str | None = None) -> None:
        self.problem, self.path, self.hint = problem, path, hint
        place = f"{path}: " if path is not None else ""
        end = "" if hint and hint.endswith("?") else "."
        super().__init__(f"{place}{problem}." + (f" {hint}{end}" if hint else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild the error in another process from its parts."""
        return _rebuilt, (type(self), self.problem, self.path, self.hint, self.told)


def _rebuilt(
    kind: type[AnatogenError], problem: str, path: str | Path | None, hint: str | None, told: bool
) -> AnatogenError:
    error = kind(problem, path=path, hint=hint)
    error.told = told
    return error


class DataError(AnatogenError):
    """Images, label maps or a data set that cannot be used as they are."""


class SettingsError(AnatogenError):
    """An invalid setting, option, or combination of them."""


class ModelError(AnatogenError):
    """A run or checkpoint that is missing, damaged or of another kind."""


class OutputError(AnatogenError):
    """Results could not be written; files written before stay valid."""


class GroupError(AnatogenError):
    """Another process of the same work has ended, so that this one cannot go on."""


class Interrupted(AnatogenError):
    """The user stopped the work; the message says what was saved."""

    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that suggests the known words most similar to `word`, or lists all of them if none is similar."""
    known = list(known)
    by_lower_case = {name.lower(): name for name in known}
    similar = difflib.get_close_matches(word.lower(), by_lower_case, n=2, cutoff=0.6)
    if similar:
        return "Did you mean " + " or ".join(f"'{by_lower_case[name]}'" for name in similar) + "?"
    return "Known: " + ", ".join(known)
