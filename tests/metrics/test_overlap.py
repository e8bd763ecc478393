import numpy as np
import pytest
import torch

from anatogen.judges.segmenter import SegmenterSettings, train_segmenter
from anatogen.metrics.overlap import dice_by_group
from anatogen.metrics.texture import power_ratio, radial_power


def test_dice_by_hand() -> None:
    truth = np.array([[[1, 1], [2, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 2]]])
    found = np.array([[[1, 0], [2, 2]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]])
    by_patient = dice_by_group(found, truth, np.array(["a", "a", "b"]), 3)
    assert by_patient[0] == pytest.approx([2 * 2 / (3 + 2), 2 * 1 / (1 + 2)])
    assert np.isnan(by_patient[1, 0]) and by_patient[1, 1] == 0  # class 1 is nowhere in b, class 2 was missed
    counted = np.array([[True, False], [True, True], [True, True]])
    assert np.isnan(dice_by_group(found, truth, np.array(["a", "a", "b"]), 3, counted)[0, 1])


def test_dice_agrees_with_monai() -> None:
    from monai.metrics import compute_dice

    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, (2, 6, 12, 12))
    onehot = [torch.nn.functional.one_hot(torch.from_numpy(m), 4).movedim(-1, 1) for m in (found, truth)]
    theirs = compute_dice(onehot[0], onehot[1], include_background=False).numpy()
    assert np.allclose(dice_by_group(found, truth, np.arange(6), 4), theirs, atol=1e-6)


def test_power_of_known_images() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 1, 64, 64)).astype(np.float32)
    assert np.allclose(power_ratio(2 * noise, noise), 4)
    flat = radial_power(noise)
    assert flat.max() / flat.min() < 1.15  # white noise has no preferred frequency
    wave = np.sin(2 * np.pi * np.arange(64) * 12 / 64)[None, None, None, :].repeat(64, axis=2)
    assert radial_power(wave).argmax() == 6  # 12 of 32 cycles, in 16 bands


def test_segmenter_learns_and_is_kept(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        labels = np.zeros((count, 32, 32), dtype=np.int64)
        for i in range(count):
            y, x = rng.integers(4, 20, 2)
            labels[i, y : y + 8, x : x + 8] = rng.integers(1, 3)
        images = (labels - 1 + rng.normal(0, 0.1, labels.shape)).astype(np.float32)[:, None]
        return torch.from_numpy(images), torch.from_numpy(labels), torch.ones(count, 2, dtype=torch.bool)

    train, val, test = part(40), part(10), part(20)
    settings = SegmenterSettings(steps=120, batch_size=8, validations=3)
    segmenter = train_segmenter(train, val, 3, settings, cache=tmp_path)
    found = segmenter(test[0])
    assert (
        np.nanmean(dice_by_group(found, test[1].numpy(), np.zeros(20), 3)) > 0.7
    )  # 0.88 to 0.95 over seeds; nothing learnt is 0.1
    steps: list[int] = []
    again = train_segmenter(train, val, 3, settings, cache=tmp_path, progress=lambda i, n, text: steps.append(i))
    assert not steps and np.array_equal(again(test[0]), found)
    other = train_segmenter(val, val, 3, SegmenterSettings(steps=2), cache=tmp_path)
    assert not np.array_equal(other(test[0]), found)
