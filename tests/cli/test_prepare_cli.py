"""`anatogen prepare`, `check`, `train` and `info` on sets with several scans a patient, equal images and broken
files.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.workflows.prepare import PrepareRequest, without_paths
from conftest import write_case, write_nnunet

Cli = Callable[..., tuple[int, str, str]]
SPLIT = ("--split", "train=1,heldout=1,val=1,test=1", "--size", 32)


def named(folder: Path, names: list[str]) -> Path:
    """An nnU-Net data set of balls with these case names."""
    write_nnunet(folder, cases=0)
    for number, name in enumerate(names):
        write_case(folder, name, number)
    return folder


ACDC = [f"patient{p:03d}_frame{f}" for p in range(4) for f in ("01", "12")]


def test_two_scans_a_patient(cli: Cli, tmp_path: Path) -> None:
    raw = named(tmp_path / "raw", ACDC)
    said = (
        "8 cases are 4 patients, by their names (frame): patient000_frame01 and patient000_frame12 are both patient000"
    )
    code, out, _ = cli("check", raw)
    assert "patients-grouped" in out and said in out and "8 cases of 4 patients" in out
    code, out, err = cli("prepare", raw, tmp_path / "data", *SPLIT)
    assert code == 0, err
    assert "8 cases are 4 patients, by their names (frame)" in out and "1 patients" in out and "only names.csv" in out
    code, out, _ = cli("info", tmp_path / "data")
    assert code == 0 and "8 cases are 4 patients" in out
    code, out, _ = cli("check", tmp_path / "data")
    assert "4 patients" in out and "patients-leak" not in out
    assert not any(name in out for name in ACDC)
    assert cli("prepare", raw, tmp_path / "apart", *SPLIT, "--patient-pattern", ".+")[0] == 0
    assert len({row.patient for row in PreparedDataset.open(tmp_path / "apart").rows}) == 8


def test_names_that_do_not_tell(cli: Cli, tmp_path: Path) -> None:
    raw = named(tmp_path / "raw", [f"prefix_{i:02d}_{j}" for i in range(4) for j in (1, 2)])
    code, out, err = cli("prepare", raw, tmp_path / "data", *SPLIT)
    assert code == 2 and "Traceback" not in err and not (tmp_path / "data").exists()
    assert r"--patient-pattern '^prefix_\d+' if one (4 patients in all), --patient-pattern .+ if two (8" in err
    code, out, _ = cli("check", raw)
    assert "patients-unclear" in out and r"--patient-pattern '^prefix_\d+' if one" in out
    assert cli("prepare", raw, tmp_path / "data", *SPLIT, "--patient-pattern", r"^prefix_\d+")[0] == 0
    assert len({row.patient for row in PreparedDataset.open(tmp_path / "data").rows}) == 4


def test_the_same_scan_twice(cli: Cli, tmp_path: Path) -> None:
    raw = named(tmp_path / "raw", [f"c{i}" for i in range(6)])
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(raw / folder / f"c1{ending}", raw / folder / f"c5{ending}")
    code, out, err = cli("prepare", raw, tmp_path / "data", *SPLIT)
    assert code == 0, err
    assert "(c1)" in out and "(c5)" in out and "identical pixels and count as one patient" in out
    dataset = PreparedDataset.open(tmp_path / "data")
    assert len({row.patient for row in dataset.rows}) == 5
    code, out, _ = cli("check", raw)
    assert "prepare treats both as one patient" in out


def test_a_broken_file_among_many(cli: Cli, tmp_path: Path) -> None:
    raw = named(tmp_path / "raw", [f"c{i}" for i in range(7)])
    image = raw / "imagesTr" / "c3_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:900])
    code, _, err = cli("prepare", raw, tmp_path / "data", *SPLIT)
    assert code == 2 and "c3_0000.nii.gz" in err and "--skip-faulty leaves such cases out" in err
    code, out, err = cli("prepare", raw, tmp_path / "data", *SPLIT, "--skip-faulty")
    assert code == 0, err
    assert "1 of 7 cases could not be read and were left out:" in out and "(c3): " in out
    code, out, _ = cli("info", tmp_path / "data")
    assert "(c3): " in out
    code, out, _ = cli("check", tmp_path / "data")
    assert "case-skipped" in out and "c3" not in out
    with (tmp_path / "data" / "names.csv").open(newline="") as file:
        [line] = [line for line in csv.DictReader(file) if line["note"]]
    assert line["case"] == "c3" and "c3_0000.nii.gz" in line["file"] and "c3_0000.nii.gz" in line["note"]


@pytest.mark.parametrize("broken", ["images/s2.png", "masks/s2.png"])
def test_a_broken_picture_among_many(cli: Cli, tmp_path: Path, broken: str) -> None:
    import numpy as np
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(7):
            array = np.random.default_rng(i).integers(0, 3, (32, 32), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "raw" / name / f"s{i}.png")
    path = tmp_path / "raw" / broken
    path.write_bytes(path.read_bytes()[:60])
    code, _, err = cli("prepare", tmp_path / "raw", tmp_path / "data", *SPLIT)
    assert code == 2 and broken in err.replace("\\", "/") and "Traceback" not in err
    code, out, err = cli("prepare", tmp_path / "raw", tmp_path / "data", *SPLIT, "--skip-faulty")
    assert code == 0, err
    assert "1 of 7 cases could not be read" in out and len(PreparedDataset.open(tmp_path / "data").rows) == 6


def test_names_stay_with_their_owner(cli: Cli, tmp_path: Path) -> None:
    raw = named(tmp_path / "clinic" / "raw", [f"anna{i}" for i in range(5)])
    assert cli("prepare", raw, tmp_path / "data", *SPLIT)[0] == 0
    for path in (tmp_path / "data").iterdir():
        assert path.name == "names.csv" or (b"anna" not in path.read_bytes() and b"clinic" not in path.read_bytes())
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert about["source"]["name"] == "raw"
    assert cli("prepare", raw, tmp_path / "kept", *SPLIT, "--keep-names")[0] == 0
    kept = PreparedDataset.open(tmp_path / "kept")
    assert sorted(kept.info.cases) == [f"anna{i}" for i in range(5)] and kept.info.names_kept


def test_the_command_is_written_without_paths() -> None:
    request = PrepareRequest("/clinic/anna/raw", Path("here/out"), None, patients="who/who.csv")  # type: ignore[arg-type]
    typed = r"anatogen prepare /clinic/anna/raw here/out --patients=who/who.csv --size 32 --patient-pattern '^a/\d+' --merge l/r=l+r"
    told = without_paths(PrepareRequest(**{**vars(request), "command": typed}))
    assert told == r"anatogen prepare raw out --patients=who.csv --size 32 --patient-pattern '^a/\d+' --merge l/r=l+r"


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """A set as version 0.1 prepared it: a case was a patient."""
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.relabel import with_patients
    from anatogen.data.sources import open_source

    raw = with_patients(open_source(str(named(tmp_path / "raw", ACDC))), pattern=".+")
    shares = {"train": 1.0, "heldout": 1.0, "val": 1.0, "test": 1.0}
    prepare(raw, tmp_path / "old", PrepareSettings((32, 32), shares=shares, keep_names=True, workers=1))
    path = tmp_path / "old" / "dataset.json"
    about = json.loads(path.read_text())
    new = ("command", "settings", "names_kept", "grouping", "skipped", "same_images")
    path.write_text(json.dumps({**{k: v for k, v in about.items() if k not in new}, "format": 1}))
    (tmp_path / "old" / "names.csv").unlink()
    return tmp_path / "old"


def test_leaks_in_sets_prepared_before(
    cli: Cli, leaking: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "to be in two splits, by the names of the cases: patient00"
    code, out, _ = cli("check", leaking)
    assert "patients-leak" in out and said in out
    code, out, _ = cli("info", leaking)
    assert code == 0 and said in out
    code, out, err = cli("train", leaking, "--out", tmp_path / "run", "--steps", 1, "--device", "cpu",
                         "--set", "network.width=8", "--set", "training.batch_size=2")  # fmt: skip
    assert code == 0 and said in caplog.text + err
