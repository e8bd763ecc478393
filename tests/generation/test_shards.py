"""A set made in shards is the set made at once: whatever their number, order, deaths and company."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.check.samples import check_samples
from anatogen.data.store import PreparedDataset
from anatogen.distributed import WHOLE, Shard
from anatogen.errors import OutputError, SettingsError
from anatogen.evaluation.selection import incomplete
from anatogen.evaluation.subject import SampleSets
from anatogen.files import locked
from anatogen.generation import ledger as ledger_module
from anatogen.generation import sample_set as sample_set_module
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.generation.shards import parse_shard
from anatogen.reporting.answers import selection_in_words
from anatogen.reporting.results import Report
from anatogen.workflows.interpolate import InterpolateRequest, interpolate
from anatogen.workflows.sample import MapChoice, SampleRequest, SolverChoice, sample
from cohorts import RealImages

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def generator(dataset: PreparedDataset) -> RealImages:
    return RealImages(dataset)


def made(generator: Any, out: Path, shard: Shard = WHOLE, *, per_mask: int = 1, **more: Any) -> SampleSet:
    dataset = generator.dataset
    rows = dataset.split("test")[:7]
    requests = requests_from_dataset(dataset, rows, dataset.schema.states(), per_mask=per_mask)
    return write_sample_set(generator, requests.only(shard), out, image_format="npy", **more)


def same(a: SampleSet, b: SampleSet) -> bool:
    """The same images in the same order; only their position is said in one of them."""
    lines = [[line.model_copy(update={"position": None}) for line in each.entries] for each in (a, b)]
    return lines[0] == lines[1] and np.array_equal(a.images(), b.images()) and np.array_equal(a.labels(), b.labels())


@pytest.mark.parametrize("order", [(0,), (1, 0), (2, 0, 1), (7, 3, 1, 6, 2, 0, 5, 4)])
def test_any_number_of_shards_in_any_order(generator: RealImages, tmp_path: Path, order: tuple[int, ...]) -> None:
    whole = made(generator, tmp_path / "whole")
    assert len(whole.entries) == 7  # fewer than eight shards: one is empty
    for done, index in enumerate(order, start=1):
        made(generator, tmp_path / "s", Shard(index, len(order)))
        left = len(order) - done
        assert len(SampleSet.open(tmp_path / "s").unfinished) == left or (done == 1 and index == 7)
    found = SampleSet.open(tmp_path / "s")
    assert same(found, whole) and not found.unfinished
    assert not check_samples(tmp_path / "s").findings


def test_a_shard_reads_and_returns_its_own_images_only(
    generator: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_nothing(folder: Path) -> None:
        pytest.fail(f"every image of {folder} was read")

    out, read = tmp_path / "s", sample_set_module.read_manifest
    monkeypatch.setattr(sample_set_module, "read_manifest", read_nothing)
    for index in (0, 3, 5):  # the first is empty: seven images in eight shards
        shard = Shard(index, 8)
        part = made(generator, out, shard)
        assert part.shard == shard and len(part.entries) == len(shard.of(7)) and not part.rejected
    monkeypatch.setattr(sample_set_module, "read_manifest", read)
    for index in (1, 2, 4, 6):
        made(generator, out, Shard(index, 8))
    assert len(made(generator, out, Shard(7, 8)).entries) == 7  # completes the set


def test_noise_belongs_to_the_image_and_not_to_its_shard(
    run_folder: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    """A real model, in batches of other sizes: equal to one stored level."""
    images = {}
    for count in (1, 3):
        for index in range(count):
            maps = MapChoice(dataset_folder, count=5)
            request = SampleRequest(run_folder, tmp_path / str(count), maps, device="cpu", shard=Shard(index, count))
            result = sample(request)
            assert (result.overview is not None) == (index == count - 1)  # by who completes the set
        images[count] = result.samples
    assert [line.seed for line in images[1].entries] == [line.seed for line in images[3].entries]
    assert np.abs(images[1].images() - images[3].images()).max() <= 2 / 65535 * 1.01


def test_a_killed_shard_goes_on_and_what_is_missing_is_said(
    generator: RealImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        assert total == 4
        if done == 2:
            raise Killed

    out = tmp_path / "s"
    made(generator, out, Shard(0, 2))
    with pytest.raises(Killed):
        made(generator, out, Shard(1, 2), progress=kill)
    assert len(SampleSet.open(out).entries) == 5
    assert "1 of 2 shards are not finished (2/2): their images are missing" in caplog.text
    assert [finding.code for finding in check_samples(out).findings] == ["unfinished-shards"]
    generator.made.clear()
    made(generator, out, Shard(1, 2))
    assert len(generator.made) == 2 and same(SampleSet.open(out), made(generator, tmp_path / "whole"))


def test_a_plain_run_makes_what_shards_left_and_more(generator: RealImages, tmp_path: Path) -> None:
    out = tmp_path / "s"
    made(generator, out, Shard(1, 3))
    generator.made.clear()
    finished = made(generator, out)
    assert len(generator.made) == 7 - 2 and same(finished, made(generator, tmp_path / "whole"))
    assert not SampleSet.open(out).unfinished
    generator.made.clear()
    made(generator, out, Shard(0, 2))  # is there already
    assert not generator.made
    more = made(generator, out, per_mask=2)
    assert len(generator.made) == 7  # more images extend the set
    twice = made(generator, tmp_path / "two", per_mask=2)
    assert {line.id: line.seed for line in more.entries} == {line.id: line.seed for line in twice.entries}


def test_shards_of_another_number_of_images_extend_a_set(
    generator: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_IN_A_FOLDER", 3)
    out = tmp_path / "s"
    for per_mask in (1, 2):
        plain = made(generator, tmp_path / "plain", per_mask=per_mask)
        generator.made.clear()
        for index in (1, 0, 2):
            made(generator, out, Shard(index, 3), per_mask=per_mask)
            assert (SampleSet.open(out).unfinished == []) == (index == 2)
        assert len(generator.made) == 7  # none twice, though shards have other images now
        assert [line.id for line in SampleSet.open(out).entries] == [line.id for line in plain.entries]
    assert max(len(list(folder.glob("*.npy"))) for folder in (out / "images").rglob("")) == 3
    made(generator, out, Shard(0, 3), per_mask=3)
    assert SampleSet.open(out).unfinished == ["2/3", "3/3"]
    finished = made(generator, out, per_mask=3)
    assert len(finished.entries) == 21 and not finished.unfinished


def test_no_image_is_written_by_two_processes(generator: RealImages, tmp_path: Path) -> None:
    out = tmp_path / "s"
    made(generator, out, Shard(0, 3))
    with locked(out / "shards" / "1-of-3"):
        with pytest.raises(OutputError, match="another process is writing shard 1/3 here"):
            made(generator, out, Shard(0, 2))
        made(generator, out, Shard(1, 2))
        with pytest.raises(OutputError, match="making a set of 7 images here, not 14"):
            made(generator, out, Shard(1, 2), per_mask=2)
    made(generator, out, Shard(0, 2))
    assert SampleSet.open(out).unfinished == [] and len(generator.made) == 7


def test_what_killed_shards_left_is_removed_with_the_last_one(generator: RealImages, tmp_path: Path) -> None:
    out = tmp_path / "s"
    made(generator, out, Shard(0, 2))
    left = out / "images" / ".partial-1-0-x.npy"
    left.touch()
    made(generator, out, Shard(0, 2))
    assert left.exists()  # another shard may be writing it
    made(generator, out, Shard(1, 2))
    assert not left.exists()


def test_reports_say_which_shards_are_missing(generator: RealImages, tmp_path: Path) -> None:
    out = tmp_path / "s"
    made(generator, out, Shard(1, 4))
    (missing,) = incomplete(SampleSets(SampleSet.open(out)))
    assert missing == "3 of 4 shards are not finished (1/4, 3/4, 4/4): their images are missing"
    assert f"Incomplete samples: {missing}." in selection_in_words(Report(incomplete=(missing,)))
    made(generator, out)
    assert incomplete(SampleSets(SampleSet.open(out))) == ()


def test_two_shards_write_at_once_and_nobody_else(
    generator: RealImages, dataset: PreparedDataset, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    both, problems = threading.Barrier(2, timeout=60), list[str]()

    def work(index: int) -> None:
        def progress(done: int, total: int) -> None:
            if done == 1:
                both.wait()  # the two hold their locks now
                if index == 0:
                    with pytest.raises(OutputError) as refused:
                        made(generator, out)
                    problems.append(str(refused.value))
                both.wait()

        try:
            made(RealImages(dataset), out, Shard(index, 2), progress=progress)
        except BaseException:
            both.abort()  # the other does not wait for it
            raise

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert "another process is writing shard 1/2 here" in problems[0]
    assert same(SampleSet.open(out), made(generator, tmp_path / "whole"))
    with locked(out), pytest.raises(OutputError, match="the whole set"):
        made(generator, out, Shard(0, 2))
    with pytest.raises(SettingsError, match="holds images made with"):
        requests = requests_from_dataset(dataset, dataset.split("val"), dataset.schema.states())
        write_sample_set(generator, requests.only(Shard(0, 2)), out, image_format="npy")


def test_a_set_that_another_shard_begins_at_this_moment(
    generator: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writes the header between two looks at the folder."""
    out, look, begun = tmp_path / "s", ledger_module.is_empty, list[SampleSet]()

    def begin_and_look(folder: Path, besides: Any = ()) -> bool:
        monkeypatch.setattr(ledger_module, "is_empty", look)
        begun.append(made(generator, out, Shard(0, 2)))
        return look(folder, besides)

    monkeypatch.setattr(ledger_module, "is_empty", begin_and_look)
    assert len(made(generator, out, Shard(1, 2)).entries) == 7 and begun


def test_a_folder_holds_at_most_so_many_images(
    generator: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_IN_A_FOLDER", 3)
    for index in range(2):
        made(generator, tmp_path / "s", Shard(index, 2))
    whole = made(generator, tmp_path / "whole")
    assert same(SampleSet.open(tmp_path / "s"), whole)
    counts = [len(list((tmp_path / "s" / "images" / name).glob("*.npy"))) for name in ("", "001", "002")]
    assert counts == [3, 3, 1]
    assert not check_samples(tmp_path / "s").findings
    shutil.copy(tmp_path / "s" / whole.entries[6].file, tmp_path / "s" / "images" / "002" / "stray.npy")
    assert [finding.code for finding in check_samples(tmp_path / "s").findings] == ["file-not-listed"]


def test_from_the_command_line_and_by_torchrun(
    cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sample", run_folder, "--masks", dataset_folder, "--out", tmp_path / "s", "--count", 4, "--steps", 2)
    code, out, err = cli(*command, "--shard", "1/2", "--device", "cpu")
    assert code == 0 and "1 of 2 shards are not finished (2/2)" in out and "2 images of shard 1/2" in out, err
    code, out, err = cli(*command, "--shard", "1/2", "--device", "cpu")
    assert code == 0 and "shard 1/2 was complete already" in out, err
    code, _, err = cli(*command, "--shard", "3/2")
    assert code == 2 and "--shard 3/2 is not one of several shards" in err
    for rank in range(2):  # two processes share the second half
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "nowhere"}.items():
            monkeypatch.setitem(os.environ, name, str(value))
        code, out, err = cli(*command, "--shard", "2/2", "--device", "cpu")
        assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "s" / "shards").iterdir()) == ["1-of-2", "3-of-4", "4-of-4"]
    samples = SampleSet.open(tmp_path / "s")
    assert len(samples.entries) == 4 and not samples.unfinished
    assert "already" not in out and (tmp_path / "s" / "overview.png").exists()


def test_similar_images_in_shards(run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    for index in (1, 0):
        maps = MapChoice(dataset_folder, count=2)
        asked = InterpolateRequest(
            run_folder, tmp_path / "s", maps, solver=SolverChoice(steps=2), device="cpu", shard=Shard(index, 2)
        )
        result = interpolate(asked)
        assert len(result.samples.entries) == (3 if index else 6)
    assert not result.samples.unfinished and result.overview is not None


def test_what_a_shard_is() -> None:
    assert parse_shard("3/200") == Shard(2, 200) and parse_shard("1/1") == WHOLE
    for bad in ("0/2", "3/2", "1", "a/b", "-1/2", "1/2/3"):
        with pytest.raises(SettingsError):
            parse_shard(bad)
    for total in (0, 1, 7, 1000):
        for count in (1, 2, 3, 8):
            parts = [Shard(index, count).of(total) for index in range(count)]
            assert [i for part in parts for i in part] == list(range(total))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [i for k in range(3) for i in Shard(1, 2).split(Shard(k, 3)).of(12)] == list(Shard(1, 2).of(12))
