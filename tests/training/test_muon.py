"""Muon: orthogonal updates of the hidden weights, AdamW for the others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.muon import Muon, _iterated, _iterated_by_rows, orthogonal
from anatogen.training.train import train


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6)])
def test_all_singular_values_become_one(shape: tuple[int, int]) -> None:
    """Directions stay, and the values of a random matrix, which differ by some factor, come to lie around 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(left.T @ made @ right.T, torch.diag(torch.diag(left.T @ made @ right.T)), atol=1e-3)
    assert not orthogonal(torch.zeros(shape)).any()
    together = orthogonal(torch.stack([matrix, 3 * matrix.flip(0)]))
    assert torch.allclose(together[0], made, atol=1e-4) and torch.allclose(together[1], made.flip(0), atol=1e-4)


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6])
def test_wide_matrices_are_iterated_by_their_rows_with_the_same_result(smallest: float) -> None:
    """Also where singular values differ by a million: those of the matrix of products differ by its square."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(648, 24, generator=generator))[0]
    matrix = (left * torch.logspace(0, math.log10(smallest), 24)) @ right.T
    matrix = matrix / torch.linalg.matrix_norm(matrix)
    made, expected = _iterated_by_rows(matrix, 5), _iterated(matrix.double(), 5).float()
    assert torch.allclose(made, expected, atol=1e-3 * float(expected.abs().max()))
    assert torch.equal(orthogonal(matrix.T), orthogonal(matrix).T)


def test_other_parameters_step_as_by_adamw() -> None:
    def grown(kind: str) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        options = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
        group = [{"params": [parameter]}]
        optimizer = Muon(group, **options) if kind == "ours" else torch.optim.AdamW(group, **options)  # type: ignore[arg-type]
        for step in range(5):
            optimizer.zero_grad()
            (parameter - step).square().sum().backward()
            optimizer.step()
        return parameter.detach()

    assert torch.allclose(grown("ours"), grown("torch"), atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (4, 6, 3, 3, 3)])
def test_the_size_of_an_update_is_that_of_its_rate(shape: tuple[int, ...]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(shape))
    optimizer = Muon([{"params": [parameter], "matrices": True}], 0.01)
    parameter.grad = 1000 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert parameter.detach().square().mean().sqrt() == pytest.approx(
        0.01 * 0.4, rel=0.35
    )  # whatever the gradient's size


def settings_of(*values: str) -> object:
    few = ["network.width=8", "network.blocks=1", "training.batch_size=4", "live.previews=false"]
    return build_settings(values=[*few, "training.optimizer=muon", *values], training={"steps": 6})


def test_hidden_weights_alone_are_orthogonalised(dataset: PreparedDataset) -> None:
    task = DenoiserTask(dataset, settings_of(), torch.device("cpu"))  # type: ignore[arg-type]
    matrices, others, tables = task.phases[0].optimizer.param_groups
    names = {id(parameter): name for name, parameter in task.denoiser.named_parameters()}
    assert {names[id(p)].split(".")[1] for p in matrices["params"]} == {"down", "up", "shrink", "grow", "attend"}
    assert all(p.ndim > 1 for p in matrices["params"]) and tables["weight_decay"] == 0
    outside = {names[id(p)] for p in others["params"]}
    assert {"network.stem.weight", "network.head.weight", "network.time.layers.0.weight"} <= outside
    counted = sum(len(group["params"]) for group in (matrices, others, tables))
    assert counted == len(names)


def test_a_killed_training_goes_on_bit_for_bit(dataset: PreparedDataset, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(share: float, text: str) -> None:
        if share > 0.7:
            raise Killed

    settings = settings_of("training.checkpoint_every=2")
    whole = train(dataset, tmp_path / "whole", settings, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(Killed):
        train(dataset, tmp_path / "run", settings, device="cpu", progress=kill)  # type: ignore[arg-type]
    train(dataset, tmp_path / "run", settings, device="cpu", resume=True)  # type: ignore[arg-type]
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_other_networks_are_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="for the hourglass only"):
        DenoiserTask(dataset, settings_of("network.name=paper_unet"), torch.device("cpu"))  # type: ignore[arg-type]
