"""TensorBoard event files of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes the numbers of metrics.jsonl to event files that TensorBoard shows.

    Args:
        folder: Made where it is missing; every process that trains writes a file of its own there.
        after: The step after which the training goes on; TensorBoard drops what earlier files have beyond it.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        from tensorboardX import SummaryWriter  # slow to import, and needed by trainings alone

        self._writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None, flush_secs=10)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the numbers of one line of metrics.jsonl at its step."""
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
