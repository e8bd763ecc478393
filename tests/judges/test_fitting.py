"""What is kept beside data sets that users have must be found by later versions too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.judges.encoder import EncoderSettings, train_encoder
from anatogen.judges.fitting import Part, read_weights, write_weights
from anatogen.judges.segmenter import SegmenterSettings, train_segmenter

SEGMENTER, ENCODER = SegmenterSettings(steps=1, batch_size=2), EncoderSettings(steps=1, batch_size=2)


def bars(*size: int) -> Part:
    """Four images of a bright bar, which was annotated in all but the last."""
    labels = torch.zeros(4, *size, dtype=torch.int64)
    labels[:, 4:10] = 1
    return labels[:, None].float() - 0.5, labels, torch.tensor([[True], [True], [True], [False]])


def test_kept_segmenters_keep_their_names(tmp_path: Path) -> None:
    part = bars(16, 16)
    train_segmenter(part, part, 2, SEGMENTER, cache=tmp_path)
    train_segmenter(part, part, 2, SEGMENTER, weights=torch.tensor([0.5, 1, 1, 2]), cache=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "segmenter-6e8d5a73d8a3368c.safetensors",
        "segmenter-72aaaa23821b2095.safetensors",
    }


@pytest.mark.parametrize(("size", "digest"), [((16, 16), "e24b7929c6d1e7b9"), ((16, 16, 16), "ad3e96e734ccda51")])
def test_kept_encoders_keep_their_names(size: tuple[int, ...], digest: str, tmp_path: Path) -> None:
    assert train_encoder(bars(*size), 2, ENCODER, cache=tmp_path).digest == digest
    assert [p.name for p in tmp_path.iterdir()] == [f"encoder-{digest}.safetensors"]


def test_weights_of_another_network_are_not_taken(tmp_path: Path) -> None:
    path, network, other = tmp_path / "kept.safetensors", torch.nn.Linear(3, 2), torch.nn.Linear(3, 4)
    write_weights(path, network.state_dict())
    before = other.weight.detach().clone()
    assert not read_weights(path, other) and torch.equal(other.weight, before)
    again = torch.nn.Linear(3, 2)
    assert read_weights(path, again)
    assert np.array_equal(again(torch.ones(3)).detach(), network(torch.ones(3)).detach())
    path.write_bytes(b"half a file")
    assert not read_weights(path, again) and not read_weights(tmp_path / "nothing", again)
