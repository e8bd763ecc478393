"""TensorBoard event files of a training."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anatogen.files import append


class Events:
    """Writes the numbers of metrics.jsonl to a TensorBoard event file.

    The records are tensorboardX's. Its writer is not used: at a full disk its thread ends, and the training would wait
    for it without end.

    Args:
        folder: Created if missing; each training process writes its own file there.
        after: The step that the training continues from; TensorBoard drops later steps of earlier files.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # slow to import

        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        first = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if after:
            start = SessionLog(status=SessionLog.START)
            first.append(Event(wall_time=time.time(), step=after + 1, session_log=start))
        append(self._path, b"".join(map(_record, first)))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of one line of metrics.jsonl at its step.

        Raises:
            OutputError: The file cannot be written; it stays as it was.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in line.items()
            if name != "step" and isinstance(value, int | float)
        ]
        append(self._path, _record(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values))))


def _record(event: Any) -> bytes:
    """An event as a TFRecord: length, its checksum, content, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(
        [length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content))]
    )
