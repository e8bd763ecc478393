"""The attributes of cases and items: a table from the user, the position of a slice, the volume of a class."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anatogen.conditioning.attributes import Categorical, Numeric
from anatogen.data.attribute_table import with_attributes
from anatogen.data.attributes import AttributeTable, item_attributes, known_attributes, learn_attributes, volumes
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, DataError, SettingsError
from anatogen.labels import ClassStates, LabelSchema
from anatogen.workflows.prepare import PrepareRequest, without_paths
from conftest import pseudonym, write_nnunet

TABLE = "case,look,age,note\n" + "".join(
    f"ball_{number:03d},{'bright' if number % 2 else 'dark'},{50 + number if number != 3 else ''},n/a\n"
    for number in range(8)
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("told")
    table = folder / "table.csv"
    table.write_text(TABLE)
    source = with_attributes(open_source(str(write_nnunet(folder / "raw"))), table)
    return prepare(source, folder / "data", PrepareSettings(size=(32, 32), workers=1))


def test_the_table_is_kept_with_the_cases(told: PreparedDataset) -> None:
    assert told.info.cases[pseudonym(told, "ball_002")].attributes == {"look": "dark", "age": "52"}
    assert told.info.cases[pseudonym(told, "ball_003")].attributes == {"look": "bright"}  # an empty value is unknown
    assert known_attributes(told) == ("age", "look", "position", "volume:ball", "volume:core")


def test_the_position_is_that_among_the_slices_of_a_case(told: PreparedDataset) -> None:
    for case, rows in itertools.groupby(told.rows, key=lambda row: row.case):
        of_case = sorted(rows, key=lambda row: row.slice)
        found = [told.attributes_of(row)["position"] for row in of_case]
        assert np.allclose(found, np.linspace(0, 1, len(of_case))), case


def test_volumes_are_those_of_the_label_maps(told: PreparedDataset) -> None:
    rows = told.rows[5:25]
    labels = told.load(rows).labels.numpy()
    for row, item, classes in zip(rows, item_attributes(told, rows, ["volume:core", "look"]), labels, strict=True):
        assert item["volume:core"] == pytest.approx((classes == 2).sum() * 1.0)  # pixels of 1 mm
        assert item["look"] == told.info.cases[row.case].attributes["look"] and len(item) == 2


def test_the_volume_of_what_is_free_or_has_no_size_is_not_known() -> None:
    schema, labels = LabelSchema.from_names(("a", "b")), np.array([[[0, 1], [2, 2]], [[2, 0], [0, 0]]])
    found = volumes(labels, schema, ClassStates((True, True)), (2.0, 1.0, 0.5))
    assert found == {"volume:a": 1.0, "volume:b": 3.0}
    assert volumes(labels, schema, ClassStates((False, True)), (2.0, 1.0, 0.5)) == {"volume:b": 3.0}
    assert volumes(labels, schema, ClassStates((True, True)), None) == {}
    assert volumes(0 * labels, schema, ClassStates((True, True)), (1.0,) * 3) == {"volume:a": 0.0, "volume:b": 0.0}


def test_an_unannotated_class_has_no_volume(told: PreparedDataset) -> None:
    row = replace(told.rows[5], annotated=("core",))
    [item] = item_attributes(told, [row], ["volume:ball", "volume:core"])
    assert set(item) == {"volume:core"}


def test_levels_and_statistics_are_of_the_training_split(told: PreparedDataset) -> None:
    told = PreparedDataset.open(told.folder)
    for name, case in told.info.cases.items():
        if case.split != "train":
            told.info.cases[name] = replace(case, attributes={"age": "99", "look": "odd"})
    schema = learn_attributes(told, ["age", "look"])
    age, look = schema.attributes
    items = [told.attributes_of(row) for row in told.split("train")]
    ages = [float(item["age"]) for item in items if "age" in item]
    assert isinstance(age, Numeric) and (age.low, age.high) == (min(ages), max(ages))
    assert (age.mean, age.std) == (pytest.approx(np.mean(ages)), pytest.approx(np.std(ages)))
    assert isinstance(look, Categorical) and look.levels == ("bright", "dark")
    rows = told.split("train")
    table = AttributeTable(told, schema, rows)
    assert np.array_equal(table.codes(rows[:3]), schema.codes(item_attributes(told, rows[:3], ["age", "look"])), True)


def test_unknown_attributes_are_named(told: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="no attribute 'scanner'. Known: age, look, position, volume:ball"):
        learn_attributes(told, ["look", "scanner"])
    with pytest.raises(SettingsError, match="given twice"):
        learn_attributes(told, ["look", "look"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column case or patient"),
        ("case;look\na;b\n", "no column case or patient"),
        ("case\nball_000\n", "no column besides case"),
        ("case,look,look\nball_000,a,b\n", "two columns look"),
        ("case,look\nball_000,a\n", "has no line for case ball_001"),
        (TABLE + "ball_002,dark,1,\n", "lists the case ball_002 twice"),
        (TABLE + ",dark,1,\n", "line 10 has no case"),
        (TABLE.replace("ball_001,bright", "ball_001,bright,very"), "line 3 has more values"),
        (TABLE.replace("52", "old"), "attribute age has the text 'old' among numbers"),
        ('case,look\n"ball_000,a\n', "cannot be read as a table"),
        ("case,look\nball_000,\xe4\n", "cannot be read as a table"),
    ],
)
def test_bad_tables_are_refused(nnunet: Path, tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=rf"table\.csv: .*{said}"):
        with_attributes(open_source(str(nnunet)), table)


def test_a_table_of_patients(nnunet: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("\ufeffpatient, sex\n" + "".join(f"ball_{n:03d}, {'FM'[n % 2]}\n" for n in range(9)))
    source = with_attributes(open_source(str(nnunet)), table)
    assert [case.attributes["sex"] for case in source.cases] == ["F", "M"] * 4
    assert with_attributes(source, None) is source
    with pytest.raises(AnatogenError, match="nowhere"):
        with_attributes(source, tmp_path / "nowhere.csv")


def test_prepare_takes_the_table(cli: Callable[..., tuple[int, str, str]], nnunet: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "out"
    table.write_text(TABLE)
    code, _, err = cli("prepare", nnunet, out, "--size", 32, "--workers", 1, "--attributes", table)
    assert code == 0, err
    found = PreparedDataset.open(out).info
    assert sorted(case.attributes["look"] for case in found.cases.values()) == ["bright"] * 4 + ["dark"] * 4
    asked = PrepareRequest("raw", out, PrepareSettings(), attributes=Path("mine/table.csv"))
    command = "anatogen prepare raw out --attributes mine/table.csv"
    assert without_paths(replace(asked, command=command)) == command.replace("mine/", "")
    table.write_text("case,look\n")
    code, _, err = cli("prepare", nnunet, tmp_path / "bad", "--size", 32, "--attributes", table)
    assert code == 2 and "has no line for case ball_000" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "bad").exists()
