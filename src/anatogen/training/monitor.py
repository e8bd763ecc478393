"""What is written down while a run trains: metrics.jsonl, a line every few seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path


class MetricsLog:
    """Collects the loss of every step and writes a line (step, loss, learning_rate, images_per_s) every `every` seconds."""

    def __init__(self, path: Path, batch_size: int, *, every: float = 5.0) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._batch_size, self._every = batch_size, every
        self._last, self._losses = time.monotonic(), list[float]()

    def add(self, step: int, loss: float, learning_rate: float) -> str | None:
        """Note one step; returns a text for the progress bar where a line was written."""
        self._losses.append(loss)
        now = time.monotonic()
        if now - self._last < self._every:
            return None
        rate = len(self._losses) * self._batch_size / (now - self._last)
        mean = sum(self._losses) / len(self._losses)
        line = {"step": step, "loss": mean, "learning_rate": learning_rate, "images_per_s": rate}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._last, self._losses = now, []
        return f"step {step}, loss {mean:.4f}, {rate:.1f} images/s"

    def close(self) -> None:
        """Close the file."""
        self._file.close()
