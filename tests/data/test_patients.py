"""Patients in a prepared set: grouped by names, asked for, equal pixels kept together; and what stays private."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatogen.data.documents import CaseRecord
from anatogen.data.patients import joined_by_pixels, suspected_leak, with_known_patients
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.pseudonyms import named_cases, safe_names
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.split import DEFAULT_SHARES, parse_shares, split_patients
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

QUARTERS = {"train": 1.0, "heldout": 1.0, "val": 1.0, "test": 1.0}
SMALL = PrepareSettings((8, 8), shares=QUARTERS, workers=1)


class Scan:
    """Loads a small case of noise; equal seeds give equal pixels."""

    def __init__(self, seed: int, kind: type[np.generic] = np.int16, *, fault: str = "", flip: bool = False) -> None:
        self.seed, self.kind, self.fault, self.flip = seed, kind, fault, flip

    def __call__(self) -> tuple[Volume, Volume]:
        if self.fault:
            raise DataError(self.fault, path="/clinic/anna/scan.nii.gz", hint="Export it again")
        image = np.random.default_rng(abs(self.seed)).integers(0, 900, (8, 8, 3)).astype(self.kind)
        if self.seed < 0:
            image[:] = 0
        labels = np.ones((8, 8, 3), np.uint8)
        affine = np.diag([-1.0, -1.0, -1.0, 1.0])
        if self.flip:  # the same voxels at the same places, stored the other way round
            image, affine = image[::-1].copy(), np.array([[1.0, 0, 0, -7], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
        return Volume(image, affine), Volume(labels, affine)


def source(names: list[str], scans: dict[int, Scan] | None = None, **more: object) -> Source:
    scans = scans or {}
    cases = [
        SourceCase(name, name, scans.get(i, Scan(i)), (Path(f"/clinic/{name}.nii.gz"),)) for i, name in enumerate(names)
    ]
    return Source("test", "/clinic", LabelSchema.from_names(["organ"]), ("CT",), tuple(cases), **more)  # type: ignore[arg-type]


def splits(dataset: PreparedDataset) -> dict[str, str]:
    """The split of each case, by its own name."""
    return {dataset.names[name].case: record.split for name, record in dataset.info.cases.items()}


ACDC = [f"patient{p:03d}_frame{f}" for p in range(4) for f in ("01", "12")]
BIDS = [f"sub-{p:02d}_ses-{s}" for p in range(4) for s in ("m00", "m12")]


@pytest.mark.parametrize(("names", "word"), [(ACDC, "frame"), (BIDS, "sub-")])
def test_scans_of_a_patient_share_a_split(names: list[str], word: str, tmp_path: Path) -> None:
    dataset = prepare(source(names), tmp_path / "out", SMALL)
    of_case = splits(dataset)
    assert all(of_case[a] == of_case[b] for a, b in zip(names[::2], names[1::2], strict=True))
    assert sorted(of_case[a] for a in names[::2]) == ["heldout", "test", "train", "val"]
    assert len({row.patient for row in dataset.rows}) == 4
    grouping = dataset.info.grouping
    assert grouping is not None and (grouping.by, grouping.cases, grouping.patients) == ("names", 8, 4)
    assert grouping.words == [word]


def test_what_is_unclear_stops_with_the_patterns(tmp_path: Path) -> None:
    names = [f"prefix_{i:02d}_{j}" for i in range(5) for j in (1, 2)]
    with pytest.raises(SettingsError) as caught:
        prepare(source(names), tmp_path / "out", SMALL)
    assert r"--patient-pattern '^prefix_\d+' if one (5 patients in all), --patient-pattern .+ if two" in str(
        caught.value
    )
    assert caught.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_who_knows_the_patients_wins(tmp_path: Path) -> None:
    unclear = source([f"prefix_{i:02d}_{j}" for i in range(4) for j in (1, 2)])
    known = replace(unclear, patients_from="table")
    assert prepare(known, tmp_path / "table", SMALL).info.grouping.patients == 8  # type: ignore[union-attr]
    cases = tuple(replace(case, patient=case.id[-1] + case.id[8]) for case in unclear.cases)
    of_layout = with_known_patients(replace(unclear, cases=cases))
    assert (of_layout.grouping.by, of_layout.grouping.patients, of_layout.question) == ("layout", 8, None)


def test_given_splits_are_not_asked_about_but_checked(tmp_path: Path) -> None:
    several = source(["a_1", "a_2", "b_1", "b_2"])
    given = replace(several, cases=tuple(replace(case, split="train") for case in several.cases))
    assert with_known_patients(several).question and not with_known_patients(given).question
    torn = source(ACDC)
    torn = replace(torn, cases=tuple(replace(c, split="train" if "01" in c.id[-2:] else "test") for c in torn.cases))
    with pytest.raises(DataError, match=r"patient patient00. is in the splits train and test .*--ignore-split"):
        prepare(torn, tmp_path / "out", SMALL)
    again = prepare(torn, tmp_path / "anew", replace(SMALL, ignore_split=True))
    assert len(set(splits(again).values())) == 4


@pytest.mark.parametrize("copy", [Scan(1), Scan(1, np.float64), Scan(1, flip=True)], ids=["same", "float", "flipped"])
def test_the_same_pixels_count_as_one_patient(copy: Scan, tmp_path: Path) -> None:
    for seed in range(4):
        dataset = prepare(
            source([f"c{i}" for i in range(6)], {5: copy}), tmp_path / str(seed), replace(SMALL, seed=seed)
        )
        of_case = splits(dataset)
        assert of_case["c1"] == of_case["c5"]
        [same] = dataset.info.same_images
        assert {dataset.names[name].case for name in same} == {"c1", "c5"}
        assert len({row.patient for row in dataset.rows}) == 5


def test_blank_images_are_no_copies(tmp_path: Path) -> None:
    dataset = prepare(source([f"c{i}" for i in range(6)], {4: Scan(-1), 5: Scan(-1)}), tmp_path / "out", SMALL)
    assert dataset.info.same_images == [] and len({row.patient for row in dataset.rows}) == 6


def test_the_same_pixels_in_two_given_splits_are_refused(tmp_path: Path) -> None:
    several = source([f"c{i}" for i in range(4)], {3: Scan(0)})
    names = ["train", "heldout", "val", "test"]
    torn = replace(several, cases=tuple(replace(c, split=s) for c, s in zip(several.cases, names, strict=True)))
    with pytest.raises(DataError, match=r"cases c0 and c3\).*all copies of an image"):
        prepare(torn, tmp_path / "out", replace(SMALL, keep_names=True))
    assert not list(tmp_path.iterdir())


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sampled_from("pqrstuvwxyz"), min_size=8, max_size=27),
    st.data(),
)
def test_no_two_cases_that_belong_together_reach_two_splits(patients: dict[str, str], data: st.DataObject) -> None:
    """Of one patient, or with the same pixels, directly or through others."""
    digests = {case: data.draw(st.sampled_from(["", "", "1", "2", "3"])) for case in patients}
    joined, same = joined_by_pixels(patients, digests)
    if len(set(joined.values())) < 4:
        return
    of_patient = split_patients(joined.values(), DEFAULT_SHARES, 0)
    for a in patients:
        for b in patients:
            if patients[a] == patients[b] or (digests[a] and digests[a] == digests[b]):
                assert of_patient[joined[a]] == of_patient[joined[b]]
    assert all(len(cases) > 1 and len({digests[c] for c in cases}) == 1 for cases in same)


def test_nothing_but_names_csv_tells_who_it_is(tmp_path: Path) -> None:
    names = ["Smith, Anna", "../../etc/passwd", "Müller", "O'Neil_T1", "x" * 300]
    faulty = {4: Scan(4, fault="case " + "x" * 300 + " is broken")}
    dataset = prepare(source(names, faulty), tmp_path / "out", replace(SMALL, skip_faulty=True))
    told = ["Smith", "Anna", "anna", "passwd", "ller", "Neil", "clinic/", "xxx", str(tmp_path)]
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes().decode("utf-8", "replace")
        assert all(word not in content or path.name == "names.csv" for word in told), path.name
    assert all(
        re.fullmatch(r"case_000\d_000\d", row.id) and row.patient == row.case.replace("case", "patient")
        for row in dataset.rows
    )
    assert {line.case for line in dataset.names.values()} == set(names)
    assert sorted(dataset.info.cases) == sorted(set(dataset.names) - {left.case for left in dataset.info.skipped})
    assert dataset.called("case_0001") == f"case_0001 ({dataset.names['case_0001'].case})"
    (tmp_path / "out" / "names.csv").unlink()
    assert PreparedDataset.open(tmp_path / "out").called("case_0001") == "case_0001"


def test_a_guess_of_the_names_is_not_confirmed(tmp_path: Path) -> None:
    """Two sources of the same images that differ in the names alone, order apart, give the same files but for
    names.csv.
    """
    scans = {i: Scan(i) for i in range(6)}
    made = [
        prepare(source(names, scans), tmp_path / names[0], replace(SMALL, seed=3))
        for names in ([f"a{i}" for i in range(6)], [f"scan of nobody {i}" for i in range(6)])
    ]
    assert made[0].info == made[1].info and made[0].rows == made[1].rows
    assert made[0].digest_of("train") == made[1].digest_of("train")
    assert made[0].split_names == ["train", "heldout", "val", "test"]
    other = prepare(source([f"a{i}" for i in range(6)], {0: Scan(99)}), tmp_path / "other", replace(SMALL, seed=3))
    assert other.info.source["fingerprint"] != made[0].info.source["fingerprint"]


def test_pseudonyms_depend_on_the_seed_and_keep_a_patients_scans_together() -> None:
    grouped = with_known_patients(source(ACDC)).source
    one, two = (named_cases(grouped.cases, seed) for seed in (0, 1))
    assert one == named_cases(grouped.cases, 0) and [c.case.id for c in one] != [c.case.id for c in two]
    assert [c.name for c in one] == [f"case_{i:04d}" for i in range(1, 9)]
    assert [c.patient for c in one] == [f"patient_{1 + i // 2:04d}" for i in range(8)]
    assert all(a.case.patient == b.case.patient for a, b in zip(one[::2], one[1::2], strict=True))
    assert {c.case.id for c in one} == set(ACDC)


def test_names_can_be_kept_and_are_safe_as_files(tmp_path: Path) -> None:
    names = ["../../x", "a/b", "a:b", "a_b", "CON", "...", "ok 1", "É", "y" * 400, "y" * 399]
    dataset = prepare(source(names), tmp_path / "out", replace(SMALL, keep_names=True))
    kept = list(dataset.info.cases)
    assert kept[:8] == ["_.._x", "a_b", "a_b_2", "a_b_3", "_CON", "_", "ok 1", "É"] and len(set(kept)) == len(names)
    assert all(len(row.id.encode()) < 200 and not re.search(r"[/\\:]|^\.", row.id) for row in dataset.rows)
    assert dataset.info.names_kept and [line.case for line in dataset.names.values()] == names


@pytest.mark.parametrize("text", ["", ".", "..", "nul.txt", "a\x00b", "\u202e", " x ", "COM1"])
def test_any_name_becomes_a_file_name(text: str, tmp_path: Path) -> None:
    safe = safe_names([text, f"{text}."])
    assert len(set(safe.values())) == 2
    for name in safe.values():
        (tmp_path / name).write_text("")
    assert len(list(tmp_path.iterdir())) == 2


def test_old_sets_with_separators_in_names_stay_inside(dataset: PreparedDataset) -> None:
    assert (
        "/" not in replace(dataset.rows[0], case="../../x").id and "\\" not in replace(dataset.rows[0], case="a\\b").id
    )
    assert (
        replace(dataset.rows[0], case="a b:c", slice=3).id == "a b:c_0003"
    )  # what was safe keeps its name, and its seed


def test_the_splits_of_names_that_say_nothing_are_those_of_before() -> None:
    """The rule of version 0.1: by the cases' names, in whatever order they are stored now."""
    names = [f"ball_{i:03d}" for i in range(50)]
    assert {c.patient for c in with_known_patients(source(names)).source.cases} == set(names)


def test_shares_give_counts_of_patients() -> None:
    patients = [f"hippocampus_{i:03d}" for i in range(80)]
    for seed in range(5):
        found = list(split_patients(patients, parse_shares("train=44,heldout=16,val=4,test=16"), seed).values())
        assert {name: found.count(name) for name in set(found)} == {"train": 44, "heldout": 16, "val": 4, "test": 16}


def test_leaks_in_sets_prepared_before_are_told() -> None:
    torn = [(name, name, "train" if name.endswith("01") else "test") for name in ACDC]
    assert suspected_leak(torn).startswith("4 patients seem to be in two splits, by the names of the cases")
    assert not suspected_leak([(name, name, "train") for name in ACDC])
    assert not suspected_leak(
        [(name, f"p{i}", split) for i, (name, _, split) in enumerate(torn)]
    )  # patients were named
    unclear = [
        (f"prefix_{i:02d}_{j}", f"prefix_{i:02d}_{j}", ("train", "test")[j - 1]) for i in range(4) for j in (1, 2)
    ]
    assert "are ambiguous: prefix_00_1 (train) and prefix_00_2 (test)" in suspected_leak(unclear)
    assert not suspected_leak([])


def test_faulty_cases_can_be_left_out(tmp_path: Path) -> None:
    faulty = {2: Scan(0, fault="is truncated"), 7: Scan(0, fault="is broken")}
    names = [f"c{i}" for i in range(9)]
    with pytest.raises(DataError, match=r"Export it again. 1 of \d cases read so far is faulty; --skip-faulty"):
        prepare(source(names, faulty), tmp_path / "out", SMALL)
    assert not list(tmp_path.iterdir())
    dataset = prepare(source(names, faulty), tmp_path / "out", replace(SMALL, skip_faulty=True))
    assert len(dataset.info.cases) == 7
    left = {dataset.names[s.case].case: s.problem for s in dataset.info.skipped}
    assert left.keys() == {"c2", "c7"} and "is truncated" in left["c2"] and "clinic" not in left["c2"]
    assert "/clinic/anna/scan.nii.gz" in next(n.note for n in dataset.names.values() if n.case == "c2")
    assert set(splits(dataset).values()) == set(QUARTERS)
    with pytest.raises(DataError, match="none of 9 cases can be read"):
        prepare(
            source(names, {i: Scan(0, fault="is broken") for i in range(9)}),
            tmp_path / "none",
            replace(SMALL, skip_faulty=True),
        )


def test_dataset_json_says_how_it_was_made(tmp_path: Path) -> None:
    dataset = prepare(source([f"c{i}" for i in range(5)]), tmp_path / "out", SMALL)
    raw = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert raw["format"] == 2 and raw["version"] and "Python" in raw["command"]
    assert raw["settings"]["shares"] == QUARTERS and "workers" not in raw["settings"]
    assert isinstance(next(iter(dataset.info.cases.values())), CaseRecord)
    (tmp_path / "out" / "dataset.json").write_text(json.dumps({**raw, "format": 3}))
    with pytest.raises(DataError, match="has format 3, and this version of anatogen reads formats up to 2"):
        PreparedDataset.open(tmp_path / "out")
