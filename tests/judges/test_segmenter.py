from __future__ import annotations

import dataclasses
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from anatogen.errors import DataError, OutputError
from anatogen.judges import segmenter as module
from anatogen.judges.segmenter import Segmenter, SegmenterSettings, train_segmenter

Tensors = tuple[Tensor, Tensor, Tensor]
SETTINGS = SegmenterSettings(steps=12, batch_size=3, validations=4)


class Killed(BaseException):
    """Simulates a kill: no handler may catch it."""


def squares(count: int, seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 16, 16), dtype=np.int64)
    for i in range(count):
        y, x = rng.integers(1, 9, 2)
        labels[i, y : y + 6, x : x + 6] = rng.integers(1, 3)
    images = (labels - 1 + rng.normal(0, 0.2, labels.shape)).astype(np.float32)[:, None]
    return torch.from_numpy(images), torch.from_numpy(labels), torch.ones(count, 2, dtype=torch.bool)


TRAIN, VALIDATION = squares(8, 0), squares(4, 1)


def weights_of(segmenter: Segmenter) -> dict[str, Tensor]:
    return segmenter._network.state_dict()


def equal(a: Segmenter, b: Segmenter) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights_of(a).values(), weights_of(b).values(), strict=True))


def kill_at(cache: Path, step: int, settings: SegmenterSettings = SETTINGS) -> None:
    def progress(done: int, total: int, text: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        train_segmenter(TRAIN, VALIDATION, 3, settings, cache=cache, progress=progress)


def steps_of(cache: Path) -> tuple[Segmenter, list[int]]:
    steps: list[int] = []
    trained = train_segmenter(
        TRAIN, VALIDATION, 3, SETTINGS, cache=cache, progress=lambda done, total, text: steps.append(done)
    )
    return trained, steps


@pytest.fixture(scope="module")
def whole() -> Segmenter:
    return train_segmenter(TRAIN, VALIDATION, 3, SETTINGS)


def test_a_killed_training_ends_as_if_it_had_not_been(whole: Segmenter, tmp_path: Path) -> None:
    kill_at(tmp_path, 5)
    kill_at(tmp_path, 11)  # goes on from 3, and is killed again
    assert [p.suffix for p in tmp_path.iterdir()] == [".checkpoint"]
    resumed, steps = steps_of(tmp_path)
    assert steps == [10, 11, 12] and equal(resumed, whole)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_what_was_trained_is_found_again_for_the_same_data_and_settings_only(whole: Segmenter, tmp_path: Path) -> None:
    assert steps_of(tmp_path / "new")[1] == list(range(1, 13))
    again, steps = steps_of(tmp_path / "new")
    assert not steps and equal(again, whole)
    assert np.array_equal(again(VALIDATION[0]), whole(VALIDATION[0]))
    kept = {p.name for p in (tmp_path / "new").iterdir()}
    changed = (TRAIN[0] + 0.01, *TRAIN[1:])
    uniform = torch.ones(8)
    short = dataclasses.replace(SETTINGS, steps=1)
    for train, weights in ((TRAIN, None), (changed, None), (TRAIN, uniform), (TRAIN, 2 * uniform)):
        train_segmenter(train, VALIDATION, 3, short, weights=weights, cache=tmp_path / "new")
    assert len({p.name for p in (tmp_path / "new").iterdir()} - kept) == 4


def test_the_digest_of_a_data_set_stays() -> None:
    """Later versions must find the weights cached in users' data sets."""
    part = (torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    assert module.segmenter_file(part, part, 2, SegmenterSettings()) == "segmenter-6cbec5d923504111.safetensors"


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_damaged_files_are_trained_anew(whole: Segmenter, tmp_path: Path, damage: str) -> None:
    kill_at(tmp_path, 7)
    (checkpoint,) = tmp_path.iterdir()
    kept = checkpoint.with_suffix(".safetensors")
    if damage == "other":
        torch.save({"network": weights_of(whole), "optimizer": {}}, checkpoint)
        kept.write_bytes(save({"x": torch.ones(1)}))
    else:
        length = 0 if damage == "empty" else checkpoint.stat().st_size // 2
        checkpoint.write_bytes(checkpoint.read_bytes()[:length])
        kept.write_bytes(b"\x10" * length)
    trained, steps = steps_of(tmp_path)
    assert steps == list(range(1, 13)) and equal(trained, whole)
    assert steps_of(tmp_path)[1] == [] and list(tmp_path.iterdir()) == [kept]


def test_a_full_disk_is_an_error_of_ours(whole: Segmenter, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        for settings in (SETTINGS, dataclasses.replace(SETTINGS, validations=1)):  # at a checkpoint, and at the end
            with pytest.raises(OutputError, match=r"segmenter-\w+\.(checkpoint|safetensors): cannot be written"):
                train_segmenter(TRAIN, VALIDATION, 3, settings, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    assert equal(steps_of(tmp_path)[0], whole)


def test_global_random_state_neither_matters_nor_changes(whole: Segmenter) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    assert equal(train_segmenter(TRAIN, VALIDATION, 3, SETTINGS), whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]
    other = train_segmenter(TRAIN, VALIDATION, 3, dataclasses.replace(SETTINGS, seed=1))
    assert not equal(other, whole)


def test_an_image_of_weight_0_is_never_drawn() -> None:
    poisoned = TRAIN[0].clone()
    poisoned[:4] = torch.nan  # a single draw would leave no weight finite
    weights = torch.tensor([0.0] * 4 + [1.0] * 4)
    trained = train_segmenter((poisoned, *TRAIN[1:]), VALIDATION, 3, SETTINGS, weights=weights)
    assert all(v.isfinite().all() for v in weights_of(trained).values())


def test_weights_say_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(
        module, "_vary", lambda images, labels, _: drawn.extend(images[:, 0, 0, 0].int()) or (images, labels)
    )
    images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 16, 16).contiguous()
    settings = SegmenterSettings(steps=4, batch_size=250, validations=1)
    train_segmenter(
        (images, *TRAIN[1:]), VALIDATION, 3, settings, weights=torch.tensor([0.1] * 2 + [0.2] * 4 + [0.0] * 2)
    )
    shares = np.bincount(drawn, minlength=8) / len(drawn)
    assert np.allclose(shares, [0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0, 0], atol=0.05)


def test_what_cannot_be_drawn_from_is_refused() -> None:
    empty = tuple(part[:0] for part in TRAIN)
    with pytest.raises(DataError, match="no images to train"):
        train_segmenter(empty, VALIDATION, 3, SETTINGS)  # type: ignore[arg-type]
    for weights in (torch.ones(3), torch.zeros(8), -torch.ones(8), torch.full((8,), torch.nan)):
        with pytest.raises(DataError, match="as many weights"):
            train_segmenter(TRAIN, VALIDATION, 3, SETTINGS, weights=weights)


def test_a_class_that_is_not_annotated_has_no_say() -> None:
    """Neither by its logit nor where the label map contains it, which counts as background."""
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, :3], labels[:, 5:] = 1, 2
    annotated = torch.tensor([[True, False], [True, True]])
    there = module._loss(logits, labels, annotated)
    assert 0 < there < 10
    other = logits.clone()
    other[0, 2] += 5
    assert module._loss(other, labels, annotated) == there
    without = labels.clone()
    without[0, 5:] = 0
    assert module._loss(logits, without, annotated) == there
    other = logits.clone()
    other[1, 2] += 5
    assert module._loss(other, labels, annotated) != there


def test_without_a_class_to_validate_on_the_latest_weights_are_kept() -> None:
    nothing = (VALIDATION[0], torch.zeros_like(VALIDATION[1]), torch.zeros(4, 2, dtype=torch.bool))
    one = train_segmenter(TRAIN, nothing, 3, dataclasses.replace(SETTINGS, validations=1))
    assert equal(one, train_segmenter(TRAIN, nothing, 3, SETTINGS))
    untrained = train_segmenter(TRAIN, nothing, 3, dataclasses.replace(SETTINGS, learning_rate=0.0))
    assert not equal(one, untrained)


@pytest.mark.parametrize("size", [(16, 16), (20, 36), (40, 48), (12, 20, 16)])
def test_images_of_any_size(size: tuple[int, ...]) -> None:
    labels = torch.zeros(2, *size, dtype=torch.int64)
    labels[:, 4:10] = 1
    part = (labels[:, None].float(), labels, torch.ones(2, 1, dtype=torch.bool))
    trained = train_segmenter(part, part, 2, SegmenterSettings(steps=2, batch_size=2))
    assert trained(part[0]).shape == (2, *size)
