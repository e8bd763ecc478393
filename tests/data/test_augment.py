from itertools import islice

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from anatogen.data.augment import Augment, AugmentSettings
from anatogen.data.loader import Loader
from anatogen.data.store import Batch, PreparedDataset

MOVES = AugmentSettings(rotation_degrees=20, scale=0.15, shift=0.1)


def batch_of(size: tuple[int, ...], items: int = 6, channels: int = 2) -> Batch:
    """Images that are their label maps: two boxes, at values that the label's class gives.

    Channel 1 is channel 0 negated.
    """
    labels = torch.zeros(items, *size, dtype=torch.long)
    for i in range(items):
        labels[(i, *(slice(n // 4, n // 2 + i % 3) for n in size))] = 1
        labels[(i, *(slice(n // 2 + 3, n // 2 + 6) for n in size))] = 2
    image = (labels.float() * 0.4 - 0.4)[:, None]
    return Batch(torch.cat([image, -image][:channels], 1), labels, torch.ones(items, 2, dtype=torch.bool), ())


@pytest.mark.parametrize("size", [(32, 40), (16, 20, 24)])
def test_image_and_label_map_move_together(size: tuple[int, ...]) -> None:
    batch = batch_of(size)
    changed = Augment(MOVES)(batch, seed=3)
    assert changed.images.shape == batch.images.shape and changed.images.dtype == torch.float32
    assert changed.labels.shape == batch.labels.shape and changed.labels.dtype == torch.int64
    assert set(changed.labels.unique().tolist()) == {0, 1, 2}
    implied = changed.images[:, 0] / 0.4 + 1
    for i in range(len(batch.labels)):
        assert (changed.labels[i] != batch.labels[i]).float().mean() > 0.005
        label = changed.labels[i].numpy()
        footprint = np.ones((3,) * label.ndim)
        flat = ndimage.maximum_filter(label, footprint=footprint) == ndimage.minimum_filter(label, footprint=footprint)
        assert flat.mean() > 0.5
        assert np.abs(implied[i].numpy() - label)[flat].max() < 0.02  # off the edges they are the same picture
        assert np.abs(implied[i].numpy() - label).max() <= 2
    torch.testing.assert_close(changed.images[:, 1], -changed.images[:, 0])


@pytest.mark.parametrize("size", [(24, 24), (12, 12, 12)])
def test_images_are_interpolated_and_label_maps_are_not(size: tuple[int, ...]) -> None:
    batch = batch_of(size)
    changed = Augment(AugmentSettings(rotation_degrees=20))(batch, seed=0)
    assert len(changed.images[:, 0].unique()) > 30 and len(changed.labels.unique()) == 3


def test_a_shift_moves_by_at_most_its_share() -> None:
    batch = batch_of((40, 60))
    changed = Augment(AugmentSettings(shift=0.1))(batch, seed=1)
    moved = []
    for before, after in zip(batch.labels.numpy(), changed.labels.numpy(), strict=True):
        moved.append(np.subtract(ndimage.center_of_mass(after == 1), ndimage.center_of_mass(before == 1)))
    distances = np.abs(moved)
    assert (distances <= [4.01, 6.01]).all() and (distances.max(axis=0) > 1).all()
    assert np.ptp(moved, axis=0).min() > 1  # each item has its own draw


def test_all_off_is_the_batch_itself() -> None:
    batch = batch_of((16, 16))
    settings = AugmentSettings()
    assert not settings.flip_left_right and not settings.flip_up_down
    assert Augment(settings)(batch, 5) is batch


def test_flips_where_asked_for() -> None:
    batch = batch_of((16, 20), items=24)
    for name, axis in (("flip_left_right", -1), ("flip_up_down", -2)):
        changed = Augment(AugmentSettings(**{name: True}))(batch, 0)
        flipped = 0
        for i in range(24):
            mirrored = torch.equal(changed.labels[i], batch.labels[i].flip(axis))
            assert mirrored or torch.equal(changed.labels[i], batch.labels[i])
            wanted = batch.images[i].flip(axis) if mirrored else batch.images[i]
            torch.testing.assert_close(changed.images[i], wanted)
            flipped += mirrored
        assert 4 < flipped < 20


def test_a_flip_in_three_dimensions_mirrors_columns() -> None:
    batch = batch_of((8, 12, 20), items=12)
    changed = Augment(AugmentSettings(flip_left_right=True))(batch, 0)
    assert any(torch.equal(a, b.flip(-1)) for a, b in zip(changed.labels, batch.labels, strict=True))
    assert all(
        torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(changed.labels, batch.labels, strict=True)
    )


def test_intensities_change_and_label_maps_do_not() -> None:
    batch = batch_of((16, 16), channels=1)
    for settings in (AugmentSettings(gain=0.3), AugmentSettings(offset=0.3), AugmentSettings(noise=0.3)):
        changed = Augment(settings)(batch, 2)
        assert torch.equal(changed.labels, batch.labels)
        assert not torch.allclose(changed.images, batch.images)
        assert changed.images.min() >= -1 and changed.images.max() <= 1
    gained = Augment(AugmentSettings(gain=0.3))(batch, 2).images
    ratio = gained[:, 0][batch.labels == 2] / batch.images[:, 0][batch.labels == 2]
    assert ratio.min() >= 0.7 and ratio.max() <= 1.3 and ratio.std() > 0.01
    summand = (Augment(AugmentSettings(offset=0.3))(batch, 2).images - batch.images).flatten(1)
    assert (summand.std(dim=1) < 1e-6).all() and summand.abs().max() <= 0.3001


def test_the_seed_decides_and_global_state_does_not() -> None:
    batch, augment = batch_of((24, 24)), Augment(AugmentSettings(rotation_degrees=20, noise=0.1, gain=0.1))
    torch.manual_seed(0)
    first = augment(batch, 7)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # type: ignore[index]
    augment(batch, 8)
    again = augment(batch, 7)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, augment(batch, 8).images)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]


def test_the_batch_that_is_given_stays_as_it_is() -> None:
    batch = batch_of((16, 16))
    images, labels = batch.images.clone(), batch.labels.clone()
    Augment(AugmentSettings(rotation_degrees=20, gain=0.3, offset=0.3, noise=0.3, flip_left_right=True))(batch, 0)
    assert torch.equal(batch.images, images) and torch.equal(batch.labels, labels)


@pytest.mark.parametrize("wrong", [{"rotation_degrees": -1}, {"scale": 0.9}, {"noise": 2}, {"flips": True}])
def test_settings_are_validated(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**wrong)  # type: ignore[arg-type]


def test_a_resumed_stream_is_augmented_as_it_would_have_been(dataset: PreparedDataset) -> None:
    augment = Augment(AugmentSettings(rotation_degrees=10, noise=0.05))

    def images(start: int, count: int, seed: int = 0) -> list[torch.Tensor]:
        stream = Loader(dataset, dataset.split("train"), 3, seed, augment=augment).stream(start)
        made = [batch.images for batch in islice(stream, count)]
        stream.close()
        return made

    whole, resumed = images(0, 5), images(3, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    plain = Loader(dataset, dataset.split("train"), 3, 0)
    assert not torch.equal(whole[0], plain.batch(0).images)


def test_the_same_item_changes_anew_in_every_batch(dataset: PreparedDataset) -> None:
    row = dataset.split("train")[10]
    augment = Augment(AugmentSettings(gain=0.3))
    loader = Loader(dataset, [row], 1, 0, augment=augment)
    assert not torch.equal(loader.batch(0).images, loader.batch(1).images)
    twice = augment(dataset.load([row, row]), 0).images
    assert not torch.equal(twice[0], twice[1])
