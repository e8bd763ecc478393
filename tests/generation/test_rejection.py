from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, Interrupted, SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.header import GateSettings
from anatogen.generation.manifest import Measures, RejectedTry
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.rejection import Gating, Outcome, Verdict, generate_gated, retry_seed
from anatogen.generation.request import Request
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.labels import ClassStates

NEVER = 99
PATTERN = [0, 2, 0, NEVER, 1, 3, 0]  # how many tries of each request are rejected


class Pattern:
    """Accepts the try of each request that it was told to; the Dice that it reports grows with the tries."""

    def __init__(self, requests: Sequence[Request], pattern: Sequence[int] = PATTERN, bound: float = 0.8) -> None:
        self.seeds = {r.id: [retry_seed(r.seed, k) for k in range(5)] for r in requests}
        self.pattern = {r.id: n for r, n in zip(requests, pattern, strict=True)}
        self.settings = GateSettings(min_dice=bound)
        self.asked: list[list[tuple[str, int]]] = []

    def __call__(self, requests: Sequence[Request], images: np.ndarray) -> list[Verdict]:
        assert len(requests) == len(images)
        tries = [(r.id, self.seeds[r.id].index(r.seed)) for r in requests]
        self.asked.append(tries)
        return [
            Verdict(number == self.pattern[name], Measures(dice=number / 10), f"try {number} is bad")
            if number != self.pattern[name]
            else Verdict(True, Measures(dice=0.9))
            for name, number in tries
        ]


class OnlySeeds:
    """A generator whose images say by which seed they were made, and that notes what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def generate(self, requests: Sequence[Request], *, batch_size: int) -> Iterator[tuple[Request, np.ndarray]]:
        assert len(requests) <= batch_size
        self.batches.append([r.id for r in requests])
        for request in requests:
            yield request, np.full((1, 2, 2), request.seed % 1000, np.float32)


def plain(count: int) -> list[Request]:
    return [Request(np.zeros((2, 2), np.int64), ClassStates((True,)), 100 + i, id=str(i)) for i in range(count)]


def outcomes(batch_size: int, retries: int = 3) -> tuple[list[Outcome], OnlySeeds]:
    generator, requests = OnlySeeds(), plain(7)
    gates = [Pattern(requests)]
    found = generate_gated(generator, requests, gates=gates, retries=retries, batch_size=batch_size)  # type: ignore[arg-type]
    return list(found), generator


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_rejected_images_are_made_again_in_order(batch_size: int) -> None:
    found, generator = outcomes(batch_size)
    assert [o.request.id for o in found] == list("0123456")
    assert [len(o.tries) for o in found] == [1, 3, 1, 4, 2, 4, 1]
    for number, outcome in enumerate(found):
        seeds = [retry_seed(100 + number, k) for k in range(len(outcome.tries))]
        assert [t.seed for t in outcome.tries] == seeds and len(set(seeds)) == len(seeds) and seeds[0] == 100 + number
        assert outcome.request.seed == seeds[-1]
        if number == 3:
            assert outcome.image is None and len(outcome.rejected) == 4
        else:
            assert outcome.image is not None and (outcome.image == seeds[-1] % 1000).all()
            assert outcome.measures == Measures(dice=0.9) and len(outcome.rejected) == len(seeds) - 1
    assert sum(map(len, generator.batches)) == 16  # nothing is made twice, or past its acceptance


def test_second_tries_fill_up_their_batches_with_new_requests() -> None:
    _, generator = outcomes(3)
    assert generator.batches[:2] == [["0", "1", "2"], ["1", "3", "4"]]


def test_few_requests_are_in_memory() -> None:
    drawn, yielded, most = 0, 0, 0

    def stream() -> Iterator[Request]:
        nonlocal drawn
        for request in requests:
            drawn += 1
            yield request

    requests = plain(200)
    gate = Pattern(requests, [NEVER if i % 10 == 0 else 0 for i in range(200)])
    for _ in generate_gated(OnlySeeds(), stream(), gates=[gate], retries=3, batch_size=4):  # type: ignore[arg-type]
        most = max(most, drawn - yielded)
        yielded += 1
    assert yielded == 200 and most <= 4 * 4


class OtherPattern(Pattern):
    """The same, but that it measures something else."""

    def __call__(self, requests: Sequence[Request], images: np.ndarray) -> list[Verdict]:
        found = super().__call__(requests, images)
        return [Verdict(v.accepted, Measures(others={"other": v.measures.dice}), v.reason) for v in found]


def test_a_gate_sees_what_those_before_it_accepted() -> None:
    requests = plain(3)
    first, second = Pattern(requests, [1, 0, 0]), OtherPattern(requests, [1, 1, 0])
    found = list(generate_gated(OnlySeeds(), requests, gates=[first, second], retries=1, batch_size=8))  # type: ignore[arg-type]
    assert second.asked == [[("1", 0), ("2", 0)], [("0", 1)]]
    assert [o.image is None for o in found] == [False, True, False]  # the first takes only the first try of 1
    assert found[2].measures == Measures(dice=0.9, others={"other": 0.9})
    assert found[1].tries[0].as_rejected() == RejectedTry(
        seed=101, dice=0.9, others={"other": 0.0}, reason="try 0 is bad"
    )


def test_fewer_than_no_retries_are_refused() -> None:
    with pytest.raises(SettingsError, match="--retries must be 0 or more, got -1"):
        list(generate_gated(OnlySeeds(), plain(1), retries=-1))  # type: ignore[arg-type]


@pytest.fixture
def generator(run_folder: Path) -> Generator:
    return Generator.load(run_folder, device="cpu")


@pytest.fixture
def requests(dataset: PreparedDataset) -> Sequence[Request]:
    return requests_from_dataset(dataset, dataset.split("test")[:7], ClassStates.all_given(dataset.schema))


def written(generator: Generator, requests: Sequence[Request], out: Path, **more: Any) -> tuple[SampleSet, Pattern]:
    gate = Pattern(requests, more.pop("pattern", PATTERN), more.pop("bound", 0.8))
    gating = Gating([gate], more.pop("retries", 3), more.pop("judged", None))
    made = write_sample_set(generator, requests, out, image_format="npy", gating=gating, **{"batch_size": 3, **more})
    return made, gate


def test_the_manifest_says_what_was_rejected(generator: Generator, requests: Sequence[Request], tmp_path: Path) -> None:
    told: list[str] = []
    made, _ = written(generator, requests, tmp_path / "s", judged=lambda o: told.append(o.request.id))
    assert told == [r.id for r in requests]
    assert [e.id for e in made.entries] == [r.id for i, r in enumerate(requests) if i != 3]
    by_id = {entry.id: entry for entry in made.entries}
    for request, rejections in zip(requests, PATTERN, strict=True):
        tries = [
            RejectedTry(seed=retry_seed(request.seed, k), dice=k / 10, reason=f"try {k} is bad")
            for k in range(min(rejections, 4))
        ]
        if rejections == NEVER:
            (line,) = made.rejected
            assert line.id == request.id and line.case == request.origin.case and list(line.tries) == tries
            continue
        entry = by_id[request.id]
        assert entry.seed == retry_seed(request.seed, rejections) and entry.dice == 0.9
        assert list(entry.rejected) == tries
    assert (made.selection.rejected, made.selection.made, made.selection.kept) == (2 + 4 + 1 + 3, 16, 6)
    assert made.selection.given_up == 1
    header = json.loads((tmp_path / "s" / "samples.json").read_text())
    assert header["gate"] == {"retries": 3, "min_dice": 0.8}
    # The seed in the manifest makes the image again, alone.
    entry = by_id[requests[1].id]
    (alone,) = generator.sample(requests[1].labels, seeds=[entry.seed])
    assert np.abs(alone - made.image(entry)).max() < 1e-4


def test_an_interrupted_set_is_gone_on_with(generator: Generator, requests: Sequence[Request], tmp_path: Path) -> None:
    whole, _ = written(generator, requests, tmp_path / "whole")

    def press(done: int, total: int) -> None:
        assert total == 7
        if done == 4:  # three images, and one request rejected to the end
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the 3 of 7 images"):
        written(generator, requests, tmp_path / "s", progress=press)
    for name in ("manifest.jsonl", "rejected.jsonl"):
        with (tmp_path / "s" / name).open("a") as file:
            file.write('{"id": "torn')
    counts: list[int] = []
    again, gate = written(
        generator, requests, tmp_path / "s", progress=lambda done, total: counts.append(done), batch_size=2
    )
    assert counts == [5, 6, 7]
    assert {name for batch in gate.asked for name, _ in batch} == {r.id for r in requests[4:]}
    assert again.entries == whole.entries and again.rejected == whole.rejected
    assert np.abs(again.images() - whole.images()).max() < 1e-4
    _, gate = written(generator, requests, tmp_path / "s")  # nothing is left to do
    assert gate.asked == []


def test_other_gates_do_not_mix(generator: Generator, requests: Sequence[Request], tmp_path: Path) -> None:
    written(generator, requests, tmp_path / "s")
    for other, said in (({"bound": 0.7}, "min_dice 0.8, not 0.7"), ({"retries": 2}, "retries 3, not 2")):
        with pytest.raises(SettingsError, match=said):
            written(generator, requests, tmp_path / "s", **other)
    with pytest.raises(SettingsError, match="min_dice 0.8, not none"):
        write_sample_set(generator, requests, tmp_path / "s", image_format="npy")


def test_where_all_is_rejected(generator: Generator, requests: Sequence[Request], tmp_path: Path) -> None:
    for _ in range(2):  # the second time nothing is tried again
        with pytest.raises(DataError, match=r"all 14 images made for 7 requests .* of the best, try 1 is bad.*ess"):
            written(generator, requests, tmp_path / "s", pattern=[NEVER] * 7, retries=1)
    with pytest.raises(DataError, match="were rejected"):
        SampleSet.open(tmp_path / "s")
    (tmp_path / "s" / "rejected.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(DataError, match=r"rejected.jsonl: line 1 is damaged"):
        SampleSet.open(tmp_path / "s")
