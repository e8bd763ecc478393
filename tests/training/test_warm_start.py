"""Starting from another run's weights: nothing is lost, and classes keep their meaning whatever their order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anatogen.conditioning.encode import Condition, Encoding
from anatogen.data.store import PreparedDataset
from anatogen.errors import ModelError, SettingsError
from anatogen.model import Denoiser, DenoiserConfig, load_denoiser, read_about
from anatogen.networks.hourglass import HourglassConfig
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.training.config import build_settings
from anatogen.training.train import train
from anatogen.training.warm_start import start_from

SMALL = HourglassConfig(width=16, smallest=4)
PAPER = PaperUNetConfig(
    channels=(32, 32),
    layers_per_block=1,
    options={"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
)


def denoiser(
    names: str, network: HourglassConfig | PaperUNetConfig = SMALL, encoding: Encoding = "onehot", size: int = 16
) -> Denoiser:
    """With weights that are all in use: zero-initialised ones would hide a mistake."""
    config = DenoiserConfig(
        image_channels=2,
        size=(size, size),
        classes=tuple((n, "#000000") for n in names),
        encoding=encoding,
        network=network,
    )
    torch.manual_seed(len(names))
    made = Denoiser(config).placed(torch.device("cpu")).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    ("network", "encoding"), [(SMALL, "embedding"), (SMALL, "onehot"), (PAPER, "onehot")], ids=["embedding", "hourglass", "paper_unet"]
)  # fmt: skip
def test_classes_are_matched_by_name(network: HourglassConfig | PaperUNetConfig, encoding: Encoding) -> None:
    old, new = denoiser("abc", network, encoding), denoiser("cxa", network, encoding)
    assert start_from(new, old, Path("run")) == ("x",)
    x, t = torch.randn(3, 2, 16, 16), torch.tensor([0.1, 0.5, 0.9])
    theirs = torch.randint(0, 4, (3, 16, 16))
    theirs[theirs == 2] = 0  # class b, which the new model does not have
    ours = torch.tensor([0, 3, 0, 1])[theirs]  # a is class 3 there, c class 1
    given = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    given[:, 1] = False  # b unknown: its plane of states is 0, as if it were not there
    for x_given in (True, False):  # whatever is said of the new class
        mapped = torch.stack([given[:, 2], torch.full((3,), x_given), given[:, 0]], dim=1)
        a = old(x, t, Condition.of(theirs * given_mask(theirs, given), given))
        b = new(x, t, Condition.of(ours * given_mask(ours, mapped), mapped))
        assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(a, denoiser("cxa", network, encoding)(x, t, Condition.of(ours, mapped)), atol=1e-2)


def given_mask(labels: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """1 where a label's class is given or the label is background, else 0."""
    every = torch.cat([torch.ones(len(given), 1, dtype=torch.bool), given], dim=1)
    return every.gather(1, labels.flatten(1)).reshape(labels.shape).long()


def test_what_cannot_be_started_from() -> None:
    old = denoiser("ab")
    for other, said in (
        (denoiser("ab", HourglassConfig(width=24, smallest=4)), "network"),
        (denoiser("ab", encoding="none"), "encoding"),
        (denoiser("ab", size=64), "other layers"),
    ):
        with pytest.raises(SettingsError, match=said):
            start_from(other, old, Path("run"))
    index = denoiser("ab", encoding="index")
    assert start_from(denoiser("ab", encoding="index"), index, Path("run")) == ()
    with pytest.raises(SettingsError, match="'index' cannot match"):
        start_from(denoiser("ba", encoding="index"), index, Path("run"))


def test_fine_tuning_goes_on_where_the_run_ended(longer_run: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    values = [
        "network.width=16",
        "training.batch_size=8",
        f"training.start_from={longer_run}",
        "training.learning_rate=1e-9",
    ]
    settings = build_settings(values=values, training={"steps": 1})
    run = train(dataset, tmp_path / "run", settings, device="cpu")
    old, _ = load_denoiser(longer_run)
    new, about = load_denoiser(run)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    assert about.started_from is not None and about.started_from.run == longer_run.name
    assert about.started_from.trained_on == read_about(longer_run).trained_on
    assert str(longer_run.parent) not in (run / "model.json").read_text()


def test_from_the_command_line(cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = ("train", dataset_folder, "--steps", 2, "--device", "cpu")
    code, _, err = cli(*base, "--out", tmp_path / "tuned", "--from", run_folder)
    assert code == 0, err
    assert read_about(tmp_path / "tuned").started_from is not None
    assert read_about(tmp_path / "tuned").steps == 2
    code, _, err = cli(*base, "--out", tmp_path / "bad", "--from", run_folder, "--set", "network.width=16")
    assert code == 2 and "was trained with network" in err and not (tmp_path / "bad").exists()
    code, _, err = cli(*base, "--out", tmp_path / "bad", "--from", tmp_path / "nowhere")
    assert code == 2 and not (tmp_path / "bad").exists()


def test_there_has_to_be_a_run(dataset: PreparedDataset, tmp_path: Path) -> None:
    settings = build_settings(values=[f"training.start_from={tmp_path / 'nowhere'}"], training={"steps": 1})
    with pytest.raises(ModelError):
        train(dataset, tmp_path / "run", settings, device="cpu")
    assert not (tmp_path / "run").exists()
