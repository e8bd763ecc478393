"""Completions, balanced sets and edited maps in shards are those made at once, and what is of the whole is made once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.conditioning.attributes import AttributeSchema, Categorical
from anatogen.data.store import PreparedDataset
from anatogen.distributed import WHOLE, Shard
from anatogen.errors import OutputError
from anatogen.files import locked
from anatogen.generation.manifest import Line
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet
from anatogen.workflows import complete as complete_module
from anatogen.workflows import completed_set
from anatogen.workflows.balance import BalanceRequest, balance
from anatogen.workflows.complete import CompleteResult, complete
from anatogen.workflows.edit import EditChoice
from anatogen.workflows.sample import MapChoice, SampleRequest, result_of, sample
from sometimes_a_core import SometimesACore, asked, put_in

Cli = Callable[..., tuple[int, str, str]]
Draw = Callable[..., list[Path]]


class Killed(BaseException):
    pass


class Noisy(SometimesACore):
    """With noise of the image's own seed; with every class given it forgets the core for odd seeds."""

    takes_real_starts = takes_similarity = True

    def generate(
        self, requests: Sequence[Request], settings: object = None, *, batch_size: int = 16
    ) -> Iterator[tuple[Request, np.ndarray]]:
        for request in requests:
            self.made.append(request.id)
            labels = np.where(request.labels == 2, 0, request.labels) if request.seed % 2 else request.labels
            noise = np.random.default_rng(request.seed).normal(0, 0.01, (1, *labels.shape))
            yield request, (self.means[labels][None] + noise).clip(-1, 1).astype(np.float32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The overviews that would be drawn; pictures take long."""
    found: list[Path] = []

    def draw(samples: Any, *_: Any) -> Any:
        found.append(getattr(samples, "folder", Path()))
        return b"" if isinstance(samples, list) else None

    monkeypatch.setattr("anatogen.workflows.completed_set.overview", draw)
    monkeypatch.setattr("anatogen.workflows.completed_set.reliability", lambda _: b"")
    monkeypatch.setattr("anatogen.workflows.sample.overview_of", draw)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that does not depend on the number of shards, with its content."""
    files = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    names = ("manifest.jsonl", "rejected.jsonl", "places.jsonl", ".lock")
    kept = [file for file in sorted(files) if "shards" not in file.parts and not file.name.endswith(names)]
    assert not any(file.name.startswith(".") for file in kept)
    return {file.as_posix(): (folder / file).read_bytes() for file in kept}


def lines_of(samples: SampleSet) -> list[Line]:
    return [line.model_copy(update={"position": None}) for line in samples.entries]


# ---- completing label maps


def small(dataset: PreparedDataset, out: Path, shard: Shard = WHOLE, **more: Any) -> CompleteResult:
    """Six samples of three label maps, the second of which two shards share, and two maps to calibrate on."""
    return complete(asked(dataset, out, shard=shard, **{"calibrate": 2, "per_mask": 2, "count": 6, **more}))


def test_completed_in_more_shards_than_there_are_images(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    model, _ = put_in(monkeypatch, dataset)
    order = (3, 8, 0, 7, 1, 6, 2, 5, 4)
    whole, count = small(dataset, tmp_path / "whole"), len(order)
    made = len(model.made)
    for index in order[:-1]:
        part = small(dataset, tmp_path / "s", Shard(index, count))
        assert part.completion is None and part.overview is None and part.samples is not None
        assert len(part.samples.entries) == len(Shard(index, count).of(6)) or part.samples.shard == WHOLE
        assert any("shards are not finished" in note for note in part.notes)
    assert not (tmp_path / "s" / "completion.json").exists() and not (tmp_path / "s" / "completed.jsonl").exists()
    last = small(dataset, tmp_path / "s", Shard(order[-1], count))
    assert last.completion == whole.completion and len(drawn) == 2 and len(model.made) == 2 * made
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    assert last.samples is not None and lines_of(last.samples) == lines_of(SampleSet.open(tmp_path / "whole"))


def test_whoever_comes_after_a_kill_completes_and_nobody_again(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    model, segmenter = put_in(monkeypatch, dataset)
    whole, out = small(dataset, tmp_path / "whole"), tmp_path / "s"

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    small(dataset, out, Shard(0, 2))
    for number, place in enumerate(
        (
            "complete._said_of_missing",  # its samples are made
            "completed_set.Whole._alone",
            "completed_set.tally_of",  # before the calibration
            "completed_set._Maps.write",
            "completed_set.write_maps",
            "completed_set.Completion.write",
        )
    ):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(f"anatogen.workflows.{place}", kill)
            small(dataset, out, Shard((number + 1) % 2, 2))
        assert not (out / "completion.json").exists()
    found = small(dataset, out, Shard(0, 2))
    assert found.completion == whole.completion and contents(out) == contents(tmp_path / "whole")
    made, labelled, pictures = len(model.made), segmenter.seen, len(drawn)
    again = small(dataset, out, Shard(1, 2))
    assert again.completion == whole.completion and again.overview is not None
    assert "shard 2/2 was complete already" in again.notes[-1]
    assert (made, labelled, pictures) == (len(model.made), segmenter.seen, len(drawn))
    (out / "completion.json").write_text("{")  # damaged
    assert small(dataset, out, Shard(1, 2)).completion == whole.completion and len(drawn) == pictures + 1
    more = small(dataset, out, Shard(1, 2), calibrate=0).completion  # of other images
    assert more is not None and more.calibration["core"].calibrated is None and len(drawn) == pictures + 2
    small(dataset, out)  # without --shard it is always made again
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("dies", [False, True])
def test_of_two_that_finish_at_once_one_completes(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path], dies: bool
) -> None:
    put_in(monkeypatch, dataset)
    both, said = threading.Barrier(2, timeout=60), complete_module._said_of_missing
    write, deaths = completed_set.write_maps, list[str]()

    def wait(sets: Any) -> list[str]:
        both.wait()
        return said(sets)

    def die_once(*args: Any) -> None:
        if dies and not deaths:
            deaths.append("")
            raise Killed
        write(*args)

    monkeypatch.setattr(complete_module, "_said_of_missing", wait)
    monkeypatch.setattr(completed_set, "write_maps", die_once)

    def work(index: int) -> CompleteResult | None:
        try:
            return small(dataset, tmp_path / "s", Shard(index, 2), calibrate=0)
        except Killed:
            return None

    with ThreadPoolExecutor(2) as threads:
        found = [each for each in threads.map(work, range(2)) if each is not None]
    assert len(found) == 2 - dies and len(drawn) == 1  # the other one waited, and took over where it had to
    monkeypatch.undo()


def test_nobody_removes_what_another_process_is_writing(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    put_in(monkeypatch, dataset)
    out = tmp_path / "s"
    small(dataset, out, Shard(0, 2))
    of_set = [out / "images/.partial-1-0-a.png", out / ".partial-1-0-samples.json"]
    of_whole = [out / f"{name}/.partial-1-0-a.npy" for name in ("completed", "maps/a", "calibration/images")]
    of_whole.append(out / ".partial-1-0-overview.png")
    others = [out / "difference/.partial-1-0-a.npy"]
    for left in (*of_set, *of_whole, *others):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.touch()
    small(dataset, out, Shard(1, 2), calibrate=0, count=6)  # completes the set, but not the calibration
    assert not any(map(Path.exists, of_set)) and others[0].exists() and of_whole[2].exists()
    assert not any(map(Path.exists, (of_whole[0], of_whole[1], of_whole[3])))  # it made the whole, under its lock
    of_whole[0].touch()
    with locked(out, "completion"), pytest.raises(OutputError, match="another process"):
        small(dataset, out)
    assert of_whole[0].exists() and not of_whole[2].exists()  # it made the calibration, under its lock


def test_completing_from_the_command_line_and_by_torchrun(
    cli: Cli, dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    put_in(monkeypatch, dataset)
    words = ("complete", "run", "--masks", dataset.folder, "--free", "core", "--per-mask", 2, "--count", 4)
    words += ("--calibrate", 1, "--out", tmp_path / "s", "--device", "cpu")
    code, out, err = cli(*words, "--shard", "1/2")
    assert code == 0 and "2 images of shard 1/2\n" in out and "Next" not in out, err
    assert "note: 1 of 2 shards are not finished (2/2)" in out
    assert "note: of the calibration, 1 of 2 shards are not finished (2/2)" in out
    for rank in range(2):  # two processes share the second half
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "nowhere"}.items():
            monkeypatch.setitem(os.environ, name, str(value))
        code, out, err = cli(*words, "--shard", "2/2")
        assert code == 0, err
    assert "4 images of 2 label maps, core completed" in out and "Next: anatogen export" in out
    code, out, err = cli("complete", "--of-real", dataset.folder, "--out", tmp_path / "r", "--shard", "1/2")
    assert code == 2 and "--of-real makes none" in err and not (tmp_path / "r").exists()
    assert cli(*words, "--shard", "3/2")[0] == 2


# ---- balanced sets


def balanced(dataset: PreparedDataset, out: Path, shard: Shard = WHOLE) -> BalanceRequest:
    edits = EditChoice(("deform 0.1",), implausible="keep")
    return BalanceRequest(
        dataset.folder, out, Path("run"), "core", 0.5, count=10, edits=edits, device="cpu", shard=shard
    )


def test_a_balanced_set_in_shards(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    put_in(monkeypatch, dataset, Noisy)
    whole, out, count = balance(balanced(dataset, tmp_path / "whole")), tmp_path / "s", 3
    assert whole.samples.selection.rejected > 0
    for index in reversed(range(1, count)):
        part = balance(balanced(dataset, out, Shard(index, count)))
        assert (part.asked, part.found, part.overview) == (None, None, None) and part.before == whole.before
        assert len(part.samples.entries) + len(part.samples.rejected) == len(Shard(index, count).of(10))
    last = balance(balanced(dataset, out, Shard(0, count)))
    assert (last.asked, last.found) == (whole.asked, whole.found) and last.notes == whole.notes
    assert lines_of(last.samples) == lines_of(whole.samples) and drawn == [tmp_path / "whole", out]
    assert last.samples.selection == whole.samples.selection and contents(out) == contents(tmp_path / "whole")
    again = balance(balanced(dataset, out, Shard(0, count)))
    assert (again.asked, again.found) == (whole.asked, whole.found) and "complete already" in again.notes[-1]


def test_balancing_from_the_command_line_and_by_torchrun(
    cli: Cli, dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    put_in(monkeypatch, dataset, Noisy)
    words = ("balance", dataset.folder, tmp_path / "b", "--run", "run", "--class", "core", "--share", 0.5)
    words += ("--count", 4, "--implausible", "keep", "--min-dice", 0, "--device", "cpu")
    for rank in range(2):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "nowhere"}.items():
            monkeypatch.setitem(os.environ, name, str(value))
        code, out, err = cli(*words, "--shard", "1/1")
        assert code == 0, err
        if not rank:
            assert "2 images of shard 1/2" in out and "is in" not in out and "Next" not in out
            assert "1 of 2 shards are not finished (2/2)" in out
    assert "core is in 50.0% of the label maps" in out and "Next: anatogen export" in out


# ---- edited maps


@pytest.mark.parametrize("implausible", ["warn", "refuse"])
def test_maps_edited_on_the_way_in_shards(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path], implausible: str
) -> None:
    put_in(monkeypatch, dataset, Noisy)
    edits = EditChoice(("grow ball 1..12px", "paste core; deform 0.2"), 2, implausible)
    maps = MapChoice(dataset.folder, edits=edits, count=7, counterfactual="4px", seed=3)
    request = SampleRequest(Path("run"), tmp_path / "whole", maps, device="cpu", format="npy")
    whole = sample(request)
    if implausible == "refuse":
        assert any("edits were left out" in note for note in whole.notes)
    else:
        assert any(line.implausible for line in whole.samples.entries)
    for index in (2, 0, 1):
        last = sample(replace(request, out=tmp_path / "s", shard=Shard(index, 3)))
        assert last.samples.shard == (Shard(index, 3) if index != 1 else WHOLE)
    assert lines_of(last.samples) == lines_of(whole.samples) and last.notes == whole.notes
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    assert len(list((tmp_path / "s" / "difference").iterdir())) == 7
    assert len({line.edits for line in last.samples.entries}) > 5 and drawn == [tmp_path / "whole", tmp_path / "s"]


def test_a_shard_that_another_completes_meanwhile_draws_nothing(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    """Its part may be empty, and the overview is of the whole."""
    put_in(monkeypatch, dataset, Noisy)
    request = SampleRequest(Path("run"), tmp_path / "s", MapChoice(dataset.folder, count=1), device="cpu")
    empty = sample(replace(request, shard=Shard(0, 2))).samples
    sample(replace(request, shard=Shard(1, 2)))
    result = result_of(empty, Shard(0, 2), 0)
    assert len(drawn) == 1 and result.overview is None and "not finished" not in "".join(result.notes)


# ---- attributes


def test_similar_images_are_told_attributes(
    cli: Cli, dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    model, _ = put_in(monkeypatch, dataset, Noisy)
    words = ("interpolate", "run", "--masks", dataset.folder, "--count", 2, "--device", "cpu", "--format", "npy")
    words += ("--similarity", "0.25,0.5", "--attribute")
    refused = cli(*words, "look=dark", "--out", tmp_path / "bad")
    assert refused[0] == 2 and "takes no attributes, but look is asked for" in refused[2]
    assert refused[2] == cli("sample", "run", "--masks", dataset.folder, "--out", tmp_path / "bad", "--attribute", "look=dark")[2]  # fmt: skip
    look = Categorical(name="look", levels=("bright", "dark"))
    model.spec = replace(model.spec, attributes=AttributeSchema(attributes=(look,)))
    for value, said in (("look=grey", "no value 'grey'"), ("looks=dark", "Did you mean 'look'"), ("look", "NAME=VALUE")):  # fmt: skip
        code, _, err = cli(*words, value, "--out", tmp_path / "bad")
        assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not (tmp_path / "bad").exists()
    assert cli(*words, "look=dark", "--out", tmp_path / "s")[0] == 0
    samples = SampleSet.open(tmp_path / "s")
    assert len(samples.entries) == 4 and all(line.attributes == {"look": "dark"} for line in samples.entries)
    assert samples.header.request.attributes == {"look": "dark"} and samples.entries[0].similarity == 0.25
    code, _, err = cli(*words, "look=bright", "--out", tmp_path / "s")
    assert code == 2 and "dark" in err and "bright" in err  # another set


def test_completed_and_balanced_sets_are_told_attributes(
    cli: Cli, dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[Path]
) -> None:
    model, _ = put_in(monkeypatch, dataset, Noisy)
    complete = ("complete", "run", "--masks", dataset.folder, "--free", "core", "--per-mask", 2, "--count", 2)
    balanced = ("balance", dataset.folder, "--run", "run", "--class", "core", "--share", 0.5, "--count", 4)
    balanced += ("--implausible", "keep", "--min-dice", 0)
    for words, out in ((complete, ("--out", tmp_path / "c")), (balanced, (tmp_path / "b",))):
        model.spec = replace(model.spec, attributes=None)
        asked = (*words, *out, "--device", "cpu", "--attribute", "look=dark")
        code, _, err = cli(*asked)
        assert code == 2 and "takes no attributes, but look is asked for" in err and not Path(out[-1]).exists()
        look = Categorical(name="look", levels=("bright", "dark"))
        model.spec = replace(model.spec, attributes=AttributeSchema(attributes=(look,)))
        code, _, err = cli(*asked)
        assert code == 0, err
        samples = SampleSet.open(Path(out[-1]))
        assert samples.entries and all(line.attributes == {"look": "dark"} for line in samples.entries)
        assert samples.header.request.attributes == {"look": "dark"}
