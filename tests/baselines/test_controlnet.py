"""ControlNet with a tiny pipeline of Stable Diffusion's own classes: three trainings, sampling, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.baselines.controlnet.model import ControlnetModel
from anatogen.baselines.controlnet.parts import Frame, load_stable_diffusion, noise_levels
from anatogen.baselines.controlnet.task import ControlnetSettings, ControlnetTask, PartTask, _of_unet, _of_vae
from anatogen.data.store import PreparedDataset
from anatogen.errors import AnatogenError, SettingsError
from anatogen.generation.kinds import load_model
from anatogen.model import HasReconstruction, HasSteps, Query, read_about
from anatogen.seeds import Draws
from anatogen.training.config import training_of
from anatogen.workflows.train import TrainRequest, settings_for, train
from stable_diffusion import CHANNELS, TOKENS, write_pipeline

Cli = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("weights") / "stable-diffusion")


def how(weights: Path, steps: int = 8, *more: str) -> ControlnetSettings:
    values = [
        f"controlnet.weights={weights}",
        "training.batch_size=4",
        "training.warmup_steps=1",
        "live.previews=false",
        "sampling.steps=3",
    ]
    found = settings_for("controlnet", values=[*values, *more], sections={"training": {"steps": steps}})
    assert isinstance(found, ControlnetSettings)
    return found


@pytest.fixture(scope="module")
def run(weights: Path, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "controlnet"
    train(TrainRequest(dataset_folder, out, how(weights), "cpu", model="controlnet"))
    return out


def test_the_three_trainings(run: Path, weights: Path, dataset: PreparedDataset) -> None:
    assert [read_about(run / "stages" / part).steps for part in ("vae", "unet")] == [2, 4]
    about = read_about(run)
    assert about.steps == 2 and about.images == 8 * 4 and about.finished
    original = load_stable_diffusion(str(weights))
    model = load_model(run, device="cpu")
    assert isinstance(model, ControlnetModel) and isinstance(model, HasSteps) and isinstance(model, HasReconstruction)
    for part, before in ((model.network.vae, original.vae), (model.network.unet, original.unet)):
        changed = [
            not torch.equal(a, b) for a, b in zip(part.state_dict().values(), before.state_dict().values(), strict=True)
        ]
        assert sum(changed) > len(changed) / 2  # it was finetuned
    assert torch.equal(model.network.prompt, original.prompt)
    rows = dataset.split("test")[:2]
    batch = dataset.load(rows)
    asked = [Query(labels, dataset.schema.states(), 0) for labels in batch.labels.numpy()]
    more = model.sampling_with(model.with_settings(steps=2, eta=1.0))
    for each in (model, more):
        assert all(image.shape == (1, *dataset.size) for _, image in each.generate(asked))
    assert model.reconstruct(batch.images.numpy()).shape == tuple(batch.images.shape)


def test_moved_weights_do_not_matter_to_a_finished_run(weights: Path, dataset_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(weights, moved)
    train(TrainRequest(dataset_folder, tmp_path / "run", how(moved, 4), "cpu", model="controlnet"))
    shutil.rmtree(moved)
    assert load_model(tmp_path / "run", device="cpu").spec.seeds_vary


def test_only_the_part_of_a_stage_is_trained(weights: Path, dataset: PreparedDataset) -> None:
    settings, batch = how(weights), dataset.load(dataset.split("train")[:2])
    tasks = [
        PartTask(dataset, _of_vae(settings), CPU),
        PartTask(dataset, _of_unet(settings), CPU),
        ControlnetTask(dataset, settings, CPU),
    ]
    for task, trained in zip(tasks, ("vae", "unet", "control"), strict=True):
        loss, measures = task.loss(task.phases[0], batch, Draws(range(2)))  # type: ignore[union-attr]
        loss.backward()
        assert torch.isfinite(measures["loss"]).all() and measures["loss"].shape == (2,)
        parts = (
            {"vae": task.vae, "unet": task.unet} if isinstance(task, PartTask) else dict(task.network.named_children())
        )
        for name, part in parts.items():
            got = any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
            assert got == (name == trained), (trained, name)


def test_the_length_is_shared_as_in_the_paper() -> None:
    default = ControlnetSettings()
    assert (_of_vae(default).training.epochs, _of_unet(default).training.epochs, training_of(default).epochs) == (
        200,
        400,
        200,
    )
    assert default.training.batch_size == 128 and default.training.learning_rate == 1e-4


def test_the_schedule_is_stable_diffusions(weights: Path) -> None:
    levels = noise_levels(load_stable_diffusion(str(weights)).scheduler)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(levels, (1 - betas).cumprod(0), rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (61, 97)])
def test_any_size_of_slices(weights: Path, size: tuple[int, int]) -> None:
    parts = load_stable_diffusion(str(weights))
    frame = Frame(size, parts.vae, parts.unet)
    images = torch.rand(2, 1, *size)
    whole = frame.images(images)
    assert whole.shape[1] == 3 and all(side % 4 == 0 for side in whole.shape[2:])
    assert torch.allclose(frame.back(whole, 1), images)
    code = parts.vae.encode(whole).latent_dist.mode()
    assert code.shape[1:] == frame.code_size


def test_the_text_encoder_gives_the_empty_prompt(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found = load_stable_diffusion(str(write_pipeline(tmp_path / "sd", text=True)))
    assert found.prompt.shape == (1, TOKENS, CHANNELS) and torch.isfinite(found.prompt).all()


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(weights, folder)
    (folder / "empty_prompt.safetensors").unlink()
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(SettingsError, match="transformers") as caught:
        load_stable_diffusion(str(folder))
    assert "anatogen[controlnet]" in caught.value.hint


def test_what_is_missing_is_named_with_what_to_fetch(
    weights: Path, dataset_folder: Path, tmp_path: Path, cli: Cli
) -> None:
    common = ("train", dataset_folder, "--out", tmp_path / "run", "--model", "controlnet", "--device", "cpu")
    code, _, err = cli(*common)
    lines = [line for line in err.splitlines() if line]
    assert code == 2 and len(lines) == 1 and "stable-diffusion-v1-5" in err and "controlnet.weights" in err
    code, _, err = cli(*common, "--set", f"controlnet.weights={tmp_path / 'gone'}")
    assert code == 2 and "does not exist" in err and "stable-diffusion-v1-5" in err
    torn = tmp_path / "torn"
    shutil.copytree(weights, torn)
    (torn / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    code, _, err = cli(*common, "--set", f"controlnet.weights={torn}")
    assert code == 2 and "cannot be read" in err
    shutil.rmtree(torn / "unet")
    code, _, err = cli(*common, "--set", f"controlnet.weights={torn}")
    assert code == 2 and "the folder unet is missing" in err
    other = write_pipeline(tmp_path / "v", prediction="v_prediction")
    code, _, err = cli(*common, "--set", f"controlnet.weights={other}", "--steps", 4, "--set", "training.batch_size=2")
    assert code == 2 and "v_prediction" in err
    assert not (tmp_path / "run" / "model.json").exists()


def test_other_solvers_are_refused(run: Path, dataset_folder: Path, tmp_path: Path, cli: Cli) -> None:
    code, _, err = cli(
        "sample",
        run,
        "--masks",
        dataset_folder,
        "--out",
        tmp_path / "s",
        "--count",
        1,
        "--solver",
        "heun",
        "--device",
        "cpu",
    )
    assert code == 2 and "ddim" in err
    code, _, err = cli(
        "sample", run, "--masks", dataset_folder, "--out", tmp_path / "s", "--count", 2, "--steps", 2, "--device", "cpu"
    )
    assert code == 0, err
    assert len(list((tmp_path / "s" / "images").iterdir())) == 2


def test_a_control_branch_that_begins_at_zero_changes_nothing(weights: Path, dataset: PreparedDataset) -> None:
    task = ControlnetTask(dataset, how(weights), CPU)
    network = task.network.eval()
    codes, times = torch.randn(1, *network.frame.code_size), torch.tensor([500])
    planes = torch.rand(1, network.planes.count, *network.frame.padding.padded)
    with torch.no_grad():
        found = network.predicted_noise(codes, times, planes)
        alone = network.unet(codes, times, network.prompt, return_dict=False)[0]
    assert np.allclose(found.numpy(), alone.numpy(), atol=1e-5)


def test_errors_are_ours(tmp_path: Path) -> None:
    with pytest.raises(AnatogenError):
        load_stable_diffusion(str(tmp_path))
