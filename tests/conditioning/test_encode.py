import numpy as np
import pytest
import torch

from anatogen.conditioning.encode import Condition, Encoding, Planes, encode

LABELS = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [1, 1]]])


def test_onehot_tells_absent_from_free() -> None:
    states = torch.tensor([[True, True], [True, False]])
    planes = encode(Condition.of(LABELS, states), "onehot", 3)
    assert planes.shape == (2, Planes("onehot", 3).count, 2, 2)
    assert planes[0].tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    assert planes[1, 1].sum() == 0 and planes[1, 3].sum() == 0  # class 2: not drawn, and free
    absent = encode(Condition.of(LABELS[1:], torch.tensor([[True, True]])), "onehot", 3)
    assert not torch.equal(planes[1:], absent)


def test_a_free_class_leaves_no_trace() -> None:
    other = torch.where(LABELS == 2, 0, LABELS)
    states = torch.tensor([[True, False]]).expand(2, 2)
    for encoding in ("onehot", "index"):
        assert torch.equal(
            encode(Condition.of(LABELS, states), encoding, 3), encode(Condition.of(other, states), encoding, 3)
        )


def test_index_is_label_over_255() -> None:
    planes = encode(Condition.of(LABELS, torch.ones(2, 2, dtype=torch.bool)), "index", 3)
    assert torch.allclose(planes * 255, LABELS[:, None].float())


@pytest.mark.parametrize("encoding", ["onehot", "index", "none"])
def test_three_dimensions(encoding: str) -> None:
    labels = torch.randint(0, 5, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    planes = encode(Condition.of(labels, torch.ones(2, 4, dtype=torch.bool)), encoding, 5)  # type: ignore[arg-type]
    assert planes.shape == (2, Planes(encoding, 5).count, 3, 4, 5)  # type: ignore[arg-type]
    if encoding == "onehot":
        assert torch.equal(planes[:, :4].sum(1), (labels > 0).float())


def naive(labels: np.ndarray, given: np.ndarray, region: np.ndarray, encoding: str) -> np.ndarray:
    """The planes pixel by pixel, as the words of `Planes` say it."""
    classes = given.shape[2]
    planes = np.zeros((len(labels), {"onehot": 2 * classes, "index": 1}[encoding], *labels.shape[1:]), dtype=np.float32)
    for place in np.ndindex(*labels.shape):
        item, *pixel = place
        label, row = labels[place], given[item, region[place]]
        obeyed = label if label > 0 and row[label - 1] else 0
        if encoding == "index":
            planes[(item, 0, *pixel)] = np.float32(obeyed) / np.float32(255)
            continue
        if obeyed:
            planes[(item, obeyed - 1, *pixel)] = 1
        for c in range(classes):
            planes[(item, classes + c, *pixel)] = row[c]
    return planes


@pytest.mark.parametrize("encoding", ["onehot", "index"])
@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 4)])
def test_a_class_free_inside_a_box_and_given_outside(encoding: Encoding, shape: tuple[int, ...]) -> None:
    labels = torch.randint(0, 4, (2, *shape), generator=torch.Generator().manual_seed(0))
    region = torch.zeros(labels.shape, dtype=torch.uint8)
    region[:, 1:3, 2:4] = 1
    given = torch.tensor([[[True, True, False], [True, False, True]], [[True, True, True], [False, True, True]]])
    condition = Condition.of(labels, given, region)
    planes = encode(condition, encoding, 4)
    np.testing.assert_array_equal(planes, naive(labels.numpy(), given.numpy(), region.numpy(), encoding))
    inside = region[0] == 1
    assert not (condition.labels[0][inside] == 2).any() and (condition.labels[0][~inside] == 2).any()


def test_two_equal_rows_are_one() -> None:
    given = torch.tensor([[True, False], [True, True]])
    region = torch.randint(0, 2, LABELS.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    twice = Condition.of(LABELS, given[:, None].expand(2, 2, 2), region)
    assert torch.equal(encode(twice, "onehot", 3), encode(Condition.of(LABELS, given), "onehot", 3))


@pytest.mark.parametrize(
    ("states", "region"),
    [((2, 2), False), ((2, 2, 2), False), ((2, 1, 2), True), ((3, 1, 2), False)],
    ids=["no rows", "rows without region", "region without rows", "another batch"],
)
def test_parts_that_do_not_fit(states: tuple[int, ...], region: bool) -> None:
    where = torch.zeros(LABELS.shape, dtype=torch.uint8) if region else None
    with pytest.raises(ValueError, match="states|region"):
        Condition(LABELS, torch.ones(states, dtype=torch.bool), where)
