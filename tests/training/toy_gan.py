"""A second system to train, far from the denoiser: a generator and a discriminator of points, two phases of one
task.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from anatogen.distributed import WHOLE, Shard
from anatogen.seeds import Draws, derive_seed
from anatogen.training.state import MovingAverage, TrainingState
from anatogen.training.task import Phase

MEAN, SPREAD = 2.0, 0.5


@dataclass(frozen=True)
class Points:
    """Real points (B, 1)."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def part(self, start: int, stop: int) -> Points:
        return Points(self.x[start:stop])


class Gaussian:
    """`images` points of a normal distribution, in batches."""

    def __init__(self, batch_size: int = 8, *, images: int = 1000, faulty: Mapping[int, int] | None = None) -> None:
        self.batch_size, self.images = batch_size, images
        self.faulty = faulty or {}  # batch number -> item that is NaN, in the first attempt
        self.asked: list[tuple[int, int]] = []

    def stream(self, start: int = 0, attempt: int = 0, shard: Shard = WHOLE) -> Generator[Points, None, None]:
        self.asked.append((start, attempt))
        number = start
        while True:
            seeds = [derive_seed("point", number, i) for i in range(self.batch_size)]
            x = MEAN + SPREAD * Draws(seeds).normal(1)
            if number in self.faulty and attempt == 0:
                x[self.faulty[number]] = torch.nan
            mine = shard.of(self.batch_size)
            yield Points(x[mine.start : mine.stop])
            number += 1


class ToyGan:
    """A non-saturating GAN (Goodfellow et al. 2014) in one dimension, with an averaged generator."""

    device = torch.device("cpu")

    def __init__(self, *, fused: bool = True, recipe: str = "a") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
            self.discriminator = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        options = {"betas": (0.5, 0.9), "fused": fused}
        self.average = MovingAverage(self.generator, 0.99)
        self.phases: Sequence[Phase] = (
            Phase(
                "discriminator", self.discriminator, torch.optim.Adam(self.discriminator.parameters(), **options), 1e-2
            ),
            Phase(
                "generator",
                self.generator,
                torch.optim.Adam(self.generator.parameters(), **options),
                5e-3,
                self.average,
            ),
        )
        self.recipe = {"settings": recipe}

    def loss(self, phase: Phase, batch: Points, random: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        made = self.generator(random.normal(1))
        if phase.name == "discriminator":
            real, fake = self.discriminator(batch.x), self.discriminator(made.detach())
            losses = functional.softplus(-real) + functional.softplus(fake)
            return losses.mean(), {"loss": losses[:, 0].detach(), "accuracy": (real > fake).float().mean()}
        losses = functional.softplus(-self.discriminator(made))
        return losses.mean(), {"generator loss": losses.mean()}

    def names(self, batch: Points) -> Sequence[str]:
        return [f"point {float(x):.0f}" if torch.isfinite(x) else "the faulty point" for x in batch.x[:, 0]]

    def model(self) -> nn.Module:
        averaged = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        averaged.load_state_dict(self.average.weights)
        return averaged

    def export(self, folder: Path, state: TrainingState) -> None:
        weights = {name: tensor.tolist() for name, tensor in self.average.weights.items()}
        (folder / "model.json").write_text(json.dumps({"steps": state.step, "weights": weights}))

    def everything(self) -> dict[str, Tensor]:
        """Every tensor that training changes."""
        return {
            **{f"g.{k}": v for k, v in self.generator.state_dict().items()},
            **{f"d.{k}": v for k, v in self.discriminator.state_dict().items()},
            **{f"a.{k}": v for k, v in self.average.weights.items()},
        }
