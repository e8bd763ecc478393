"""Ctrl-C and a scheduler's signals, handled between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # the last is sent by schedulers ahead of a time limit


class StopAsked:
    """True once a signal has asked the training to stop."""

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def stop_signals() -> Iterator[StopAsked]:
    """Yields an object that becomes true on SIGINT, SIGTERM or SIGUSR1; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread, which alone receives signals, it never becomes true.
    """
    asked = StopAsked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.name = signal.Signals(number).name

    heard = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
