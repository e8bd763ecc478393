"""What every system promises, whatever it is: it trains, resumes, samples by seed, is checked and is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.generation.kinds import KINDS, load_model
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.model import ImageModel, Query, read_about
from anatogen.progress import Monitor, Stage
from anatogen.workflows.train import TrainRequest, settings_for, train
from by_brightness import judge_by_brightness
from stable_diffusion import write_pipeline

Cli = Callable[..., tuple[int, str, str]]
BATCHES = ("training.batch_size=4", "training.warmup_steps=2")
SMALL: dict[str, tuple[str, ...]] = {
    "denoiser": ("network.width=8", "sampling.steps=3", *BATCHES),
    "spade": ("spade.width=4", "spade.hidden=4", "spade.discriminator_width=4", "spade.encoder=true", "spade.code=8", *BATCHES),
    "latent": ("autoencoder.channels=[16,16]", "autoencoder.code_channels=2", "autoencoder.discriminator_width=4", "latent.channels=[16,16]",
               "latent.blocks=1", "latent.control_channels=4", "sampling.steps=3", *BATCHES),
    "retrieval": (),
    "painting": (),
}  # fmt: skip
SMALL["controlnet"] = ("sampling.steps=3", *BATCHES)
LEARNED = [name for name, kind in KINDS.items() if kind.system is not None]
# What is made of another run makes volumes: tests/generation/test_stacked.py.
OF_DATA = [name for name, kind in KINDS.items() if kind.make_from is None]


WEIGHTS: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The weights that a user would have for ControlNet."""
    WEIGHTS[:] = [write_pipeline(tmp_path_factory.mktemp("weights") / "sd")]


def small(kind: str) -> list[str]:
    return [*SMALL[kind], *([f"controlnet.weights={WEIGHTS[0]}"] if kind == "controlnet" else [])]


class Killed(BaseException):
    pass


def settings(kind: str, steps: int = 6, *more: str) -> Any:
    if kind not in LEARNED:
        return settings_for(kind)
    values = [*small(kind), "live.previews=false", *more]  # the command line shows them
    return settings_for(kind, values=values, sections={"training": {"steps": steps}})


@pytest.fixture(scope="module")
def run_of(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a kind; each is trained once."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            out = tmp_path_factory.mktemp("runs") / kind
            train(TrainRequest(dataset_folder, out, settings(kind), "cpu", model=kind))
            made[kind] = out
        return made[kind]

    return run


def queries(dataset: PreparedDataset, model: ImageModel, seeds: list[int], free: tuple[str, ...] = ()) -> list[Query]:
    labels = dataset.load(dataset.split("test")[:1]).labels[0].numpy()
    return [Query(labels, dataset.schema.states(free=free), seed) for seed in seeds]


def images(model: ImageModel, asked: list[Query], size: int = 16) -> np.ndarray:
    return np.stack([image for _, image in model.generate(asked, batch_size=size)])


def test_every_kind_is_tested() -> None:
    assert SMALL.keys() == set(OF_DATA) and set(KINDS) - set(OF_DATA) == {"stacked"}


@pytest.mark.parametrize("kind", OF_DATA)
def test_an_image_depends_on_its_query_alone(
    run_of: Callable[[str], Path], dataset: PreparedDataset, kind: str
) -> None:
    model = load_model(run_of(kind), device="cpu")
    together = images(model, queries(dataset, model, [0, 1, 2, 0]))
    assert together.shape == (4, dataset.channels, *dataset.size) and together.dtype == np.float32
    assert np.abs(together).max() <= 1 and np.isfinite(together).all()
    assert np.allclose(together[0], together[3], atol=1e-5)
    alone = images(load_model(run_of(kind), device="cpu"), queries(dataset, model, [0, 1, 2, 0]), size=1)
    assert np.allclose(together, alone, atol=2e-4)
    assert (np.abs(together[0] - together[1]).max() > 1e-3) == model.spec.seeds_vary


@pytest.mark.parametrize("kind", OF_DATA)
def test_its_sample_set_passes_the_check(
    run_of: Callable[[str], Path], dataset: PreparedDataset, tmp_path: Path, kind: str, cli: Cli
) -> None:
    model = load_model(run_of(kind), device="cpu")
    requests = requests_from_dataset(dataset, dataset.split("test"), dataset.schema.states(), count=6)
    write_sample_set(model, requests, tmp_path / "samples")
    code, out, err = cli("check", tmp_path / "samples")
    assert code == 0, out + err
    header = SampleSet.open(tmp_path / "samples").header
    assert header.model == model.digest
    free = queries(dataset, model, [0], free=(dataset.schema.names[0],))
    assert np.isfinite(images(model, free)).all()


@pytest.mark.parametrize("kind", OF_DATA)
def test_it_is_judged(
    run_of: Callable[[str], Path], dataset_folder: Path, tmp_path: Path, kind: str, cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    judge_by_brightness(monkeypatch)
    out = tmp_path / "report"
    more = [] if kind == "spade" else ["--quick"]  # classes left free and floors take longer
    code, _, err = cli("evaluate", run_of(kind), "--dataset", dataset_folder, "--out", out, "--only", "faithfulness,realism",
                       "--count", 6, *more)  # fmt: skip
    assert code == 0, err
    report = json.loads((out / "report.json").read_text())
    assert report["faithfulness"]["dice_gen_map"]["mean"] is not None
    assert report["realism"]["fid"] is not None or report["realism"]["power_ratio"]
    assert (out / "model_card.md").is_file()


class Killing(Monitor):
    """Ends the process, as it were, at the `number`th movement of the bar of that title, the first of which is step 0."""

    def __init__(self, title: str, number: int) -> None:
        super().__init__()
        self.title, self.left = title, number

    def show(self, stage: Stage) -> None:
        if self.title == stage.title:
            self.left -= 1
            if self.left == 0:
                raise Killed


KILLS = [(kind, "training") for kind in LEARNED] + [
    ("latent", "training the autoencoder"),
    ("controlnet", "training the unet"),
]


@pytest.mark.parametrize(("kind", "where"), KILLS)
def test_killed_and_resumed_is_bit_for_bit_the_same(
    dataset_folder: Path, tmp_path: Path, kind: str, where: str
) -> None:
    # Of 20, 6 are for the autoencoder; of 24, 6 for the VAE and 12 for the U-Net.
    steps = {"latent": 20, "controlnet": 24}.get(kind, 6)
    how = settings(kind, steps, "training.checkpoint_every=2")
    train(TrainRequest(dataset_folder, tmp_path / "whole", how, "cpu", model=kind))
    request = TrainRequest(dataset_folder, tmp_path / "cut", how, "cpu", model=kind)
    with pytest.raises(Killed):
        train(request, monitor=Killing(where, 6))  # after step 5
    with pytest.raises(SettingsError, match="holds") as caught:
        train(request)
    assert "--resume" in caught.value.hint
    # The settings are the run's own.
    result = train(TrainRequest(dataset_folder, tmp_path / "cut", None, "cpu", resume=True, model=kind))
    assert result.steps == {"latent": 14, "controlnet": 6}.get(kind, steps)
    files = sorted((tmp_path / "whole").rglob("*.safetensors"))
    assert files
    for file in files:
        there = tmp_path / "cut" / file.relative_to(tmp_path / "whole")
        assert there.read_bytes() == file.read_bytes(), file.name
    assert read_about(tmp_path / "cut").finished and read_about(tmp_path / "cut").images == 4 * steps


@pytest.mark.parametrize("kind", LEARNED)
def test_micro_batches_train_the_same_run(dataset_folder: Path, tmp_path: Path, kind: str) -> None:
    """To rounding; SPADE's spectral norm takes a power iteration a pass, so that its first steps differ more."""
    made = []
    for micro in (4, 2):
        out = tmp_path / str(micro)
        how = settings(kind, 2, f"training.micro_batch_size={micro}", "training.learning_rate=1e-5")
        train(TrainRequest(dataset_folder, out, how, "cpu", model=kind))
        data = PreparedDataset.open(dataset_folder)
        model = load_model(out, device="cpu")
        made.append(images(model, queries(data, model, [0])))
    assert np.abs(made[0] - made[1]).max() < (0.05 if kind == "spade" else 2e-3)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_command_line_trains_plans_and_resumes_it(
    dataset_folder: Path, tmp_path: Path, kind: str, cli: Cli
) -> None:
    sets = [text for value in small(kind) for text in ("--set", value)]
    steps, more = {"latent": (7, 14), "controlnet": (2, 5)}.get(kind, (10, 20))  # the rest is for earlier stages
    code, out, err = cli("train", dataset_folder, "--model", kind, "--plan", "--steps", 10, "--device", "cpu", *sets)
    assert code == 0 and "GFLOP" in out and f"{steps} steps" in out, err
    assert ("the autoencoder is trained for 3 steps" in out) == (kind == "latent")
    run = tmp_path / "run"
    common = ("train", dataset_folder, "--out", run, "--device", "cpu")
    code, out, err = cli(*common, "--model", kind, "--steps", 10, *sets)
    assert code == 0 and f"{steps} steps" in out, err
    code, out, err = cli("info", run)
    assert code == 0 and (kind if kind != "denoiser" else "hourglass") in out, err
    code, out, err = cli(*common, "--resume", "--steps", 20)  # the kind is the run's own
    if kind == "controlnet":  # its rate depends on the length from the beginning
        assert code == 2 and "cannot be extended" in err
    else:
        assert code == 0 and f"{more} steps" in out, err
    other = "spade" if kind == "denoiser" else "denoiser"
    code, out, err = cli(*common, "--resume", "--steps", 30, "--model", other)
    assert code == 2 and f"is a run of the model {kind}" in err, err


@pytest.mark.parametrize("kind", OF_DATA)
def test_a_wrong_setting_is_named(kind: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_for(kind, values=["training.bach_size=4"])
    if kind in LEARNED:
        assert "training.batch_size" in caught.value.hint
    if kind != "denoiser":
        with pytest.raises(SettingsError, match="preset|no training settings"):
            settings_for(kind, "paper")


def test_an_unknown_model_is_named(dataset_folder: Path, tmp_path: Path, cli: Cli) -> None:
    code, _, err = cli("train", dataset_folder, "--out", tmp_path / "run", "--model", "spad")
    assert code == 2 and "there is no model 'spad'" in err and "spade" in err
