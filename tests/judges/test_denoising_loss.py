"""Losses by which a denoiser gives its training images away, and how hard images are for anybody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anatogen.diffusion.path import PATHS
from anatogen.judges.denoising_loss import denoising_losses, difficulties
from anatogen.metrics.membership import MembershipAttack, membership_inference

FLOW = PATHS["flow"]()


@pytest.mark.parametrize("path", [kind() for kind in PATHS.values()], ids=list(PATHS))
@pytest.mark.parametrize("size", [(8, 8), (4, 6, 5)])
def test_losses_give_a_memorising_denoiser_away(path, size) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((24, 1, *size), generator=generator)

    def recalls(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The optimal denoiser of a data set of the first twelve images."""
        known = images[:12].flatten(1)
        distance = torch.cdist(x_t.flatten(1), path.alpha(t[0]) * known).square() / (2 * path.sigma(t[0]) ** 2)
        return (torch.softmax(-distance, dim=1) @ known).reshape(x_t.shape)

    losses = denoising_losses(recalls, path, images)
    assert membership_inference(losses[:12], losses[12:]).auc == 1
    alone = np.concatenate([denoising_losses(recalls, path, image[None]) for image in images])
    assert np.allclose(losses, alone, rtol=1e-4, atol=1e-9)  # the batch does not matter
    assert not np.allclose(losses, denoising_losses(recalls, path, images, seed=1), atol=1e-9)


def test_loss_by_hand() -> None:
    path = PATHS["flow"]()
    images = torch.full((2, 1, 4, 4), 0.5)
    loss = denoising_losses(lambda x_t, t: torch.zeros_like(x_t), path, images, ratios=[1.0], draws=1)
    assert loss == pytest.approx([0.25 / 0.5**2] * 2)  # the squared error of x0 over sigma^2, t = 1/2


def test_difficulty_by_hand() -> None:
    """A flat image is as hard as the noise that a filter leaves; class means predict an image of flat classes."""
    labels = torch.zeros(2, 16, 16, dtype=torch.int64)
    labels[:, 4:12, 4:12] = 1
    flat, drawn = torch.full((1, 1, 16, 16), 0.3), labels[:1, None].float() - 0.5
    hard = np.exp(difficulties(FLOW, torch.cat([flat, drawn]), labels))
    assert hard.shape == (2, 5)
    assert (np.diff(hard[0, :3]) < 0).all() and hard[0, 3] < hard[0, 0] / 20  # the wider, the less noise is left
    assert (
        hard[1, 3] > 10 * hard[1, 4]
    )  # the mean of an image knows nothing of its square, the means of its classes all
    assert hard[1, 4] == pytest.approx(hard[0, 4], rel=1)


@pytest.mark.parametrize("size", [(9, 8), (6, 7, 5)])
def test_difficulties_depend_on_the_image_alone(size: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn((6, 2, *size), generator=random), torch.randint(3, (6, *size), generator=random)
    together = difficulties(FLOW, images, labels)
    alone = [difficulties(FLOW, images[i : i + 1], labels[i : i + 1]) for i in range(6)]
    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


class Cohorts:
    """Smooth, noisy images of 12 training and 12 unseen patients, five each;

    `shift`: extra noise of unseen patients.
    """

    def __init__(self, seed: int, shift: float) -> None:
        rng = np.random.default_rng(seed)
        self.patients = np.repeat(np.arange(12), 5)
        sides = []
        for louder in (1.0, 1 + shift):
            smooth = gaussian_filter(rng.normal(size=(60, 1, 20, 20)), (0, 0, 2, 2))
            level = 0.1 * louder * np.exp(0.2 * rng.normal(size=12))[self.patients][:, None, None, None]
            sides.append(smooth / smooth.std() * 0.4 + level * rng.normal(size=smooth.shape))
        self.members, self.others = (torch.from_numpy(side.astype(np.float32)) for side in sides)

    def saw_neither(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The denoiser of all such images: a filter for this noise, other than those that measure difficulty."""
        ratio = float(FLOW.sigma(t[0]) / FLOW.alpha(t[0]))
        frequency = torch.cat([torch.fft.fftfreq(20)[:, None] ** 2 + torch.fft.fftfreq(20) ** 2])
        power = 2.5 * torch.exp(-frequency * (2 * np.pi * 2) ** 2) + 0.02
        gain = power / (power + ratio**2)
        return torch.fft.ifft2(torch.fft.fft2(x_t / FLOW.alpha(t[0])) * gain).real

    def remembers(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The mean of the filter's output and the nearest training image."""
        near = torch.cdist((x_t / FLOW.alpha(t[0])).flatten(1), self.members.flatten(1)).argmin(dim=1)
        return 0.5 * self.saw_neither(x_t, t) + 0.5 * self.members[near]

    def attack(self, model: str) -> MembershipAttack:
        denoise, labels = getattr(self, model), torch.zeros(60, 20, 20, dtype=torch.int64)
        losses = [denoising_losses(denoise, FLOW, images) for images in (self.members, self.others)]
        hard = [difficulties(FLOW, images, labels) for images in (self.members, self.others)]
        return membership_inference(losses[0], losses[1], self.patients, self.patients, difficulty=(hard[0], hard[1]))


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.2])
def test_a_model_that_saw_neither_is_not_flagged_and_one_that_remembers_is(shift: float) -> None:
    """At most 1 of 10: 2.5 % lie above a true interval. The loss alone mistakes a shift for memorisation."""
    wrong, missed, by_loss, areas = 0, 0, [], []
    for seed in range(10):
        cohorts = Cohorts(seed, shift)
        healthy, memory = cohorts.attack("saw_neither"), cohorts.attack("remembers")
        wrong += healthy.above_chance
        by_loss.append(healthy.uncalibrated_auc)
        missed += not memory.above_chance
        areas.append(healthy.auc)
    assert wrong <= 1 and missed == 0
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)
    if shift:
        assert abs(np.mean(by_loss) - 0.5) > 0.04
