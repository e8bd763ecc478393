import inspect

import pytest

from anatogen import errors
from anatogen.errors import AnatogenError, DataError, nearest

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AnatogenError)]


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes(kind: type[AnatogenError]) -> None:
    """Bad input and refusals leave with 2, an interruption with 130: every kind, so every broken input of the tests."""
    assert kind("x").exit_code == (130 if kind is errors.Interrupted else 2)


def test_a_message_names_file_fault_and_hint_in_one_line() -> None:
    message = str(DataError("contains label 255", path="masks/a.png", hint="Run anatogen check"))
    assert message == "masks/a.png: contains label 255. Run anatogen check."
    assert str(DataError("no such class", hint="Did you mean 'liver'?")) == "no such class. Did you mean 'liver'?"


def test_nearest_spelling() -> None:
    assert nearest("livr", ["liver", "bone"]) == "Did you mean 'liver'?"
    assert nearest("LIVER", ["liver", "bone"]) == "Did you mean 'liver'?"
    assert nearest("spleen", ["liver", "bone"]) == "Known: liver, bone"
