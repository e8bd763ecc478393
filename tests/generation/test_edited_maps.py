"""Edited label maps as a source, as a folder, and in sample sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.evaluation.selection import entries_and_rows
from anatogen.generation.edited_folder import MAPS, EditedFolder, edited_maps_in, spacing_of
from anatogen.generation.edited_maps import EditedMaps, Editing, limits_of
from anatogen.generation.engine import Generator
from anatogen.generation.manifest import EditsHeader, MapLine
from anatogen.generation.plan import DatasetMaps, FolderMaps, Plan
from anatogen.generation.sample_set import write_sample_set
from anatogen.io.pictures import write_label_png
from anatogen.labels import ClassStates
from anatogen.model import ModelSpec


@pytest.fixture
def source(dataset: PreparedDataset) -> DatasetMaps:
    return DatasetMaps(dataset, dataset.split("test"))


def editing(*texts: str, **more: object) -> Editing:
    return Editing(parse_edits(texts), **more)  # type: ignore[arg-type]


def test_an_item_keeps_where_it_is_from(source: DatasetMaps) -> None:
    maps = EditedMaps(source, editing("grow ball 1..3px; deform 0.3", per_map=3))
    assert len(maps) == 3 * (len(source) - maps.unfit)
    item = maps.item(4)
    before = source.item(next(i for i in range(len(source)) if source.name(i) == maps.name(4)[:-7]))
    assert maps.name(4).endswith("_edit01") and item.origin.edit == 1
    assert (item.origin.patient, item.origin.case, item.origin.slice) == (
        before.origin.patient,
        before.origin.case,
        before.origin.slice,
    )
    assert item.unedited is not None and np.array_equal(item.unedited, before.labels)
    assert item.real is not None and np.array_equal(item.real, before.real)  # type: ignore[arg-type]
    assert item.place is not None and item.known == before.known and item.spacing_mm == before.spacing_mm
    assert not np.array_equal(item.labels, before.labels)
    assert [text.split(" ")[0] for text in item.origin.edits] == ["grow", "deform"]


def test_an_edit_depends_on_seed_map_and_number_alone(source: DatasetMaps, dataset: PreparedDataset) -> None:
    text = "grow core 1..3px; deform 0.1..0.5"
    maps = EditedMaps(source, editing(text, per_map=3))
    by_name = {maps.name(i): maps.item(i).labels for i in range(len(maps))}
    fewer = EditedMaps(DatasetMaps(dataset, source.rows[3:6]), editing(text, per_map=2))
    for number in range(len(fewer)):
        assert np.array_equal(fewer.item(number).labels, by_name[fewer.name(number)])
    other = EditedMaps(source, editing(text, per_map=3, seed=1))
    differ = [not np.array_equal(other.item(i).labels, by_name[other.name(i)]) for i in range(len(other))]
    assert np.mean(differ) > 0.9
    texts = {maps.item(i).origin.edits for i in range(3)}
    assert len(texts) == 3  # each edit of one map draws anew


def test_recipes_take_turns_and_counts_are_spread(source: DatasetMaps) -> None:
    maps = EditedMaps(source, editing("grow ball 1px", "deform 0.2", per_map=4))
    assert [maps.item(i).origin.edits[0].split(" ")[0] for i in range(4)] == ["grow", "deform"] * 2
    few = EditedMaps(source, editing("deform 0.2", per_map=2, count=6))
    assert len(few) == 6 and len({few.item(i).origin.slice for i in range(6)}) == 3
    shown = maps.spread(4)
    assert len({i % 2 for i in shown}) == 2 and len(shown) == 4


def test_maps_without_the_class_are_left_out(source: DatasetMaps, dataset: PreparedDataset) -> None:
    maps = EditedMaps(source, editing("shrink core 1px"))
    with_core = sum((source.item(i).labels == 2).any() for i in range(len(source)))
    assert len(maps) == with_core and maps.unfit == len(source) - with_core > 0
    bare = next(i for i in range(len(source)) if not (source.item(i).labels == 2).any())
    with pytest.raises(DataError, match="none of the 1 label maps shows core"):
        EditedMaps(DatasetMaps(dataset, [source.rows[bare]]), editing("shrink core 1px"))
    with pytest.raises(SettingsError, match="Did you mean 'core'"):
        EditedMaps(source, editing("shrink cor 1px"))


def test_structures_come_from_other_patients(source: DatasetMaps, dataset: PreparedDataset) -> None:
    two = DatasetMaps(dataset, [row for row in dataset.rows if row.split in ("test", "val", "heldout")])
    maps = EditedMaps(two, editing("paste core", "interpolate 0.5"))
    patients = {row.id: row.patient for row in two.rows}
    for number in range(len(maps)):
        item = maps.item(number)
        for text in item.origin.edits:
            assert patients[text.split(" ")[-1]] != item.origin.patient
    named = EditedMaps(two, editing(f"paste core from {two.name(5)}"))
    assert named.item(0).origin.edits == (f"paste core from {two.name(5)}",)
    with pytest.raises(SettingsError, match="no label map 'nobody'"):
        EditedMaps(two, editing("paste core from nobody")).item(0)


def test_implausible_edits_are_recorded_or_left_out(source: DatasetMaps, dataset: PreparedDataset) -> None:
    limits = replace(limits_of(dataset), unit="mm")
    text = "grow ball 1..30mm"
    kept = EditedMaps(source, editing(text, limits=limits, implausible="keep"))
    warned = EditedMaps(source, editing(text, limits=limits))
    faults = [bool(warned.item(i).origin.implausible) for i in range(len(warned))]
    assert 0 < sum(faults) < len(faults)
    assert not any(kept.item(i).origin.implausible for i in range(len(kept)))
    refused = EditedMaps(source, editing(text, limits=limits, implausible="refuse"))
    assert len(refused) + refused.refused == len(warned)
    assert not any(refused.item(i).origin.implausible for i in range(len(refused)))
    plain = [i for i, fault in enumerate(faults) if not fault]
    by_name = {refused.name(i): refused.item(i).labels for i in range(len(refused))}
    for number in plain:  # what was plausible at once is as it was
        assert np.array_equal(by_name[warned.name(number)], warned.item(number).labels)
    with pytest.raises(DataError, match="are implausible, after 10 tries each"):
        EditedMaps(source, editing("move ball 14mm left", limits=limits, implausible="refuse"))


def header_for(dataset: PreparedDataset, maps: EditedMaps, **more: object) -> EditsHeader:
    fields = {
        "classes": tuple((c.name, c.colour) for c in dataset.schema.classes),
        "label_maps": maps.asked["label_maps"],
        "split": "test",
        "edits": maps.asked["edits"],
        "per_map": 1,
        "seed": 0,
        "implausible": "keep",
        "axis": "axial",
        "size": dataset.size,
        "spacing_mm": (1.0, 1.0),
    }
    return EditsHeader(**{**fields, **more})  # type: ignore[arg-type]


def write(folder: Path, dataset: PreparedDataset, maps: EditedMaps) -> None:
    with EditedFolder(folder, header_for(dataset, maps)) as out:
        for number in range(len(maps)):
            item = maps.item(number)
            out.add(maps.name(number), item.labels, item.known.given_names(maps.schema), item.origin, item.place)


def test_a_folder_of_edits_is_read_back_exactly(source: DatasetMaps, dataset: PreparedDataset, tmp_path: Path) -> None:
    maps = EditedMaps(source, editing("grow core 1..3px; deform 0.3", count=5))
    write(tmp_path / "edited", dataset, maps)
    (tmp_path / "edited" / "overview.png").write_bytes(b"a picture is no label map")
    spec = ModelSpec(dataset.schema, dataset.size, "axial", (1.0, 1.0))
    back = FolderMaps(tmp_path / "edited", spec)
    assert len(back) == 5
    for number in range(5):
        ours, theirs = back.item(number), maps.item(number)
        assert np.array_equal(ours.labels, theirs.labels) and ours.known == theirs.known
        assert ours.origin.model_copy(update={"file_of_map": None}) == theirs.origin
        assert ours.place is not None and theirs.place is not None
        assert ours.spacing_mm == spacing_of(theirs.place)
        assert ours.place.position == theirs.place.position and np.array_equal(ours.place.affine, theirs.place.affine)
        assert back.name(number) == maps.name(number)
    small = FolderMaps(tmp_path / "edited", replace(spec, size=(40, 40)))  # another field of view: no place any more
    assert small.item(0).labels.shape == (40, 40) and small.item(0).place is None
    assert (small.item(0).labels == 2).sum() == (maps.item(0).labels == 2).sum()


def test_a_folder_that_does_not_fit_is_said(source: DatasetMaps, dataset: PreparedDataset, tmp_path: Path) -> None:
    maps = EditedMaps(source, editing("deform 0.3", count=2))
    write(tmp_path / "e", dataset, maps)
    spec = ModelSpec(dataset.schema, dataset.size, "axial", (1.0, 1.0))
    with pytest.raises(DataError, match="the model makes coronal slices"):
        edited_maps_in(tmp_path / "e", replace(spec, axis="coronal"))
    with pytest.raises(DataError, match="the label maps have ball, core"):
        from anatogen.labels import LabelSchema

        edited_maps_in(tmp_path / "e", replace(spec, schema=LabelSchema.from_names(["ball", "heart"])))
    [first, second] = [MapLine.parse(line, tmp_path) for line in (tmp_path / "e" / MAPS).read_text().splitlines()]
    write_label_png(tmp_path / "e" / second.file, np.full(dataset.size, 9))
    with pytest.raises(DataError, match="no label map of 2 axes with classes 0 to 2"):
        edited_maps_in(tmp_path / "e", spec)
    (tmp_path / "e" / first.file).unlink()
    with pytest.raises(DataError, match="is missing"):
        edited_maps_in(tmp_path / "e", spec)
    (tmp_path / "e" / MAPS).write_text("{}\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        edited_maps_in(tmp_path / "e", spec)


def test_a_folder_is_resumed_and_others_are_refused(
    source: DatasetMaps, dataset: PreparedDataset, tmp_path: Path
) -> None:
    maps = EditedMaps(source, editing("deform 0.3", count=3))
    write(tmp_path / "e", dataset, EditedMaps(source, editing("deform 0.3", count=1)))
    path = tmp_path / "e" / MAPS
    path.write_text(path.read_text() + '{"id": "torn')
    with EditedFolder(tmp_path / "e", header_for(dataset, maps, per_map=3)) as out:
        assert len(out.lines) == 1 and "torn" not in path.read_text()
    with (
        pytest.raises(SettingsError, match="made with seed 0, not 1"),
        EditedFolder(tmp_path / "e", header_for(dataset, maps, seed=1)),
    ):
        pass
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with (
        pytest.raises(SettingsError, match="holds no edited label maps"),
        EditedFolder(tmp_path / "mine", header_for(dataset, maps)),
    ):
        pass
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_edits_enter_the_sample_set(
    source: DatasetMaps, dataset: PreparedDataset, run_folder: Path, tmp_path: Path
) -> None:
    generator = Generator.load(run_folder, device="cpu")
    plan = Plan(ClassStates.all_given(dataset.schema), count=3)
    maps = EditedMaps(source, editing("grow core 1..3px; deform 0.3", per_map=2))
    made = write_sample_set(generator, plan.requests(maps), tmp_path / "s")
    assert len(made.entries) == 3
    by_name = {maps.name(i): maps.item(i) for i in range(len(maps))}
    for line in made.entries:
        item = by_name[line.id[:-3]]
        assert np.array_equal(made.label_map(line), item.labels) and line.edits == item.origin.edits
        assert f"edit {line.edit}" in line.label_map and line.patient == item.origin.patient
    assert json.loads((tmp_path / "s/samples.json").read_text())["request"]["edits"] == ["grow core 1..3px; deform 0.3"]
    other = EditedMaps(source, editing("grow core 2..3px; deform 0.3", per_map=2))
    with pytest.raises(SettingsError, match="holds images made with edits"):
        write_sample_set(generator, plan.requests(other), tmp_path / "s")
    with pytest.raises(SettingsError, match="holds images made with edits"):
        write_sample_set(generator, plan.requests(source), tmp_path / "s")
    entries, rows = entries_and_rows(made, dataset)
    assert rows is None and len(entries) == 3  # no real image has these maps
