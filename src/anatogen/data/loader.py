"""An endless, reproducible stream of training batches, loaded ahead of the training step."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.distributed import WHOLE, Shard
from anatogen.errors import SettingsError
from anatogen.seeds import derive_seed

_log = logging.getLogger(__name__)


class Loader:
    """Batches of `rows` in a new random order every epoch. No rows are dropped: an epoch may end inside a batch.

    The images of batch n depend only on (rows, batch_size, seed, n), so that a resumed training sees the same batches.
    With fewer rows than `batch_size`, a batch contains all rows.

    Args:
        augment: Augments items `first`, `first` + 1, ... of a batch with a seed that depends only on (seed, attempt,
            n).
        ahead: The number of batches that a thread keeps ready.
        pin: Put batches into pinned memory, from which a GPU copies asynchronously.
        crop: Take a part of that size from each item, at a place drawn anew every time.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: Sequence[Row],
        batch_size: int,
        seed: int,
        *,
        ahead: int = 5,
        augment: Callable[[Batch, int, int], Batch] | None = None,
        pin: bool = False,
        crop: tuple[int, ...] | None = None,
    ) -> None:
        if not rows:
            raise SettingsError("no images to load", path=dataset.folder)
        if len(rows) < batch_size:
            _log.warning(
                "fewer images (%d) than the batch size (%d): batches contain %d", len(rows), batch_size, len(rows)
            )
        self.dataset, self.rows, self.seed, self.ahead = dataset, list(rows), seed, ahead
        self.batch_size = min(batch_size, len(rows))
        self.augment, self.pin, self.crop = augment, pin, crop
        self._orders: dict[int, np.ndarray] = {}
        dataset.hold()

    @property
    def images(self) -> int:
        """The number of images in an epoch."""
        return len(self.rows)

    def batch(self, number: int, attempt: int = 0, shard: Shard = WHOLE) -> Batch:
        """What `shard` has of batch `number` = 0, 1, ...; another `attempt` augments the same images in another way."""
        mine = shard.of(self.batch_size)
        first = number * self.batch_size + mine.start
        rows = [self._row(first + place) for place in range(max(1, len(mine)))]
        batch = self.dataset.load(rows, self._crops(number, attempt, mine.start, len(rows))).part(0, len(mine))
        if self.augment is not None and len(batch):
            batch = self.augment(batch, derive_seed("augment", self.seed, attempt, number), mine.start)
        if not self.pin:
            return batch
        tensors = (batch.images, batch.labels, batch.annotated)
        images, labels, annotated = (tensor.pin_memory() for tensor in tensors)
        return replace(batch, images=images, labels=labels, annotated=annotated)

    def _crops(self, number: int, attempt: int, first: int, count: int) -> list[tuple[slice, ...]] | None:
        """The crop of each item. Borders are met as often as other places: what would reach beyond is moved inside."""
        if self.crop is None:
            return None
        found = []
        for place in range(first, first + count):
            draw = np.random.default_rng(derive_seed("crop", self.seed, attempt, number, place))
            crop = []
            for side, part in zip(self.dataset.size, self.crop, strict=True):
                start = int(draw.integers(-(part // 4), side - part + part // 4, endpoint=True))
                start = min(max(start, 0), side - part)
                crop.append(slice(start, start + part))
            found.append(tuple(crop))
        return found

    def _row(self, position: int) -> Row:
        epoch, place = divmod(position, len(self.rows))
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng(derive_seed("order", self.seed, epoch)).permutation(
                len(self.rows)
            )
        return self.rows[self._orders[epoch][place]]

    def stream(self, start: int = 0, attempt: int = 0, shard: Shard = WHOLE) -> Generator[Batch, None, None]:
        """What `shard` has of batches start, start + 1, ... without end. Close the generator to stop the thread."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=self.ahead)
        stop = threading.Event()

        def fill() -> None:
            number = start
            while not stop.is_set():
                try:
                    item: Batch | BaseException = self.batch(number, attempt, shard)
                except BaseException as error:  # the consumer raises it
                    item = error
                number += 1
                while not stop.is_set():
                    try:
                        ready.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(item, BaseException):
                    return

        thread = threading.Thread(target=fill, name="loader", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
