from pathlib import Path

import pytest
import yaml

from anatogen.errors import SettingsError
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.sampling import SamplingSettings
from anatogen.training.config import RunSettings, build_settings, first_difference, setting_names


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
    """In a file, a value and a model's settings; written with the new name; other names are errors."""
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


def yaml_file(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text)
    return file


def test_the_preset_comes_first_wherever_it_is_named(tmp_path: Path) -> None:
    """`--set preset=paper` and `preset: paper` in a file once renamed the run without changing settings."""
    paper = build_settings("paper")
    assert build_settings(values=["preset=paper"]) == paper
    assert build_settings(config=yaml_file(tmp_path, "preset: paper")) == paper
    file = yaml_file(tmp_path, "training: {batch_size: 8}\npreset: paper\n")
    mixed = build_settings(config=file, values=["training.batch_size=4", "network.layers_per_block=1"])
    assert mixed.training.batch_size == 4 and mixed.training.learning_rate == 1e-4
    assert isinstance(mixed.network, PaperUNetConfig) and mixed.network.layers_per_block == 1
    assert build_settings(values=["training.batch_size=4", "preset=paper"]).training.batch_size == 4
    assert build_settings("paper", config=file, values=["preset=paper"]).training.batch_size == 8


@pytest.mark.parametrize("where", ["argument and file", "file and value", "argument and value", "run and value"])
def test_two_presets_are_refused(tmp_path: Path, where: str) -> None:
    file = yaml_file(tmp_path, "preset: paper")
    with pytest.raises(SettingsError, match="two presets are named, '(fast|paper)' and '(fast|paper)'"):
        build_settings(
            "fast" if "argument" in where else None,
            config=file if "file" in where else None,
            base=file if "run" in where else None,
            values=["preset=fast" if where != "argument and value" else "preset=paper"] if "value" in where else [],
        )


@pytest.mark.parametrize("value", ["preset=slow", "preset=[1, 2]", "preset={a: 1}"])
def test_an_unknown_preset(value: str) -> None:
    with pytest.raises(SettingsError, match="there is no preset"):
        build_settings(values=[value])


def test_a_length_that_is_given_replaces_the_presets_only(tmp_path: Path) -> None:
    def lengths(*values: str, config: str = "", **more: object) -> tuple[object, ...]:
        file = yaml_file(tmp_path, config) if config else None
        t = build_settings(config=file, values=values, **more).training  # type: ignore[arg-type]
        return t.steps, t.epochs, t.max_time_s

    assert lengths() == (20_000, None, None)
    assert lengths("training.epochs=2") == (None, 2, None)
    assert lengths("training.steps=7", preset="paper") == (7, None, None)
    assert lengths(config="training: {max_time_s: 60}") == (None, None, 60)
    # Two that are given: both stand, the first that is reached counts. `--epochs` used to win in silence.
    assert lengths("training.steps=100", training={"epochs": 3}) == (100, 3, None)
    assert lengths(config="training: {steps: 100}", training={"max_time_s": 60}) == (100, None, 60)
    assert lengths("training.steps=5", config="training: {steps: 100}") == (5, None, None)
    assert lengths("training.batch_size=5") == (20_000, None, None)


def test_a_runs_own_settings_are_the_base_of_its_resume(tmp_path: Path) -> None:
    own = build_settings("paper", values=["training.steps=9", "network.channels=[32, 64]"])
    file = yaml_file(tmp_path, yaml.safe_dump(own.model_dump(mode="json")))
    assert build_settings(base=file) == own
    assert build_settings("paper", base=file, values=["training.steps=9"]) == own
    more = build_settings(base=file, values=["training.micro_batch_size=2"])
    assert first_difference(own, more) == "training.micro_batch_size"
    assert first_difference(own, more, but=["training.micro_batch_size"]) is None
    assert first_difference(own, RunSettings()) == "preset"


@pytest.mark.parametrize("value", ["500", "10m", "90s", "1h30m"])
def test_checkpoints_by_steps_or_time(value: str) -> None:
    every = build_settings(values=[f"training.checkpoint_every={value}"]).training.checkpoint_every
    assert every == (500 if value == "500" else value)


@pytest.mark.parametrize("value", ["0", "-5", "often", "''", "1.5"])
def test_checkpoints_never(value: str) -> None:
    with pytest.raises(SettingsError, match=r"training\.checkpoint_every"):
        build_settings(values=[f"training.checkpoint_every={value}"])
