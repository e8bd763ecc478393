import pytest

from anatogen.errors import SettingsError
from anatogen.labels import ClassStates, LabelClass, LabelSchema

SCHEMA = LabelSchema.from_names(["liver", "left kidney", "bone"])


def test_count_includes_the_background() -> None:
    assert SCHEMA.count == 4
    assert SCHEMA.index_of("left kidney") == 2


def test_default_colours_differ() -> None:
    many = LabelSchema.from_names(str(i) for i in range(60))
    assert len({c.colour for c in many.classes}) == 60


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="unknown class 'livr'.*'liver'"):
        SCHEMA.index_of("livr")


def test_states_by_name() -> None:
    assert SCHEMA.states().given == (True, True, True)
    assert SCHEMA.states(free=["bone"]).given == (True, True, False)
    assert SCHEMA.states(given=["bone"]).given == (False, False, True)
    assert SCHEMA.states(given=[]).free_names(SCHEMA) == ["liver", "left kidney", "bone"]


def test_given_and_free_at_once_is_refused() -> None:
    with pytest.raises(SettingsError, match="'bone' is both given and free"):
        SCHEMA.states(given=["bone", "liver"], free=["bone"])


def test_gaps_and_twins_are_refused() -> None:
    with pytest.raises(SettingsError, match="without gaps"):
        LabelSchema((LabelClass(2, "liver", "#FFFFFF"),))
    with pytest.raises(SettingsError, match="same name"):
        LabelSchema.from_names(["liver", "liver"])


def test_given_only_where_both_are() -> None:
    assert ClassStates((True, True, False)).and_also(ClassStates((True, False, True))).given == (True, False, False)
