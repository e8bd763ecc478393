"""Adjustable similarity (Konz et al. 2024, section 3.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from anatogen.data.store import PreparedDataset
from anatogen.diffusion.interpolate import mix
from anatogen.diffusion.noise import SampleNoise
from anatogen.diffusion.path import DDPMPath, FlowPath
from anatogen.diffusion.path import Path as DiffusionPath
from anatogen.errors import SettingsError
from anatogen.generation.engine import Generator
from anatogen.generation.sample_set import SampleSet
from anatogen.model import Similarity

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("path", [FlowPath(), DDPMPath()], ids=lambda p: p.name)
@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.5, 0.9])
def test_which_mixture_has_the_noise_of_its_time(path: DiffusionPath, similarity: float) -> None:
    """Of one image, real and generated: the literal mixture has sqrt((1-l)^2 + l^2) of the noise, the other all of
    it.
    """
    time = torch.tensor(0.3, dtype=torch.float64)
    alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
    x0 = torch.full((8, 1, 64, 64), 0.4)
    generated = alpha * x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(99))
    part = torch.full((8,), similarity)
    for mixing, share in (("literal", (similarity**2 + (1 - similarity) ** 2) ** 0.5), ("variance_preserving", 1.0)):
        mixed = mix(x0, generated, 0.3, path, part, SampleNoise(range(8), (1, 64, 64)), mixing)  # type: ignore[arg-type]
        assert mixed.mean().item() == pytest.approx(alpha * 0.4, abs=0.02)
        assert mixed.std().item() == pytest.approx(share * sigma, rel=0.02)


@pytest.mark.parametrize("mixing", ["literal", "variance_preserving"])
def test_more_similarity_is_more_alike(longer_run: Path, dataset: PreparedDataset, mixing: str) -> None:
    """With every class free only the likeness says where the ball lies."""
    generator = Generator.load(longer_run, device="cpu")
    batch = dataset.load([row for row in dataset.split("test") if row.slice == 6])
    labels, real = batch.labels[0].numpy(), batch.images[0].numpy()
    distances = []
    for seed in range(4):
        images = generator.interpolate(labels, real, [0.0, 0.5, 0.95], given=[], seed=seed, mixing=mixing)  # type: ignore[arg-type]
        distances.append([float(np.square(image - real).mean()) for image in images])
    mean = np.mean(distances, axis=0)
    assert mean[0] > mean[1] > mean[2]
    assert mean[2] < 0.7 * mean[0]


@pytest.mark.parametrize("similarity", [1.0, -0.1, 2.0])
def test_similarity_out_of_range(similarity: float) -> None:
    with pytest.raises(SettingsError, match=r"outside \[0, 1\)"):
        Similarity(np.zeros((1, 4, 4), np.float32), similarity)


def test_from_the_command_line(cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    words = ("interpolate", run_folder, "--masks", dataset_folder, "--count", 2, "--given", "core", "--device", "cpu")
    assert cli(*words, "--similarity", "0.25,0.75", "--out", tmp_path / "alike")[0] == 0
    entries = SampleSet.open(tmp_path / "alike").entries
    assert [(e.similarity, e.weight, e.halted_at) for e in entries] == [
        (0.25, 0.75, 240),
        (0.75, 0.25, 240),
    ] * 2
    assert all(e.free == ("ball",) for e in entries)
    for option, value, message in (
        ("--similarity", "1.0", "outside [0, 1)"),
        ("--similarity", "much", "no list of numbers"),
        ("--solver", "heum", "Did you mean 'heun'"),
    ):
        code, _, err = cli(*words, option, value, "--out", tmp_path / "x")
        assert code == 2 and message in err and "Traceback" not in err


def test_another_solver_from_the_command_line(cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path) -> None:
    words = ("interpolate", run_folder, "--masks", dataset_folder, "--count", 1, "--similarity", 0.5, "--device", "cpu")
    for name, options in (("own", ()), ("other", ("--solver", "heun", "--steps", 3, "--eta", 0.5))):
        assert cli(*words, *options, "--out", tmp_path / name)[0] == 0
    own, other = (SampleSet.open(tmp_path / name) for name in ("own", "other"))
    sampling = other.header.sampling
    assert (sampling.solver, sampling.steps, sampling.eta) == ("heun", 3, 0.5)
    assert not np.array_equal(own.images(), other.images())
