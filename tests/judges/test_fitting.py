"""What is kept beside data sets that users have must be found by later versions too."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.judges.encoder import EncoderSettings, train_encoder
from anatogen.judges.fitting import Joined, Lazy, Part, blocks_of, digest_of, read_weights, write_weights
from anatogen.judges.segmenter import SegmenterSettings, train_segmenter

pytestmark = pytest.mark.usefixtures("small_judges")

SEGMENTER, ENCODER = SegmenterSettings(steps=1, batch_size=2), EncoderSettings(steps=1, batch_size=2)


def bars(*size: int) -> Part:
    """Four images of a bright bar, annotated in all but the last."""
    labels = torch.zeros(4, *size, dtype=torch.int64)
    labels[:, 4:10] = 1
    return labels[:, None].float() - 0.5, labels, torch.tensor([[True], [True], [True], [False]])


def test_kept_segmenters_keep_their_names(tmp_path: Path) -> None:
    part = bars(16, 16)
    train_segmenter(part, part, 2, SEGMENTER, cache=tmp_path)
    train_segmenter(part, part, 2, SEGMENTER, weights=torch.tensor([0.5, 1, 1, 2]), cache=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "segmenter-6e8d5a73d8a3368c.safetensors",
        "segmenter-72aaaa23821b2095.safetensors",
    }


@pytest.mark.parametrize(("size", "digest"), [((16, 16), "e24b7929c6d1e7b9"), ((16, 16, 16), "ad3e96e734ccda51")])
def test_kept_encoders_keep_their_names(size: tuple[int, ...], digest: str, tmp_path: Path) -> None:
    assert train_encoder(bars(*size), 2, ENCODER, cache=tmp_path).digest == digest
    assert [p.name for p in tmp_path.iterdir()] == [f"encoder-{digest}.safetensors"]


def test_weights_of_another_network_are_not_taken(tmp_path: Path) -> None:
    path, network, other = tmp_path / "kept.safetensors", torch.nn.Linear(3, 2), torch.nn.Linear(3, 4)
    write_weights(path, network.state_dict())
    before = other.weight.detach().clone()
    assert not read_weights(path, other) and torch.equal(other.weight, before)
    again = torch.nn.Linear(3, 2)
    assert read_weights(path, again)
    assert np.array_equal(again(torch.ones(3)).detach(), network(torch.ones(3)).detach())
    path.write_bytes(b"half a file")
    assert not read_weights(path, again) and not read_weights(tmp_path / "nothing", again)


TRAIN_ONE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_fitting import ENCODER, SEGMENTER, bars
from anatogen.judges.encoder import train_encoder
from anatogen.judges.segmenter import train_segmenter

folder, part, steps = Path(sys.argv[1]), bars(16, 16), []

def slowly(done, total, text):
    steps.append(text.split()[0])
    (folder.parent / f"began-{sys.argv[3]}").touch()
    while not (folder.parent / "go").exists():  # until the other process had its chance to tear the file
        time.sleep(0.01)

print("ready", flush=True)
sys.stdin.readline()
train_segmenter(part, part, 2, SEGMENTER, cache=folder, progress=slowly)
train_encoder(part, 2, ENCODER, cache=folder, progress=slowly)
print(*steps, flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_that_train_the_same_the_second_waits_and_finds_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, "-c", TRAIN_ONE, str(folder), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, name], **pipes) for name in "ab"]  # type: ignore[call-overload]
    try:
        for process in both:
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        began = wait_for(lambda: list(tmp_path.glob("began-*")))
        time.sleep(0.5)
        assert list(tmp_path.glob("began-*")) == began and len(began) == 1  # the other waits
        (tmp_path / "go").touch()
        trained = [word for process in both for word in process.communicate(timeout=240)[0].split()]
        assert sorted(trained) == ["loss", "validation"] and [process.returncode for process in both] == [0, 0]
        assert [p.suffix for p in folder.iterdir()] == [".safetensors"] * 2  # neither lock nor checkpoint is left
    finally:
        for process in both:
            process.kill()


def wait_for(found: Callable[[], list[Path]]) -> list[Path]:
    for _ in range(6000):
        if there := found():
            return there
        time.sleep(0.01)
    raise AssertionError("nothing began in a minute")


def lazily(part: Part, seen: list[int] | None = None) -> Part:
    """The same images, read on demand. seen: the number of images of each read."""

    def read(items: torch.Tensor) -> Lazy:
        def some(places: list[int]) -> torch.Tensor:
            if seen is not None:
                seen.append(len(places))
            return items[places]

        return Lazy(items.shape, some)

    return read(part[0][:]), read(part[1][:]), part[2]


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def many(count: int) -> Part:
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(count, 16, 16, generator=random) < 0.3).long()
    images = labels[:, None] + 0.1 * torch.randn(count, 1, 16, 16, generator=random)
    return images, labels, torch.rand(count, 1, generator=random) < 0.8


def test_what_is_read_piece_by_piece_trains_the_same_judges_bit_for_bit(tmp_path: Path) -> None:
    """More than a block of images, the weights of a mixture, and their digests."""
    train, validation, weights, seen = many(300), many(70), torch.rand(300) + 0.1, []
    settings = SegmenterSettings(steps=3, batch_size=4, validations=2)
    held = train_segmenter(train, validation, 2, settings, weights=weights, cache=tmp_path)
    name = {p.name for p in tmp_path.iterdir()}
    lazy = train_segmenter(lazily(train, seen), lazily(validation, seen), 2, settings, weights=weights)
    assert equal(held._network, lazy._network) and max(seen) <= 256
    train_segmenter(lazily(train), lazily(validation), 2, settings, weights=weights, cache=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == name
    seen.clear()
    first, second = train_encoder(train, 2, ENCODER), train_encoder(lazily(train, seen), 2, ENCODER)
    assert equal(first._network, second._network) and first.digest == second.digest and max(seen) <= 256


def test_joined_items_are_those_of_both() -> None:
    first, second = torch.arange(12.0).reshape(6, 2), torch.arange(100.0, 108).reshape(4, 2)
    together = torch.cat([first, second])
    for a, b in ((first, second), (lazily((first, first, first))[0], second)):
        joined = Joined(a, b)
        assert joined.shape == (10, 2) == together.shape and len(joined) == 10
        for places in (
            torch.tensor([9, 0, 5, 6, 6, 2]),
            slice(4, 8),
            slice(0, 3),
            slice(7, 9),
            torch.tensor([], dtype=torch.int64),
        ):
            assert torch.equal(joined[places], together[places])
        assert torch.equal(torch.cat(list(blocks_of(joined, 3))), together)
        assert digest_of("x", joined) == digest_of("x", together)


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from anatogen.judges.encoder import EncoderSettings, train_encoder
from anatogen.judges.fitting import Lazy
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.judges.utility import Parts, UtilityData, UtilitySettings, utility_of_mixtures

def parts(count):
    shape = (64, 64)
    def labels(places):
        found = torch.zeros(len(places), *shape, dtype=torch.int64)
        for label_map, place in zip(found, places):
            label_map[place % 40 : place % 40 + 20, 10:30] = 1
        return found
    images = Lazy((count, 1, *shape), lambda places: labels(places)[:, None].float() - 0.5)
    return Parts(images, Lazy((count, *shape), labels), torch.ones(count, 1, dtype=torch.bool), np.arange(count) // 10)

def judge(count, folder):
    settings = SegmenterSettings(steps=2, batch_size=4, validations=1)
    data = UtilityData(parts(count), parts(count), parts(40), parts(count // 8))
    utility_of_mixtures(data, UtilitySettings((0.0, 0.5), segmenter=settings), cache=folder)
    train_encoder(parts(count).tensors, 2, EncoderSettings(steps=1, batch_size=4), cache=folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

few = judge(300, Path(sys.argv[1]) / "few")
print(judge(3000, Path(sys.argv[1]) / "many") - few)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
def test_ten_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    """3,000 images of 64 x 64 with their label maps are 147 MB, real and synthetic ones together twice as much."""
    found = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 60
