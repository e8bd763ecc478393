"""Defaults that fit the data: what is chosen, what is left alone, and that a resume plans nothing again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.metrics.texture import local_noise
from anatogen.networks.hourglass import HourglassConfig
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.planning import Data, adopting, plan, typical_noise
from anatogen.training.train import train

Cli = Callable[..., tuple[int, str, str]]


def never() -> float:
    raise AssertionError("nothing is to be measured")


def chosen(settings: RunSettings, images: int, seconds: float | None = None) -> tuple[int, float | None, int]:
    """Width, epochs and the number of choices that were said."""
    found = plan(settings, Data(images), never if seconds is None else lambda: seconds)
    return found.settings.network.width, found.settings.training.epochs, len(found.choices)  # type: ignore[union-attr]


def test_by_the_number_of_images() -> None:
    assert chosen(RunSettings(), 30_000) == (64, 13.3, 0)  # 20,000 steps end first, so there is nothing to say
    assert chosen(RunSettings(), 4_000) == (64, 13.3, 1)
    assert chosen(RunSettings(), 440) == (32, 13.3, 2)  # 5,867 images seen
    assert chosen(RunSettings(), 50) == (32, 53.3, 2)  # 2,667 images are the least that teaches anything
    assert chosen(RunSettings(), 1) == (32, 2666.7, 2)


def test_adamw_is_given_three_times_as_long() -> None:
    adamw = build_settings(values=["training.optimizer=adamw"])
    assert chosen(adamw, 4_000) == (64, 40, 1) and chosen(adamw, 440) == (32, 40, 2) and chosen(adamw, 50)[1] == 160
    found = plan(adamw, Data(440), never).settings.training
    assert found.optimizer == "adamw" and found.learning_rate == 5e-4
    planned = plan(RunSettings(), Data(440), never).settings.training
    assert planned.optimizer == "muon" and planned.learning_rate == 1e-3
    own_rate = build_settings(values=["training.learning_rate=2e-4"])
    assert plan(own_rate, Data(440), never).settings.training.learning_rate == 2e-4
    assert plan(build_settings("paper"), Data(440), never).settings.training.optimizer == "adamw"
    unet = build_settings(values=["network.name=paper_unet"])
    assert plan(unet, Data(440), never).settings.training.optimizer == "adamw"
    old = RunSettings.model_validate(RunSettings().model_dump(mode="json"))  # the config.yaml of before there was Muon
    assert adopting(RunSettings(), old).training.optimizer == "adamw"


@pytest.mark.parametrize(
    ("seconds", "width"),
    [(1 / 20, 64), (1 / 13.4, 64), (1 / 13, 48), (1 / 7, 32), (10.0, 32)],
)  # fmt: skip
def test_by_the_time(seconds: float, width: int) -> None:
    """Ten minutes: 8,000 images are 13.3 a second."""
    how = build_settings(training={"max_time_s": 600.0})
    assert chosen(how, 4_000, seconds)[0] == width


def test_a_minute_is_not_spent_on_measuring() -> None:
    assert chosen(build_settings(training={"max_time_s": 59.0}), 4_000)[0] == 32


def test_what_was_given_stays() -> None:
    assert chosen(build_settings(values=["network.width=64"]), 440) == (64, 13.3, 1)
    assert chosen(build_settings(values=["network.width=96", "training.max_time_s=600"]), 440) == (96, 13.3, 1)
    assert chosen(build_settings(training={"steps": 20_000}), 4_000) == (64, None, 0)
    assert chosen(build_settings(training={"epochs": 500.0}), 4_000) == (64, 500, 0)
    paper = build_settings("paper")
    assert plan(paper, Data(440), never).settings is paper
    further = build_settings(training={"start_from": "runs/other", "steps": 10})
    assert plan(further, Data(440), never).settings is further
    unet = build_settings(values=["network.name=paper_unet"])
    assert plan(unet, Data(440), never).settings.network == unet.network


def test_a_plan_is_not_planned_again() -> None:
    once = plan(RunSettings(), Data(440), never).settings
    assert plan(once, Data(10_000_000), never).settings == once
    read_again = RunSettings.model_validate(once.model_dump(mode="json"))
    assert plan(read_again, Data(10_000_000), never).settings == once


def test_a_run_records_its_plan_and_resumes_by_it(dataset: PreparedDataset, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    calls = []

    def kill(share: float, text: str) -> None:
        calls.append(share)
        if len(calls) == 6:
            raise Killed

    def how() -> RunSettings:
        return build_settings(values=["network.blocks=1", "training.batch_size=4", "training.checkpoint_every=2",
                                      "training.max_time_s=50"])  # fmt: skip

    with pytest.raises(Killed):
        train(dataset, tmp_path / "run", how(), device="cpu", progress=kill)
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    images = len(dataset.split("train"))
    assert found["network"]["width"] == 32 and found["training"]["epochs"] == round(8000 / 3 / images, 1)
    # The same call of a script, which leaves the same things open; another width is another training.
    resumed = adopting(how(), RunSettings.model_validate(found))
    assert resumed.network.width == 32 and resumed.training.epochs == found["training"]["epochs"]  # type: ignore[union-attr]
    other = build_settings(
        values=["network.width=64", "network.blocks=1", "training.batch_size=4"], training={"steps": 8}
    )
    with pytest.raises(SettingsError, match=r"network\.width"):
        train(dataset, tmp_path / "run", other, device="cpu", resume=True)
    shorter = build_settings(
        values=["network.blocks=1", "training.batch_size=4", "training.checkpoint_every=2"], training={"steps": 8}
    )
    train(dataset, tmp_path / "run", shorter, device="cpu", resume=True)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["network"]["width"] == 32


def test_the_command_line_says_what_is_planned(cli: Cli, dataset_folder: Path, tmp_path: Path) -> None:
    code, out, err = cli("train", dataset_folder, "--plan", "--device", "cpu")
    assert code == 0 and "planned   width 32: the training sees 2,6" in out and "learned by heart" in out, err
    code, out, err = cli("train", dataset_folder, "--out", tmp_path / "run", "--max-time", "3s", "--device", "cpu",
                         "--set", "network.blocks=1", "--set", "live.previews=false")  # fmt: skip
    assert code == 0, err
    assert "planned: width 32" in err and "planned: at most" in err


THICK = Data(100, (20, 128, 128), (5.0, 0.8, 0.8))


@pytest.mark.parametrize(
    ("noise", "share", "least", "smallest"),
    [(None, 0.0, 0.05, 0.05), (0.07, 0.0, 0.05, 0.05), (0.04, 0.15, 0.04, 0.02), (0.02, 0.15, 0.02, 0.01),
     (0.0, 0.15, 0.005, 0.0025)],
)  # fmt: skip
def test_training_times_reach_down_to_the_noise_of_the_images(
    noise: float | None, share: float, least: float, smallest: float
) -> None:
    found = plan(RunSettings(), Data(4_000, noise=noise), never)
    assert any("diffusion.low_noise_share" in choice for choice in found.choices) == (share > 0)
    how = found.settings.diffusion
    assert (how.low_noise_share, how.least_noise, how.smallest_sigma) == (share, least, smallest)


def test_training_times_that_were_given_stay() -> None:
    values = ["diffusion.low_noise_share=0.3", "diffusion.smallest_sigma=0.03"]
    how = plan(build_settings(values=values), Data(4_000, noise=0.02), never).settings.diffusion
    assert (how.low_noise_share, how.least_noise, how.smallest_sigma) == (0.3, 0.02, 0.03)
    uniform = build_settings(values=["diffusion.times=uniform"])
    assert plan(uniform, Data(4_000, noise=0.02), never).settings.diffusion.low_noise_share == 0
    own = plan(RunSettings(), Data(4_000, noise=0.02), never).settings
    assert adopting(RunSettings(), own).diffusion == own.diffusion
    old = RunSettings.model_validate(RunSettings().model_dump(mode="json"))  # of before times were planned
    assert adopting(RunSettings(), old).diffusion == old.diffusion


def test_noise_is_that_of_the_training_images(dataset: PreparedDataset) -> None:
    found = typical_noise(dataset)
    images = dataset.load(dataset.split("train")).images.numpy()
    assert found == pytest.approx(np.nanmedian(local_noise(images)), rel=0.1)


def test_volumes_get_levels_that_fit_their_voxels_and_small_batches() -> None:
    found = plan(RunSettings(), THICK, never).settings
    assert isinstance(found.network, HourglassConfig)
    assert found.network.patch == (1, 2, 2) and found.network.halvings == ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert found.network.channels is not None and len(found.network.channels) == 4
    assert found.training.batch_size == 2 and found.training.learning_rate == 1e-3 and found.diffusion.stratified
    assert found.training.epochs == 13.3  # 100 volumes of 20 slices
    slices = plan(RunSettings(), Data(100, (128, 128)), never).settings
    assert slices.network.halvings is None and slices.training.batch_size == 16  # type: ignore[union-attr]


def test_crops_are_parts_of_an_image() -> None:
    """The passes are over voxels: an eighth of a volume is no volume."""
    whole, crops = (
        plan(RunSettings(), replace(THICK, parts=parts), never).settings.training.epochs for parts in (1, 8)
    )
    assert whole == 13.3 and crops == 106.7


def test_what_was_given_for_volumes_stays() -> None:
    values = [
        "network.patch=2",
        "training.batch_size=4",
        "diffusion.stratified=false",
        "network.channels=[16,16,16,16,16]",
    ]
    found = plan(build_settings(values=values), THICK, never).settings
    assert found.network.patch == 2 and found.network.halvings is None  # type: ignore[union-attr]
    assert found.network.channels == (16,) * 5  # type: ignore[union-attr]
    assert found.training.batch_size == 4 and not found.diffusion.stratified
    assert found.training.learning_rate == 1e-3


def test_a_resume_takes_the_plan_of_volumes_from_the_run() -> None:
    own = plan(RunSettings(), THICK, never).settings
    assert adopting(RunSettings(), own).network == own.network
    assert adopting(RunSettings(), own).diffusion == own.diffusion
    old = RunSettings.model_validate(RunSettings().model_dump(mode="json"))  # of before volumes were planned
    assert adopting(RunSettings(), old).network.halvings is None  # type: ignore[union-attr]
    assert adopting(RunSettings(), old).training.batch_size == 16
