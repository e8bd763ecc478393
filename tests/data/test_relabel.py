from pathlib import Path

import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.relabel import relabelled, with_patients
from anatogen.data.sources import open_source
from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume
from conftest import write_nnunet


def source(annotated: tuple[str, ...] | None = None) -> Source:
    labels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    load = lambda: (Volume(np.zeros((5, 1, 1)), np.eye(4)), Volume(labels, np.eye(4)))  # noqa: E731
    schema = LabelSchema.from_names(["left kidney", "liver", "right kidney", "bone"])
    return Source("test", "x", schema, ("CT",), (SourceCase("c", "c", load, annotated=annotated),))


def test_merge_rename_and_drop() -> None:
    changed = relabelled(source(), ["kidneys=left kidney+right kidney", "skeleton=bone"], ["liver"])
    assert changed.schema.names == ("kidneys", "skeleton")
    assert changed.cases[0].load()[1].array.ravel().tolist() == [0, 1, 0, 1, 2]


def test_a_merged_class_is_annotated_where_all_its_parts_are() -> None:
    merge = ["kidneys=left kidney+right kidney"]
    assert relabelled(source(("left kidney", "liver")), merge).cases[0].annotated == ("liver",)
    assert relabelled(source(("left kidney", "right kidney")), merge).cases[0].annotated == ("kidneys",)
    assert relabelled(source(), merge).cases[0].annotated is None


def test_values_past_the_classes_are_still_found(nnunet: Path, tmp_path: Path) -> None:
    opened = open_source(str(nnunet))
    wrong = Source(opened.layout, opened.location, LabelSchema.from_names(["ball"]), opened.channels, opened.cases)
    with pytest.raises(DataError, match="contains label 2"):
        prepare(relabelled(wrong, ["round=ball"]), tmp_path / "out", PrepareSettings((32, 32)))


@pytest.mark.parametrize("merges", [["kidneys=left kidny"], ["kidneys"], ["=liver"], ["kidneys="]])
def test_wrong_merges(merges: list[str]) -> None:
    with pytest.raises(SettingsError):
        relabelled(source(), merges)


def test_nothing_left() -> None:
    with pytest.raises(SettingsError, match="no class is left"):
        relabelled(source(), (), ["left kidney", "liver", "right kidney", "bone"])


def test_patients_by_pattern_keep_together(tmp_path: Path) -> None:
    opened = with_patients(open_source(str(write_nnunet(tmp_path / "raw"))), pattern=r"ball_(\d\d)")
    assert {c.patient for c in opened.cases} == {"00"}
    with pytest.raises(DataError, match="case ball_000 has no patient"):
        with_patients(open_source(str(tmp_path / "raw")), pattern=r"cube_(\d+)")
    with pytest.raises(SettingsError, match="not a regular expression"):
        with_patients(opened, pattern="(")


def test_patients_by_table(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient,age\n" + "".join(f"ball_{i:03d},patient {i // 2},50\n" for i in range(8)))
    opened = with_patients(open_source(str(write_nnunet(tmp_path / "raw"))), table=table)
    assert [c.patient for c in opened.cases][:3] == ["patient 0", "patient 0", "patient 1"]
    table.write_text("case,patient\nball_000,x\n")
    with pytest.raises(DataError, match="case ball_001 has no patient"):
        with_patients(open_source(str(tmp_path / "raw")), table=table)
    table.write_text("name,who\nball_000,x\n")
    with pytest.raises(DataError, match="no columns case and patient"):
        with_patients(open_source(str(tmp_path / "raw")), table=table)
