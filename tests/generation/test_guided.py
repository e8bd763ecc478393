"""Guidance on the label map in sampling: what the denoiser is compared with, settings, documents, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anatogen.baselines.controlnet.task import ControlnetSampling
from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.noise import SampleNoise
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.kinds import load_model
from anatogen.model import AboutModel, Denoiser, DenoiserConfig, Query
from anatogen.networks.hourglass import HourglassConfig
from anatogen.sampling import SamplingSettings
from anatogen.seeds import derive_seed
from anatogen.training.config import build_settings
from anatogen.training.train import train

Cli = Callable[..., tuple[int, str, str]]
MAT = AboutModel(mask_ablation=True)


def untrained(size: tuple[int, ...], *, seed: int = 0) -> Generator:
    """A generator of two classes whose weights are all drawn, so that its label map matters."""
    network = HourglassConfig(width=8, blocks=1)
    config = DenoiserConfig(
        image_channels=2, size=size, classes=(("ball", "#E69F00"), ("core", "#56B4E9")), network=network
    )
    denoiser, random = Denoiser(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return Generator(denoiser, SamplingSettings(steps=1, eta=0.0, clip=None, solver="ddim"), device="cpu", about=MAT)


def condition_of(labels: np.ndarray) -> Condition:
    return Condition.of(torch.from_numpy(labels)[None], torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("tile", [None, 8], ids=["whole", "in tiles"])
@pytest.mark.parametrize("size", [(16, 13), (6, 12, 9)], ids=["2D", "3D"])
def test_one_step_is_the_formula(size: tuple[int, ...], tile: int | None) -> None:
    """x0 of the first step, at pure noise, is D + (w - 1) (D - D with the guided classes free)."""
    generator = untrained(size)
    labels = np.random.default_rng(0).integers(0, 3, size)
    tiles = None if tile is None else (tile,) * len(size)
    condition = condition_of(labels)
    free = {None: [False, False], ("core",): [True, False], ("core", "ball"): [False, False]}
    noise = SampleNoise([derive_seed("sample", 3)], (2, *size), generator.device)()
    seen: list[torch.Tensor] = []

    def at_noise(states: list[bool]) -> torch.Tensor:
        under = Condition.of(condition.labels, torch.tensor([states]))
        return generator.denoiser.under(under, tile=tiles)(noise, torch.ones(1))

    query = Query(labels, generator.schema.states(), seed=3)
    with torch.no_grad():
        for classes, states in free.items():
            settings = generator.with_settings(guidance=2.5, guidance_classes=classes, tile=tiles)
            seen.clear()
            list(generator.generate([query], settings, callback=lambda step, steps, x, x0: seen.append(x0)))
            given = at_noise([True, True])
            expected = given + 1.5 * (given - at_noise(states))
            assert torch.allclose(seen[0], expected, atol=1e-4) and (seen[0] - given).abs().max() > 1e-3


def test_leaving_free_keeps_the_rest() -> None:
    labels = torch.tensor([[[0, 1], [2, 3]]])
    region = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.uint8)
    states = torch.tensor([[[True, True, False], [True, True, True]]])
    vector, origin = torch.ones(1, 4), torch.zeros(1, 2, dtype=torch.int64)
    condition = Condition.of(labels, states, region, vector, origin)
    one = condition.leaving_free([2])
    assert one.labels.tolist() == [[[0, 1], [0, 3]]]
    assert one.states.tolist() == [[[True, False, False], [True, False, True]]]
    assert one.region is region and one.vector is vector and one.origin is origin
    every = condition.leaving_free()
    assert not every.labels.any() and not every.states.any()
    assert condition.labels.tolist() == [[[0, 1], [2, 3]]] and condition.states.all(-1).tolist() == [[False, True]]


@pytest.mark.parametrize("size", [(16, 16), (4, 8, 8)], ids=["2D", "3D"])
def test_off_is_what_it_was_and_nothing_given_is_not_guided(size: tuple[int, ...]) -> None:
    generator = untrained(size)
    generator = generator.sampling_with(generator.with_settings(steps=3, solver="heun", eta=1.0))
    labels = np.random.default_rng(0).integers(0, 3, size)
    plain = generator.sample(labels, seeds=[1, 2])
    assert np.array_equal(generator.sample(labels, seeds=[1, 2], guidance=1.0), plain)
    assert np.abs(generator.sample(labels, seeds=[1, 2], guidance=2.0) - plain).max() > 1e-3
    free = generator.sample(labels, seeds=[1, 2], given=[])
    assert np.array_equal(generator.sample(labels, seeds=[1, 2], given=[], guidance=2.0), free)
    # of the one given class, guiding by the other makes no difference
    core = partial(generator.with_settings, guidance=2.0, guidance_interval=(0.1, 0.9))
    other = generator.sampling_with(core(guidance_classes=("ball",)))
    assert np.array_equal(
        other.sample(labels, given=["core"], seeds=[1]), generator.sample(labels, given=["core"], seeds=[1])
    )
    with pytest.raises(SettingsError, match="guidance"):
        generator.sample(labels, guidance=11.0)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "ddpm"])
def test_an_image_does_not_depend_on_the_batch_that_is_guided(
    solver: str,
) -> None:
    generator = untrained((16, 16))
    settings = generator.with_settings(solver=solver, steps=4, guidance=2.0, guidance_interval=(0.2, 0.8))
    labels = np.random.default_rng(0).integers(0, 3, (3, 16, 16))
    states = generator.schema.states()
    asked = [Query(each, replace(states, given=(True, i != 1)), seed=i) for i, each in enumerate(labels)]
    by_size = [[image for _, image in generator.generate(asked, settings, batch_size=n)] for n in (1, 3)]
    assert max(np.abs(a - b).max() for a, b in zip(*by_size, strict=True)) < 1e-4


def test_documents_say_nothing_of_guidance_that_is_off() -> None:
    assert not any("guidance" in key for key in SamplingSettings().model_dump())
    assert not any("guidance" in key for key in SamplingSettings(guidance_interval=(0.1, 0.2)).model_dump())
    on = SamplingSettings(guidance=1.5, guidance_interval=(0.2, 0.75), guidance_classes=("liver", "kidney"))
    assert SamplingSettings.model_validate(json.loads(json.dumps(on.model_dump(mode="json")))) == on
    assert on.guidance_in_words == "guidance 1.5 at noise 0.2 to 0.75 by liver, kidney"
    assert SamplingSettings(guidance=2).model_dump()["guidance_interval"] == (0.0, 1.0)
    for wrong in ({"guidance": -1}, {"guidance_interval": (0.5, 0.5)}, {"guidance_interval": (0, 2)}):
        with pytest.raises(SettingsError, match="guidance"):
            SamplingSettings().changed(**wrong)
    with pytest.raises(SettingsError, match="at least 1"):
        SamplingSettings().changed(guidance_classes=())


def test_who_cannot_be_guided_says_so(run_folder: Path, dataset: PreparedDataset, tmp_path: Path) -> None:
    generator, labels = Generator.load(run_folder, device="cpu"), np.zeros((32, 32), dtype=np.int64)
    full_maps = Generator(generator.denoiser, generator.settings, device="cpu")
    for call in (
        lambda: full_maps.sample(labels, guidance=2.0),
        lambda: list(full_maps.generate([Query(labels, generator.schema.states(), 0)], SamplingSettings(guidance=2.0))),
    ):
        with pytest.raises(SettingsError, match="not applicable to a model trained without mask ablation"):
            call()
    with pytest.raises(SettingsError, match=r"unknown class 'bal'. Did you mean 'ball'\?"):
        generator.with_settings(guidance=2.0, guidance_classes=("bal",))
    values = ["training.steps=2", "network.width=8", "sampling.guidance=2"]
    for more, said in (
        (["conditioning.mask_ablation=false"], "mask ablation"),
        (["sampling.guidance_classes=[cor]"], "unknown class 'cor'"),
    ):
        with pytest.raises(SettingsError, match=said):
            train(dataset, tmp_path / "run", build_settings(values=values + more), device="cpu")
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="not applicable to a ControlNet"):
        ControlnetSampling(guidance=2.0)


def test_on_the_command_line(cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    where: tuple[Any, ...] = (run_folder, "--masks", dataset_folder, "--count", 2, "--device", "cpu")
    out, guided = ("--out", tmp_path / "a"), ("--guidance", 2, "--guidance-interval", "0.2,0.9")
    code, _, err = cli("sample", *where, *out, *guided, "--guidance-classes", "core")
    assert code == 0, err
    written = json.loads((tmp_path / "a" / "samples.json").read_text())["sampling"]
    assert (written["guidance"], written["guidance_interval"]) == (2.0, [0.2, 0.9])
    assert written["guidance_classes"] == ["core"]
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    code, _, err = cli("sample", *where, *out)
    assert code == 2 and "holds images made with guidance 2.0, not none" in err, err
    code, _, err = cli("sample", *where, *out, *guided)
    assert code == 2 and "with guidance_classes core, not none" in err, err
    assert before == {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    code, _, err = cli("interpolate", *where, "--out", tmp_path / "b", "--similarity", "0.5", *guided)
    assert code == 0, err
    for options, words in (
        (("--guidance-interval", "0.2,0.9"), "--guidance-interval makes no difference without guidance"),
        (("--guidance-classes", "core"), "--guidance-classes makes no difference without guidance"),
        (("--guidance", 2, "--guidance-classes", "cor"), "unknown class 'cor'. Did you mean 'core'?"),
        (("--guidance", 2, "--guidance-interval", "0.2"), "--guidance-interval 0.2 is not two numbers"),
        (("--guidance", 2, "--guidance-interval", "0.9,0.2"), "is empty"),
    ):
        code, _, err = cli("sample", *where, "--out", tmp_path / "bad", *options)
        assert code == 2 and words in err and len(err.splitlines()) == 1, err
        assert not (tmp_path / "bad").exists()


def test_who_has_no_steps_has_no_guidance(cli: Cli, dataset_folder: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", dataset_folder, "--out", tmp_path / "run", "--model", "retrieval")
    assert code == 0 and load_model(tmp_path / "run"), err
    out = ("--masks", dataset_folder, "--out", tmp_path / "s", "--guidance", 2)
    code, _, err = cli("sample", tmp_path / "run", *out)
    assert code == 2 and "--guidance is not applicable to this kind of model" in err, err
