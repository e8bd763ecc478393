"""What a sample set on disk promises: nothing mixes, nothing is torn, nothing leads outside, nothing says where it was
made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anatogen
from anatogen.check.samples import check_samples
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, OutputError, SettingsError
from anatogen.files import safe_name
from anatogen.generation.header import Header
from anatogen.generation.manifest import Line, Measures, RejectedLine
from anatogen.generation.plan import FolderMaps, Plan, requests_from_dataset
from anatogen.generation.rejection import Gating, Verdict
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.sampling import SamplingSettings
from anatogen.settings import without_paths
from cohorts import RealImages

Cli = Callable[..., tuple[int, str, str]]
OLD = Path(__file__).parents[1] / "fixtures" / "format1"


@pytest.fixture
def generator(dataset: PreparedDataset) -> Any:
    return RealImages(dataset)


def made(generator: Any, out: Path, split: str = "test", count: int | None = 3, **more: Any) -> SampleSet:
    """A set of images of `split`; `states`, `absent`, ... go to the requests, the rest to the writer."""
    dataset = generator.dataset
    kinds = ("absent", "seed", "per_mask", "paired", "combine", "similarities")
    asked = {key: more.pop(key) for key in kinds if key in more}
    states = more.pop("states", dataset.schema.states())
    requests = requests_from_dataset(dataset, dataset.split(split), states, count=count, **asked)
    if "gates" in more:
        more["gating"] = Gating(more.pop("gates"), more.pop("retries", 0))
    if "settings" in more:
        generator = generator.sampling_with(more.pop("settings"))
    return write_sample_set(generator, requests, out, **more)


# What defines a set


def changes(dataset: PreparedDataset) -> dict[str, tuple[dict[str, Any], str]]:
    """Calls that differ in one thing, and what is said of it."""
    schema = dataset.schema
    return {
        "split": ({"split": "val"}, "with split test, not val"),
        "given": ({"states": schema.states(given=["ball"])}, "with given ball, core, not ball"),
        "absent": ({"absent": ("core",)}, "with absent none, not core"),
        "combine": ({"combine": ("core",)}, "with combine none, not core"),
        "paired": ({"paired": True}, "with paired none, not yes"),
        "seed": ({"seed": 1}, "with seed 0, not 1"),
        "similarities": ({"similarities": (0.5,)}, "with similarities none, not 0.5"),
        "steps": ({"settings": SamplingSettings(steps=4)}, "with steps 16, not 4"),
        "format": ({"image_format": "npy"}, "with format png, not npy"),
        "gate": ({"gates": [Rejects(set())]}, "with min_dice none, not 0.8"),
    }


class Rejects:
    """Rejects the first try of some requests."""

    def __init__(self, ids: set[str]) -> None:
        from anatogen.generation.header import GateSettings

        self.settings, self.ids, self.seen = GateSettings(min_dice=0.8), ids, set[str]()

    def __call__(self, requests: Sequence[Request], images: np.ndarray) -> list[Verdict]:
        found = [Verdict(r.id not in self.ids or r.id in self.seen, Measures(dice=0.5), "it is bad") for r in requests]
        self.seen |= {r.id for r in requests}
        return found


@pytest.mark.parametrize(
    "name",
    ["split", "given", "absent", "combine", "paired", "seed", "similarities", "steps", "format", "gate"],
)
def test_another_request_does_not_mix(generator: Any, dataset: PreparedDataset, tmp_path: Path, name: str) -> None:
    made(generator, tmp_path / "s")
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    call, said = changes(dataset)[name]
    with pytest.raises(SettingsError, match=f"holds images made {said}. Choose another folder, or ask for the same"):
        made(generator, tmp_path / "s", **call)
    assert before == {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    made(generator, tmp_path / "other", **call)  # by itself it is fine
    with pytest.raises(SettingsError, match="holds images made with"):
        made(generator, tmp_path / "other")


def test_another_source_of_label_maps_does_not_mix(generator: Any, tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "map.npy", np.full((32, 32), value, np.uint8))
    made_of = {
        name: Plan(generator.schema.states()).requests(FolderMaps(tmp_path / name, generator.spec))
        for name in ("a", "b")
    }
    write_sample_set(generator, made_of["a"], tmp_path / "s")
    with pytest.raises(SettingsError, match="with label_maps name a, not b"):
        write_sample_set(generator, made_of["b"], tmp_path / "s")
    np.save(tmp_path / "a" / "map.npy", np.zeros((32, 32), np.uint8))
    changed = Plan(generator.schema.states()).requests(FolderMaps(tmp_path / "a", generator.spec))
    with pytest.raises(SettingsError, match="with label_maps fingerprint"):
        write_sample_set(generator, changed, tmp_path / "s")
    with pytest.raises(SettingsError, match="with label_maps kind folder, not data set"):
        made(generator, tmp_path / "s")


def test_more_images_extend_a_set(generator: Any, tmp_path: Path) -> None:
    made(generator, tmp_path / "s", count=2)
    assert len(made(generator, tmp_path / "s", count=2, per_mask=2).entries) == 4  # another map, twice
    more = made(generator, tmp_path / "s", count=None, per_mask=2)
    assert len(more.entries) == 2 * len(generator.dataset.split("test")) == len({e.id for e in more.entries})
    assert more.header.request.per_mask == 2
    with pytest.raises(SettingsError, match="with per_mask 2, not 1"):
        made(generator, tmp_path / "s", count=None)
    with pytest.raises(SettingsError, match="it is not known what label maps they are from"):
        made(generator, Path(shutil.copytree(OLD / "samples-png", tmp_path / "old")))


# One writer, which may be killed

SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from anatogen.data.store import PreparedDataset
from cohorts import RealImages
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import write_sample_set
dataset = PreparedDataset.open({data!r})
def progress(done, total):
    if done == 3:
        print("there", flush=True)
        time.sleep(600)
requests = requests_from_dataset(dataset, dataset.split("test"), dataset.schema.states())
write_sample_set(RealImages(dataset), requests, Path({out!r}), image_format={form!r}, progress=progress)
"""


@pytest.mark.parametrize("form", ["png", "dicom"])
def test_two_processes_and_a_kill(generator: Any, dataset: PreparedDataset, tmp_path: Path, form: str) -> None:
    """While one process writes, another gets one line; killed, it leaves a valid set, which is resumed."""
    out = tmp_path / "s"
    where = {"tests": str(Path(__file__).parents[1]), "data": str(dataset.folder), "out": str(out), "form": form}
    environment = {**os.environ, "PYTHONPATH": str(Path(anatogen.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(**where)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "there\n"
            with pytest.raises(OutputError, match="s: another process is writing here") as refused:
                made(generator, out, count=None, image_format=form)
            assert "\n" not in str(refused.value)
            assert len(SampleSet.open(out).entries) == 3  # reading is free
        finally:
            process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            process.wait()
    assert len(SampleSet.open(out).entries) == 3
    whole = made(generator, tmp_path / "whole", count=None, image_format=form)
    generator.made.clear()
    resumed = made(generator, out, count=None, image_format=form)
    assert len(generator.made) == len(whole.entries) - 3
    assert resumed.entries == whole.entries == SampleSet.open(out).entries
    assert np.array_equal(resumed.images(), whole.images())


@pytest.mark.parametrize("form", ["png", "dicom"])
def test_killed_at_any_line(generator: Any, tmp_path: Path, form: str) -> None:
    """Wherever the manifest ends, and with files behind that no line names, the set opens and is resumed."""
    gate = {"image_format": form, "retries": 0, "count": None}
    rows = generator.dataset.split("test")
    bad = {f"{rows[1].id}_00"}
    whole = made(generator, tmp_path / "whole", gates=[Rejects(bad)], **gate)
    text = (tmp_path / "whole" / "manifest.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(text) if byte == ord("\n")]
    cuts = [0, 1, ends[0] - 1, ends[0], ends[0] + 40, ends[2] - 2, len(text) - 1]
    for number, cut in enumerate(cuts):
        out = Path(shutil.copytree(tmp_path / "whole", tmp_path / f"s{number}"))
        (out / "manifest.jsonl").write_bytes(text[:cut])
        (out / "rejected.jsonl").write_bytes((out / "rejected.jsonl").read_bytes()[: 30 * number])
        (out / "places.jsonl").write_bytes((out / "places.jsonl").read_bytes() + b'{"format": 2, "id": "to')
        (out / "images" / ".partial-1-abcd-x.png").write_bytes(b"half")
        complete = sum(end <= cut + 1 for end in ends)  # a line without its end is one
        if complete:
            assert SampleSet.open(out).entries == whole.entries[:complete]
            assert not [f for f in check_samples(out).findings if f.severity == "error"]
        else:
            with pytest.raises(DataError, match="holds no image"):
                SampleSet.open(out)
        again = made(generator, out, gates=[Rejects(bad)], **gate)
        assert again.entries == whole.entries == SampleSet.open(out).entries and again.rejected == whole.rejected
        assert not list((out / "images").glob(".partial*"))
        assert np.array_equal(again.images(), whole.images())
        assert sorted(p.name for p in (out / "images").iterdir()) == sorted(Path(e.file).name for e in whole.entries)


# Names


@pytest.mark.parametrize(
    "name",
    ["../../x", "a/b", "a\\b", "/abs", "CON", "nul.txt", "x" * 300, "", ".", "..", ".hidden", "Fälle 1", "a\nb", "-rf", "end.", "a:b", "\ud800"],
)  # fmt: skip
def test_names_never_become_paths(generator: Any, tmp_path: Path, name: str) -> None:
    safe = safe_name(name)
    assert safe != name and safe.isascii() and 0 < len(safe) <= 120 and Path(safe).name == safe and safe[0] not in ".-"
    assert safe_name(safe) == safe and safe_name(name) == safe and safe_name(f"{name}?") != safe
    if "\ud800" in name:
        return
    out = tmp_path / "deep" / "s"
    labels = np.zeros((32, 32), np.int64)
    requests = [
        Request(labels, generator.schema.states(), 0, id=name),
        Request(labels, generator.schema.states(), 1, id="other"),
    ]
    samples = write_sample_set(generator, requests, out)
    assert [e.id for e in samples.entries] == [safe, "other"] and len(list(out.rglob("*.png"))) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["deep"] and [p.name for p in (tmp_path / "deep").iterdir()] == ["s"]
    generator.made.clear()
    write_sample_set(generator, requests, out)
    assert generator.made == []


def test_names_that_other_systems_cannot_tell_apart(generator: Any, tmp_path: Path) -> None:
    labels = np.zeros((32, 32), np.int64)
    requests = [Request(labels, generator.schema.states(), i, id=name) for i, name in enumerate(("A", "a"))]
    for _ in range(2):
        samples = write_sample_set(generator, requests, tmp_path / "s")
        assert len({e.file.lower() for e in samples.entries}) == 2 and samples.entries[0].id == "A"
        assert generator.made == ["A", "a"]
    assert not np.array_equal(*samples.images())
    with pytest.raises(SettingsError, match="two images are both called 'A'"):
        write_sample_set(generator, [requests[0], requests[0]], tmp_path / "t")
    assert safe_name("ball_006_0000_00") == "ball_006_0000_00"  # what is safe stays
    assert safe_name("case_0001_00_alike0.25") == "case_0001_00_alike0.25"


def test_no_path_of_this_machine_travels(cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    words = ("sample", run_folder, "--masks", dataset_folder, "--count", 2, "--device", "cpu", "--out", out)
    assert cli(*words)[0] == 0
    for file in out.rglob("*.json*"):
        text = file.read_text(encoding="utf-8")
        assert not {str(p) for p in (tmp_path, run_folder.parent, dataset_folder.parent, Path.home())} & {
            part for part in text.replace('"', " ").split() if part.startswith("/")
        }
        assert str(tmp_path) not in text and str(run_folder.parent) not in text
    header = SampleSet.open(out).header
    assert header.run == run_folder.name and header.version == anatogen.__version__ and header.command
    words_then = [
        "sample",
        "/home/me/run",
        "--masks=/data/a b",
        "--given",
        "a,b",
        "C:\\x\\y",
        "--set",
        "k=/p/q,/r/s",
        "../x",
    ]
    assert without_paths(words_then) == [
        "sample",
        "run",
        "--masks=a b",
        "--given",
        "a,b",
        "y",
        "--set",
        "k=q,s",
        "../x",
    ]


def test_the_run_is_found_beside_the_set(generator: Any, tmp_path: Path) -> None:
    """In the same tree, wherever that is now; or where the user says."""
    run = tmp_path / "project" / "runs" / "real"
    run.mkdir(parents=True)
    samples = made(generator, tmp_path / "project" / "report" / "samples", count=1)
    assert run.resolve() in [p.resolve() for p in samples.runs()]
    moved = SampleSet.open(Path(shutil.move(tmp_path / "project", tmp_path / "elsewhere")) / "report" / "samples")
    assert (tmp_path / "elsewhere" / "runs" / "real").resolve() in [p.resolve() for p in moved.runs()]
    assert list(moved.runs(tmp_path / "mine")) == [tmp_path / "mine"]
    assert SampleSet.open(OLD / "samples-png").header.run == "runs/balls"


# Documents


def test_keys_that_scripts_rely_on(generator: Any, tmp_path: Path) -> None:
    samples = made(generator, tmp_path / "s", count=1)
    line = json.loads((tmp_path / "s" / "manifest.jsonl").read_text())
    assert {
        "file",
        "labels",
        "given",
        "free",
        "seed",
        "solver",
        "steps",
        "model",
        "case",
        "patient",
        "split",
    } <= line.keys()
    assert list(line)[:4] == ["format", "id", "file", "labels"] and line["format"] == 2
    assert (line["solver"], line["steps"], line["model"]) == ("dpmpp_2m", 16, generator.digest)
    header = json.loads((tmp_path / "s" / "samples.json").read_text())
    assert header["format"] == 2 and header["image_format"] == "png" and header["request"]["seed"] == 0
    assert header["request"]["label_maps"]["fingerprint"] and header["about_model"]["dataset"]["fingerprint"]
    places = [json.loads(text) for text in (tmp_path / "s" / "places.jsonl").read_text().splitlines()]
    assert len(places) == 1 and places[0]["id"] == line["place"]["scan"]
    assert samples.entries == SampleSet.open(tmp_path / "s").entries


@pytest.mark.parametrize("kind", ["samples.json", "manifest.jsonl"])
def test_a_newer_format_is_refused(generator: Any, tmp_path: Path, kind: str) -> None:
    made(generator, tmp_path / "s", count=1)
    path = tmp_path / "s" / kind
    path.write_text(path.read_text().replace('"format": 2', '"format": 3', 1))
    with pytest.raises(DataError, match=f"{kind}: has format 3, and this version .* formats up to 2. Upgrade anatogen"):
        SampleSet.open(tmp_path / "s")
    assert any("has format 3" in f.what for f in check_samples(tmp_path / "s").findings)


def test_what_version_one_called_refused_is_rejected(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "samples-png", tmp_path / "s"))
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[0]["refused"] = [{"seed": 1, "dice": 0.2, "reason": "it is bad"}]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tries = [{"seed": seed, "dice": 0.1, "reason": "it is bad"} for seed in (2, 3)]
    (folder / "refused.jsonl").write_text(json.dumps({"id": "x", "given": ["ball"], "free": [], "tries": tries}) + "\n")
    header = json.loads((folder / "samples.json").read_text())
    header |= {
        "gate": {"retries": 1, "min_dice": 0.5},
        "request": {**header["request"], "judge": {"name": "j", "fingerprint": "f"}},
    }
    (folder / "samples.json").write_text(json.dumps(header))
    samples = SampleSet.open(folder)
    found = samples.selection
    assert (found.made, found.kept, found.rejected, found.given_up) == (len(lines) + 3, len(lines), 3, 1)
    assert samples.entries[0].rejected[0].dice == 0.2 and samples.rejected[0].id == "x"
    assert found.gate is not None and found.gate.min_dice == 0.5
    assert found.gate.judge is not None and found.gate.judge.fingerprint == "f"


def test_images_are_counted_and_not_requests(generator: Any, tmp_path: Path) -> None:
    rows = generator.dataset.split("test")
    gate = Rejects({f"{row.id}_00" for row in rows[:2]})
    samples = made(generator, tmp_path / "s", count=None, gates=[gate], retries=1)
    assert len(samples.entries) == len(rows) and not samples.rejected
    assert (samples.selection.made, samples.selection.rejected) == (len(rows) + 2, 2)
    from anatogen.reporting.overview import selection_line

    said = selection_line(samples.selection)
    assert said.startswith(f"Selected by a Dice of at least 0.8: {len(rows)} of {len(rows) + 2} images were kept, 2 (")
    assert selection_line(made(generator, tmp_path / "t").selection) == ""


def test_documents_are_whole_after_a_round(tmp_path: Path) -> None:
    line = Line(
        id="a", file="images/a.png", labels="labels/a.png", given=("x",), seed=2**62, similarity=0.5, weight=0.5
    )
    assert Line.parse(line.text_on_disk(), tmp_path) == line and '"lambda": 0.5' in line.text_on_disk()
    rejected = RejectedLine(id="a", tries=())
    assert RejectedLine.parse(rejected.text_on_disk(), tmp_path) == rejected
    header = Header(model="m", classes=(("x", "#000000"),), image_format="png", sampling=SamplingSettings())
    header.write(tmp_path / "samples.json")
    assert Header.read(tmp_path / "samples.json") == header
