"""Voxels whose class is unknown are left out of every loss and every metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kinds
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.loss import denoising_loss, mean_over_known
from anatogen.diffusion.path import PATHS
from anatogen.evaluation.sections.utility import real_parts
from anatogen.judges import encoder, segmenter
from anatogen.judges.denoising_loss import denoising_losses
from anatogen.judges.utility import Parts, dice_of_patients
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.surface import hd95_by_group


@pytest.fixture(scope="module")
def ignoring(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("ignoring")
    shares = {"train": 2.0, "heldout": 2.0, "val": 1.0, "test": 1.0}
    settings = PrepareSettings((32, 32), shares=shares, workers=1, keep_names=True)
    return prepare(open_source(str(kinds.regions_ignore(folder / "raw"))), folder / "data", settings)


def test_truth_is_minus_one_where_nothing_is_known(ignoring: PreparedDataset) -> None:
    batch = ignoring.load([row for row in ignoring.rows if row.case == "c5"])
    assert batch.ignored is not None
    assert bool((batch.truth[batch.ignored] == -1).all()) and bool((batch.truth[~batch.ignored] >= 0).all())
    split = next(row.split for row in ignoring.rows if row.case == "c5")
    assert int((real_parts(ignoring, split).labels == -1).sum()) >= int(batch.ignored.sum())


# ---- losses: what lies under the mask changes nothing, what lies beside it does


def unknown_corner(labels: torch.Tensor) -> torch.Tensor:
    labels = labels.clone()
    labels[:, :4, :4] = -1
    return labels


def test_the_mean_over_known_pixels() -> None:
    error = torch.tensor([[[[1.0, 2], [3, 100]]], [[[5.0, 5], [5, 5]]]])
    ignored = torch.tensor([[[False, False], [False, True]], [[True, True], [True, True]]])
    assert mean_over_known(error, ignored).tolist() == [2.0, 0.0]
    assert mean_over_known(error, None).tolist() == mean_over_known(error, torch.zeros_like(ignored)).tolist()
    volume = torch.ones(2, 3, 4, 4, 4)
    assert mean_over_known(volume, torch.zeros(2, 4, 4, 4, dtype=torch.bool)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("which", ["training", "membership"])
def test_a_denoiser_is_not_judged_on_unknown_pixels(which: str) -> None:
    path = PATHS["flow"]()
    image = torch.rand(2, 1, 8, 8) * 2 - 1
    ignored = torch.zeros(2, 8, 8, dtype=torch.bool)
    ignored[:, :3] = True

    def loss(wrong_at: slice) -> torch.Tensor:
        def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            guess = image.clone()
            guess[:, :, wrong_at] += 1
            return guess

        if which == "membership":
            return torch.from_numpy(denoising_losses(denoise, path, image, ignored=ignored))
        t = torch.full((2,), 0.5)
        return denoising_loss(denoise, path, image, torch.zeros_like(image), t, weighting="x0", ignored=ignored)

    assert float(loss(slice(0, 3)).max()) == 0 and float(loss(slice(3, 8)).min()) > 0


def test_the_segmenters_loss_does_not_see_unknown_pixels() -> None:
    labels = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    annotated = torch.ones(2, 2, dtype=torch.bool)
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    changed = logits.clone()
    changed[:, :, :4, :4] += torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    a, b = (segmenter._loss(x, unknown_corner(labels), annotated) for x in (logits, changed))
    assert a == pytest.approx(float(b), abs=1e-7)
    a, b = (segmenter._loss(x, labels, annotated) for x in (logits, changed))
    assert abs(float(a) - float(b)) > 1e-3
    nothing = segmenter._loss(logits.requires_grad_(), torch.full_like(labels, -1), annotated)
    nothing.backward()  # type: ignore[no-untyped-call]
    assert float(nothing.detach()) == 0


def test_the_encoders_loss_does_not_take_unknown_for_background() -> None:
    labels = torch.ones(1, 16, 16, dtype=torch.long)
    labels[:, :4, :4] = -1
    annotated, amounts = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 2)
    answers = torch.zeros(1, 2 + 1 + 16)
    answers[:, 2], answers[:, 3:] = 20, 1  # the class is there, and fills every cell
    right = encoder._loss(answers, labels, annotated, amounts)
    background = encoder._loss(answers, labels.clamp(min=0), annotated, amounts)
    assert float(right) == pytest.approx(0, abs=1e-6) and float(background) > 0.1
    answers[:, 3] = -5  # the cell of which nothing is known
    assert float(encoder._loss(answers, labels, annotated, amounts)) == pytest.approx(0, abs=1e-6)
    unseen = torch.zeros_like(labels)
    unseen[:, :8] = -1
    answers[:, 3:] = 0
    assert float(encoder._loss(answers, unseen, annotated, amounts)) == pytest.approx(0, abs=1e-6)  # it may be there


# ---- metrics


def test_overlap_and_surfaces_of_known_voxels_alone() -> None:
    truth, found = np.zeros((1, 32, 32), np.int64), np.zeros((1, 32, 32), np.int64)
    truth[0, 8:24, 8:24], found[0, 8:24, 8:24] = 1, 1
    found[0, 20:30, 8:24] = 1  # wrong, but only where nothing is known
    unknown = truth.copy()
    unknown[0, 20:] = -1
    clean = confusion_counts(found, unknown, 2)
    assert clean.dice_by(np.zeros(1))[0, 0] == 1 and clean.hd95[0, 0] == 0
    assert (
        clean.near[0, 0] == clean.surface[0, 0] and confusion_counts(found, truth, 2).dice_by(np.zeros(1))[0, 0] < 0.9
    )
    found[0, 4:8, 8:24] = 1  # wrong where it is known
    assert confusion_counts(found, unknown, 2).dice_by(np.zeros(1))[0, 0] == pytest.approx(2 * 192 / (192 + 256))
    # the known part of both outlines: the cut along the unknown region is nobody's surface
    assert hd95_by_group(found, unknown, np.zeros(1), 2, 1.0)[0, 0] == pytest.approx(4)


def test_everything_unknown_is_not_defined() -> None:
    maps = np.ones((2, 8, 8), np.int64)
    of_nothing = confusion_counts(maps, np.full_like(maps, -1), 2)
    assert np.isnan(of_nothing.dice_by(np.zeros(2))).all() and np.isnan(of_nothing.hd95).all()


def test_a_tally_without_unknown_voxels_is_what_it_was() -> None:
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, 3, (2, 12, 12)) for _ in range(2))
    a = confusion_counts(found, truth, 3)
    far = truth.copy()
    far[:, 0, 0] = -1
    assert a.truth.sum() == (truth > 0).sum() and confusion_counts(found, far, 3).truth.sum() == (far > 0).sum()


def test_utility_leaves_unknown_voxels_out() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, 4:12, 4:12] = 1
    labels[:, 12:] = -1
    parts = Parts(torch.zeros(1, 1, 16, 16), labels, torch.ones(1, 1, dtype=torch.bool), np.array(["p"]))
    found = labels.clamp(min=0).numpy()
    found[:, 12:] = 1
    assert dice_of_patients(found, parts, 2)[0, 0] == 1
