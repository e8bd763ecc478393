"""TensorBoard event files of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Events:
    """Writes the numbers of metrics.jsonl to TensorBoard event files.

    Args:
        folder: Created if missing; each training process writes its own file there.
        after: The step that the training continues from; TensorBoard drops later steps of earlier files.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        from tensorboardX import SummaryWriter  # slow to import

        self._writer = SummaryWriter(str(folder), purge_step=after + 1 if after else None, flush_secs=10)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of one line of metrics.jsonl at its step."""
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
