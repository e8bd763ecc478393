"""The learned embedding of label maps: what it sums, what states add, and that nothing else enters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anatogen.conditioning.encode import Condition
from anatogen.errors import SettingsError
from anatogen.model import Denoiser, DenoiserConfig
from anatogen.networks.embedding import LabelEmbedding
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.training.config import build_settings


def embedding(classes: int, dim: int = 2, patch: int = 2) -> LabelEmbedding:
    torch.manual_seed(0)
    return LabelEmbedding(classes, (patch,) * dim, channels=5)


def drawn(classes: int, *size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (2, *size), generator=generator)
    return labels, torch.rand(2, 1, classes - 1, generator=generator) < 0.5


@pytest.mark.parametrize(("size", "patch"), [((4, 6), 2), ((3, 5), 1), ((4, 2, 6), 2)])
def test_the_vectors_of_a_cells_pixels_are_summed(size: tuple[int, ...], patch: int) -> None:
    made = embedding(4, len(size), patch)
    labels, states = drawn(4, *size)
    found = made(labels, states)
    assert found.shape == (2, 5, *(side // patch for side in size))
    place = torch.tensor([1] + [0] * (len(size) - 1))  # the second cell along the first axis
    pixels = [place * patch + torch.tensor(at) for at in torch.cartesian_prod(*[torch.arange(patch)] * len(size)).reshape(-1, len(size)).tolist()]  # fmt: skip
    expected = made.of_states(states[1, 0].float())
    for position, pixel in enumerate(pixels):
        label = int(labels[(1, *pixel.tolist())])
        if label:
            expected = expected + made.table[1 + position * 3 + label - 1]
    assert torch.allclose(found[(1, slice(None), *place.tolist())], expected, atol=1e-6)


def test_regions_choose_the_states_by_their_share_of_a_cell() -> None:
    made = embedding(3)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    states = torch.tensor([[[True, False], [False, True]]])
    region = torch.zeros(1, 4, 4, dtype=torch.uint8)
    region[:, :, 3] = 1  # half of the right cells
    found = made(labels, states, region)
    a, b = made.of_states(states[0].float())
    assert torch.allclose(found[0, :, 0, 0], a) and torch.allclose(found[0, :, 1, 1], (a + b) / 2)
    alone = made(labels, states[:, :1])
    assert torch.allclose(made(labels, states, torch.zeros_like(region)), alone)


def test_a_free_class_leaves_no_trace_and_differs_from_an_absent_one() -> None:
    made = embedding(3)
    given = torch.tensor([[True, False]])
    with_it, without = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    with_it[0, 1:3] = 2

    def features(labels: Tensor, states: Tensor) -> Tensor:
        condition = Condition.of(labels, states)
        found: Tensor = made(condition.labels, condition.states)
        return found

    assert torch.equal(features(with_it, given), features(without, given))
    assert not torch.allclose(features(without, given), features(without, torch.ones_like(given)))


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_are_the_same_from_run_to_run(threads: int) -> None:
    """An exact resume needs it; a table's gradient sums over many pixels."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gradients = []
        for _ in range(3):
            made = embedding(7)
            labels, states = drawn(7, 64, 64)
            made(labels, states).square().sum().backward()
            gradients.append(made.table.grad)
        assert all(torch.equal(gradients[0], other) for other in gradients)
        assert gradients[0][1:].abs().min() > 0 and not gradients[0][0].any()  # background has none
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_everything_learns(size: tuple[int, ...]) -> None:
    network = Hourglass(HourglassConfig(width=16, smallest=4), 1, None, size, classes=3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    labels, states = drawn(3, *size)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, truth = torch.randn(2, 2, 1, *size, generator=generator)
        loss = (network(x, torch.tensor([0.2, 0.7]), labels, states) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_paper_unet_gets_planes() -> None:
    assert build_settings().conditioning.encoding == "embedding"
    assert build_settings(values=["network.name=paper_unet"]).conditioning.encoding == "onehot"
    asked = {"image_channels": 1, "size": (32, 32), "classes": (("a", "#000000"),), "encoding": "embedding"}
    with pytest.raises(SettingsError, match="as planes"):
        Denoiser(DenoiserConfig(network=PaperUNetConfig(), **asked))  # type: ignore[arg-type]
