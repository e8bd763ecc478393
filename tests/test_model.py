from pathlib import Path

import pytest
import torch

from anatogen.conditioning.encode import Condition
from anatogen.errors import ModelError
from anatogen.model import Denoiser, DenoiserConfig, load_denoiser, save_denoiser
from anatogen.networks.hourglass import HourglassConfig

CLASSES = (("liver", "#E69F00"), ("bone", "#56B4E9"))


def config(**changes: object) -> DenoiserConfig:
    base = {"image_channels": 1, "size": (16, 16), "classes": CLASSES, "network": HourglassConfig(width=8)}
    return DenoiserConfig.model_validate({**base, **changes})


def condition(size: tuple[int, ...] = (16, 16)) -> Condition:
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    return Condition(labels, torch.tensor([[True, True], [True, False]]))


@pytest.mark.parametrize("path", ["flow", "ddpm"])
@pytest.mark.parametrize("target", ["x0", "eps", "v", "edm"])
@pytest.mark.parametrize("encoding", ["onehot", "index", "none"])
@pytest.mark.parametrize("size", [(16, 16), (8, 16, 8)])
def test_one_contract_for_all(path: str, target: str, encoding: str, size: tuple[int, ...]) -> None:
    denoiser = Denoiser(config(path=path, target=target, encoding=encoding, size=size))
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    x0 = denoiser(x, torch.tensor([0.3, 0.9]), condition(size))
    assert x0.shape == x.shape and torch.isfinite(x0).all()


def test_saved_and_loaded(tmp_path: Path) -> None:
    denoiser = Denoiser(config())
    for p in denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(0))
    save_denoiser(tmp_path, denoiser.config, denoiser.state_dict(), {"steps": 3})
    again, about = load_denoiser(tmp_path)
    x, t = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    assert about["steps"] == 3 and again.schema.names == ("liver", "bone")
    assert torch.equal(denoiser(x, t, condition()), again(x, t, condition()))


@pytest.mark.parametrize("damage", ["nothing there", "no weights", "torn weights", "torn json", "other network"])
def test_damaged_runs(tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    if damage != "nothing there":
        run.mkdir()
        denoiser = Denoiser(config())
        save_denoiser(run, denoiser.config, denoiser.state_dict(), {})
    if damage == "no weights":
        (run / "model.safetensors").unlink()
    if damage == "torn weights":
        (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:500])
    if damage == "torn json":
        (run / "model.json").write_text('{"denoiser": ')
    if damage == "other network":
        save_denoiser(run, config(network=HourglassConfig(width=16)), denoiser.state_dict(), {})
    with pytest.raises(ModelError, match=str(run)):
        load_denoiser(run)
