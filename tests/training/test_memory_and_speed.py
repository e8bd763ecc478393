"""Settings that change the memory or the speed of a training, and not its result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.train import train
from anatogen.workflows.train import TrainRequest, settings_for
from anatogen.workflows.train import train as train_any
from conftest import SMALL


def how(*values: str) -> RunSettings:
    return build_settings(values=[*SMALL, "network.blocks=1", "live.previews=false", *values])


def test_activation_checkpointing_gives_the_same_weights_bit_for_bit(dataset: PreparedDataset, tmp_path: Path) -> None:
    kept, again = (
        load_file(train(dataset, tmp_path / name, how(*values), device="cpu") / "model.safetensors")
        for name, values in (("kept", ()), ("again", ("training.activation_checkpointing=true",)))
    )
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_compiled_network_keeps_its_names(dataset: PreparedDataset) -> None:
    plain, compiled = (DenoiserTask(dataset, how(*v), torch.device("cpu")) for v in ((), ("training.compile=true",)))
    assert compiled.denoiser.network._compiled_call_impl is not None
    assert plain.denoiser.state_dict().keys() == compiled.denoiser.state_dict().keys()
    assert compiled.model().network._compiled_call_impl is None  # previews


@pytest.mark.parametrize("value", ["training.compile=true", "training.activation_checkpointing=true"])
def test_only_the_hourglass_has_them(
    dataset_folder: Path, dataset: PreparedDataset, tmp_path: Path, value: str
) -> None:
    name = value.partition("=")[0]
    with pytest.raises(SettingsError, match=f"{name} is for the hourglass only"):
        train(dataset, tmp_path / "run", build_settings(values=["network.name=paper_unet", value]), device="cpu")
    with pytest.raises(SettingsError, match=f"{name} is not applicable to the model spade"):
        train_any(
            TrainRequest(dataset_folder, tmp_path / "spade", settings_for("spade", values=[value]), model="spade")
        )
    assert not (tmp_path / "run").exists() and not (tmp_path / "spade").exists()
