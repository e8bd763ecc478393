"""anatogen edit, and sample with edits, from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.generation.plan import DatasetMaps, FolderMaps
from anatogen.generation.sample_set import SampleSet
from anatogen.model import ModelSpec

Cli = Callable[..., tuple[int, str, str]]
EDIT = "grow core 1..3mm; deform 0.3"


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_edits_become_maps_and_then_images(cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited"
    code, said, err = cli("edit", dataset_folder, out, "--edit", EDIT, "--per-map", 3, "--count", 9)
    assert code == 0, err
    assert "9 label maps, overview in" in said and "Next: anatogen sample RUN --masks" in said
    maps = lines_of(out / "maps.jsonl")
    assert len({line["id"] for line in maps}) == 9 and all((out / str(line["file"])).is_file() for line in maps)
    assert {"patient", "case", "slice", "split", "edits", "edit", "known", "place"} <= maps[0].keys()
    assert len({str(line["edits"]) for line in maps}) == 9  # every edit was drawn for itself
    with Image.open(out / "overview.png") as picture:
        assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 3

    written = {path: path.stat().st_mtime_ns for path in (out / "maps").rglob("*.png")}
    (out / str(maps[-1]["file"])).unlink()
    (out / "maps.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in maps[:-1]))
    code, _, _ = cli("edit", dataset_folder, out, "--edit", EDIT, "--per-map", 3, "--count", 9)
    assert code == 0 and lines_of(out / "maps.jsonl") == maps  # resumed: the same again
    unchanged = [path for path, time in written.items() if path.stat().st_mtime_ns == time]
    assert len(unchanged) == 8

    code, said, err = cli(
        "sample", run_folder, "--masks", out, "--out", tmp_path / "s", "--format", "nifti", "--steps", 2
    )
    assert code == 0, err
    samples = SampleSet.open(tmp_path / "s")
    by_id = {str(line["id"]): line for line in maps}
    for entry in samples.entries:
        line = by_id[entry.id[:-3]]
        assert (entry.patient, entry.case, list(entry.edits)) == (line["patient"], line["case"], line["edits"])
        assert np.array_equal(samples.label_map(entry), np.asarray(Image.open(out / str(line["file"]))))
        assert samples.placement(entry) is not None


def test_sampling_with_edits_repeats_by_seed(cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    def sample(out: str, *more: object) -> SampleSet:
        words = ("--masks", dataset_folder, "--edit", EDIT, "--edits-per-map", 2, "--count", 4, "--steps", 2)
        code, _, err = cli("sample", run_folder, *words, "--out", tmp_path / out, *more)
        assert code == 0, err
        return SampleSet.open(tmp_path / out)

    one, again, other = sample("one"), sample("again"), sample("other", "--seed", 1)
    assert [line.edits for line in one.entries] == [line.edits for line in again.entries]
    assert np.array_equal(one.labels(), again.labels()) and np.array_equal(one.images(), again.images())
    assert [line.edits for line in one.entries] != [line.edits for line in other.entries]
    assert one.header.request.edits == (EDIT,) and one.header.request.edits_per_map == 2
    code, _, err = cli(
        "sample", run_folder, "--masks", dataset_folder, "--edit", "deform 0.3", "--out", tmp_path / "one"
    )
    assert code == 2 and "holds images made with" in err


def test_volumes(cli: Cli, nnunet: Path, tmp_path: Path) -> None:
    settings = PrepareSettings(size=(12, 24, 24), axis="axial")
    prepare(open_source(str(nnunet)), tmp_path / "data", settings)
    edits = ["--edit", "grow core 2mm; deform 0.2", "--edit", "move core 3mm superior", "--edit", "mirror"]
    code, _, err = cli(
        "edit", tmp_path / "data", tmp_path / "out", *edits, "--per-map", 3, "--split", "test", "--implausible", "keep"
    )
    assert code == 0, err
    dataset = PreparedDataset.open(tmp_path / "data")
    spec = ModelSpec(dataset.schema, dataset.size, "volume", dataset.info.spacing_mm and (2.5, 1.0, 1.0))
    maps, before = FolderMaps(tmp_path / "out", spec), DatasetMaps(dataset, dataset.split("test"))
    assert len(maps) == 3 * len(before)
    for number in range(len(before)):
        labels, grown = before.item(number).labels, maps.item(3 * number)
        assert (grown.labels == 2).sum() > (labels == 2).sum() and grown.labels.shape == (12, 24, 24)
        up = maps.item(3 * number + 1).labels
        way = np.argwhere(up == 2).mean(axis=0) - np.argwhere(labels == 2).mean(axis=0)
        assert way.tolist() == pytest.approx([-1, 0, 0])  # 3 mm are one slice of 2.5 mm, towards the head
        assert np.array_equal(maps.item(3 * number + 2).labels, labels[..., ::-1])
    assert (tmp_path / "out/overview.png").is_file()


def test_what_is_implausible_is_said(cli: Cli, dataset_folder: Path, tmp_path: Path) -> None:
    far = ["--edit", "move ball 14mm left", "--per-map", 1, "--count", 4]
    code, said, _ = cli("edit", dataset_folder, tmp_path / "warned", *far)
    assert code == 0 and "are implausible (maps.jsonl says why)" in said
    assert any("ball lies" in str(line.get("implausible")) for line in lines_of(tmp_path / "warned/maps.jsonl"))
    code, _, err = cli("edit", dataset_folder, tmp_path / "refused", *far, "--implausible", "refuse")
    assert code == 2 and "edits are implausible, after 10 tries each" in err
    code, said, _ = cli("edit", dataset_folder, tmp_path / "kept", *far, "--implausible", "keep")
    assert code == 0 and "are implausible" not in said


def test_a_tiny_set_has_no_limits(cli: Cli, dataset_folder: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    shutil.copytree(dataset_folder, tiny)
    index = (tiny / "index.csv").read_text().splitlines()
    train = [line for line in index if ",train," in line]
    first = train[0].split(",")[2]
    kept = [line.replace(",train,", ",val,") if f",{first}," not in line else line for line in index]
    (tiny / "index.csv").write_text("\n".join(kept) + "\n")
    edits = ["--edit", "deform 0.2", "--count", 2]
    code, said, _ = cli("edit", tiny, tmp_path / "a", *edits)
    assert code == 0 and "not checked for plausibility" in said and "of 1 training patients" in said
    code, _, err = cli("edit", tiny, tmp_path / "b", *edits, "--implausible", "refuse")
    assert code == 2 and "cannot be learned from the maps of 1 training patients" in err


BAD = {
    "unknown verb": (["edit", "{data}", "o", "--edit", "grwo ball 3mm"], "Did you mean 'grow'?"),
    "unknown class": (["edit", "{data}", "o", "--edit", "grow bal 3mm"], "Did you mean 'ball'?"),
    "no edit": (["edit", "{data}", "o", "--edit", ""], "the edit is empty"),
    "no data": (["edit", "nowhere", "o", "--edit", "mirror"], "nowhere: does not exist"),
    "unknown split": (["edit", "{data}", "o", "--edit", "mirror", "--split", "tset"], "Did you mean 'test'"),
    "unknown rule": (["edit", "{data}", "o", "--edit", "mirror", "--implausible", "wran"], "Did you mean 'warn'?"),
    "out is there": (["edit", "{data}", "{data}", "--edit", "mirror"], "holds no edited label maps"),
    "sample, unknown verb": (
        ["sample", "{run}", "--masks", "{data}", "--out", "s", "--edit", "grow ball"],
        "a distance is missing",
    ),
    "sample, paired": (
        ["sample", "{run}", "--masks", "{data}", "--out", "s", "--edit", "mirror", "--paired"],
        "Leave out --paired or --edit",
    ),
    "sample, edits per map without edits": (
        ["sample", "{run}", "--masks", "{data}", "--out", "s", "--edits-per-map", "3"],
        "--edits-per-map is for --edit",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_edits(
    cli: Cli, name: str, dataset_folder: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*[word.format(data=dataset_folder, run=run_folder) for word in words])
    assert code == 2 and message in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "o").exists() and not (tmp_path / "s").exists()
