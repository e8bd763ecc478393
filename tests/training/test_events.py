"""What TensorBoard would read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from anatogen.data.store import PreparedDataset
from anatogen.training.config import build_settings
from anatogen.training.events import Events
from anatogen.training.train import train


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of the records (length, checksum, message, checksum) in the event files of `folder`."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.*")):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            place += 12 + length + 4
    return found


def test_numbers_come_out_as_they_went_in(tmp_path: Path) -> None:
    events = Events(tmp_path / "tensorboard")
    events.write({"step": 7, "loss": 0.5, "dice": None, "text": "no number"})
    assert scalars(tmp_path / "tensorboard") == [("loss", 7, 0.5)]


def test_a_training_writes_what_metrics_jsonl_has(dataset: PreparedDataset, tmp_path: Path) -> None:
    settings = build_settings(values=["network.width=8", "training.batch_size=4"], training={"steps": 6})
    train(dataset, tmp_path / "run", settings, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [(step, value) for name, step, value in scalars(tmp_path / "run" / "tensorboard") if name == "loss"]
    assert [step for step, _ in losses] == [line["step"] for line in lines if "loss" in line] != []
    assert all(abs(value - line["loss"]) < 1e-6 for (_, value), line in zip(losses, lines, strict=True))
