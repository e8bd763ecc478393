"""Process all cases in order: in this process while that is fast, in worker processes once they pay off."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from anatogen.data.sources.base import SourceCase
from anatogen.errors import DataError

Result = TypeVar("Result")
_START_S = 4.0  # minimum start-up time of workers


def each_case(
    work: Callable[[SourceCase], Result],
    cases: Sequence[SourceCase],
    workers: int | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result | DataError]:
    """The result of `work` for every case, in order, or the DataError that it raised.

    Only a few cases are processed ahead of the consumer.

    Args:
        workers: The number of processes; None for one per core, started only if the first cases show that the rest
            would take longer than starting them.
    """
    count = min(workers or os.cpu_count() or 1, len(cases))
    here = len(cases) if count < 2 else 0 if workers else None
    began, done = clock(), 0
    for done, case in enumerate(cases[:here], start=1):
        yield _attempt(work, case)
        if here is None and done > 1:
            left = (clock() - began) / done * (len(cases) - done)
            if left * (1 - 1 / count) > _START_S:
                break
    yield from _in_processes(work, cases[done:], count)


def _attempt(work: Callable[[SourceCase], Result], case: SourceCase) -> Result | DataError:
    try:
        return work(case)
    except DataError as error:
        return error


def _in_processes(
    work: Callable[[SourceCase], Result], cases: Sequence[SourceCase], workers: int
) -> Iterator[Result | DataError]:
    if not cases:
        return
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(start)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for case in cases:
                waiting.append(pool.submit(work, case))
                if len(waiting) > 2 * workers:
                    found = _result(waiting.popleft())
                    yield found
            while waiting:
                found = _result(waiting.popleft())
                yield found
        except BrokenProcessPool as error:
            hint = "Use --workers 1, and call prepare in a script under: if __name__ == '__main__'"
            raise DataError("a worker process died, perhaps for lack of memory", hint=hint) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Result]) -> Result | DataError:
    try:
        return future.result()
    except DataError as error:  # an exception loses its text between processes
        return DataError(error.problem, path=error.path, hint=error.hint)
