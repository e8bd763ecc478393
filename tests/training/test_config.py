from pathlib import Path

import pytest

from anatogen.errors import SettingsError
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.sampling import SamplingSettings
from anatogen.training.config import RunSettings, build_settings, setting_names


def test_the_paper_preset_is_appendix_a() -> None:
    s = build_settings("paper")
    assert isinstance(s.network, PaperUNetConfig) and s.network.channels == (128, 128, 256, 256, 512, 512)
    assert (s.diffusion.path, s.diffusion.target, s.diffusion.weighting, s.diffusion.times) == (
        "ddpm",
        "eps",
        "eps",
        "uniform",
    )
    t = s.training
    assert (t.epochs, t.batch_size, t.learning_rate, t.schedule, t.warmup_steps) == (400, 64, 1e-4, "cosine", 500)
    assert (s.conditioning.encoding, s.sampling.solver, s.sampling.steps) == ("index", "ddim", 50)


def test_layers_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("training: {batch_size: 8, seed: 3}\nnetwork: {width: 32}\n")
    s = build_settings(config=file, values=["training.seed=5", "network.patch=1"], training={"steps": 7})
    assert (s.training.batch_size, s.training.seed, s.training.steps) == (8, 5, 7)
    assert s.network.name == "hourglass" and s.network.width == 32 and s.network.patch == 1


def test_another_network_by_one_value() -> None:
    assert build_settings(values=["network.name=paper_unet"]).network == PaperUNetConfig()
    assert build_settings("paper", values=["network.channels=[32, 64]"]).network == PaperUNetConfig(channels=(32, 64))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("training.batchsize=4", "'training.batch_size'"),
        ("network.widht=4", "'network.width'"),
        ("trainig.steps=4", "training.steps"),
        ("training.batch_size=0", "training.batch_size"),
        ("training.batch_size=many", "training.batch_size"),
        ("diffusion.path=vp", "diffusion.path"),
        ("network.name=unet", "network"),
        ("training.steps", "key=value"),
        ("conditioning.encoding=none", "mask_ablation"),
    ],
)
def test_wrong_settings_name_what_is_wrong(value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("'", ".")):
        build_settings(values=[value])


@pytest.mark.parametrize(("old", "new"), [("bent", "polynomial"), ("even", "leading")])
def test_grids_by_their_old_names(old: str, new: str, tmp_path: Path) -> None:
    """In a file, in a value and in a model's own settings; written by the new name, and no other word is taken."""
    file = tmp_path / "settings.yaml"
    file.write_text(f"sampling: {{grid: {old}}}\n")
    for settings in (build_settings(config=file), build_settings(values=[f"sampling.grid={old}"])):
        assert settings.model_dump(mode="json")["sampling"]["grid"] == new
    assert SamplingSettings.model_validate({"grid": old}).changed(grid=old).grid == new
    assert "bent" not in str(build_settings("paper")) + str(build_settings())
    with pytest.raises(SettingsError, match="polynomial"):
        build_settings(values=["sampling.grid=odd"])


def test_every_setting_round_trips_and_is_listed() -> None:
    assert RunSettings.model_validate(RunSettings().model_dump(mode="json")) == RunSettings()
    assert {"training.batch_size", "network.width", "network.channels", "sampling.eta"} <= set(
        setting_names(RunSettings)
    )
