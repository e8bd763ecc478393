"""An endless, reproducible stream of training batches, made ahead of the trainer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence

import numpy as np

from anatogen.data.store import Batch, PreparedDataset, Row
from anatogen.errors import SettingsError
from anatogen.seeds import derive_seed


class Loader:
    """Batches of `rows` in a new random order every epoch, without a remainder: an epoch may end inside a batch.

    Batch number n is a function of (rows, batch_size, seed, n) alone, so that a resumed training sees what it would have
    seen. augment: changes a batch by a seed, which is a function of (seed, n) alone too. A thread keeps up to `ahead` batches ready.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: Sequence[Row],
        batch_size: int,
        seed: int,
        *,
        ahead: int = 5,
        augment: Callable[[Batch, int], Batch] | None = None,
    ) -> None:
        if not rows:
            raise SettingsError("there is nothing to load", path=dataset.folder)
        self.dataset, self.rows, self.batch_size, self.seed, self.ahead = dataset, list(rows), batch_size, seed, ahead
        self.augment = augment
        self._orders: dict[int, np.ndarray] = {}
        dataset.hold()

    def batch(self, number: int) -> Batch:
        """Batch `number` = 0, 1, ..."""
        first = number * self.batch_size
        batch = self.dataset.load([self._row(position) for position in range(first, first + self.batch_size)])
        return self.augment(batch, derive_seed("augment", self.seed, number)) if self.augment else batch

    def _row(self, position: int) -> Row:
        epoch, place = divmod(position, len(self.rows))
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng(derive_seed("order", self.seed, epoch)).permutation(
                len(self.rows)
            )
        return self.rows[self._orders[epoch][place]]

    def stream(self, start: int = 0) -> Generator[Batch, None, None]:
        """Batches start, start + 1, ... without end. Close the generator to stop the thread."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=self.ahead)
        stop = threading.Event()

        def fill() -> None:
            number = start
            while not stop.is_set():
                try:
                    item: Batch | BaseException = self.batch(number)
                except BaseException as error:  # handed to the consumer, which raises it
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
