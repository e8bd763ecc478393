import shutil
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from anatogen.data.augment import Augment, AugmentSettings
from anatogen.data.loader import Loader
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError


def ids(dataset: PreparedDataset, start: int, count: int, seed: int = 0) -> list[tuple[str, ...]]:
    loader = Loader(dataset, dataset.split("train"), 5, seed)
    stream = loader.stream(start)
    batches = [tuple(row.id for row in batch.rows) for batch in islice(stream, count)]
    stream.close()
    return batches


def test_every_image_once_an_epoch(dataset: PreparedDataset) -> None:
    rows = dataset.split("train")
    flat = [i for batch in ids(dataset, 0, len(rows)) for i in batch]  # five epochs
    for epoch in range(5):
        assert sorted(flat[epoch * len(rows) : (epoch + 1) * len(rows)]) == sorted(row.id for row in rows)
    assert flat[: len(rows)] != flat[len(rows) : 2 * len(rows)]


def test_a_resumed_stream_sees_what_it_would_have_seen(dataset: PreparedDataset) -> None:
    assert ids(dataset, 0, 12)[7:] == ids(dataset, 7, 5)
    assert ids(dataset, 0, 3, seed=1) != ids(dataset, 0, 3)


def test_batches_are_made_ahead(dataset: PreparedDataset) -> None:
    made: list[int] = []
    loader = Loader(dataset, dataset.split("train"), 2, 0, ahead=5)
    original = loader.batch
    loader.batch = lambda number, *more: (made.append(number), original(number, *more))[1]  # type: ignore[method-assign]
    stream = loader.stream()
    next(stream)
    for _ in range(200):
        if len(made) >= 6:
            break
        time.sleep(0.01)
    assert 6 <= len(made) <= 7  # five waiting, perhaps one in hand
    stream.close()


def test_an_error_in_the_thread_reaches_the_trainer(dataset: PreparedDataset) -> None:
    loader = Loader(dataset, dataset.split("train"), 2, 0)

    def fail(number: int, *more: object) -> None:
        raise RuntimeError("disk on fire")

    loader.batch = fail  # type: ignore[assignment,method-assign]
    with pytest.raises(RuntimeError, match="disk on fire"):
        next(loader.stream())


def test_fewer_images_than_the_batch_are_a_smaller_batch_said_aloud(
    dataset: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    rows = dataset.split("train")[:3]
    loader = Loader(dataset, rows, 16, 0)
    assert loader.batch_size == 3 and "fewer images (3) than the batch size (16)" in caplog.text
    for number in range(4):
        assert sorted(row.id for row in loader.batch(number).rows) == sorted(row.id for row in rows)


def test_another_attempt_has_the_same_images_and_other_draws(dataset: PreparedDataset) -> None:
    augment = Augment(AugmentSettings(gain=0.3))
    loader = Loader(dataset, dataset.split("train"), 4, 0, augment=augment)
    first, again, other = loader.batch(3, 0), loader.batch(3, 0), loader.batch(3, 1)
    assert first.rows == other.rows
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)


def test_an_item_is_augmented_by_its_place_and_not_by_the_batch_it_is_in(dataset: PreparedDataset) -> None:
    augment, plain = (
        Augment(AugmentSettings(rotation_degrees=20, noise=0.1)),
        Loader(dataset, dataset.split("train"), 6, 0),
    )
    batch = plain.batch(0)
    whole, part = augment(batch, 5), augment(batch.part(0, 2), 5)
    assert torch.equal(whole.part(0, 2).images, part.images) and torch.equal(whole.labels[:2], part.labels)
    assert part.rows == batch.rows[:2] and len(part) == 2


def test_data_that_vanish_end_the_stream_with_a_reason(dataset_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset_folder, tmp_path / "data")
    dataset = PreparedDataset.open(folder)
    dataset.hold = lambda limit_bytes=0: False  # type: ignore[method-assign]
    stream = Loader(dataset, dataset.split("train"), 2, 0, ahead=1).stream()
    next(stream)
    (folder / "images.b2nd").write_bytes(b"")
    with pytest.raises(DataError, match="data: cannot be read any more"):
        for _ in range(4):
            next(stream)
