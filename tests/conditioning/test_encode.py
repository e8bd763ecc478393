import pytest
import torch

from anatogen.conditioning.encode import Condition, encode, plane_count

LABELS = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [1, 1]]])


def test_onehot_tells_absent_from_free() -> None:
    states = torch.tensor([[True, True], [True, False]])
    planes = encode(Condition(LABELS, states), "onehot", 3)
    assert planes.shape == (2, plane_count("onehot", 3), 2, 2)
    assert planes[0].tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]], [[1, 1], [1, 1]]]
    assert planes[1, 1].sum() == 0 and planes[1, 3].sum() == 0  # class 2: not drawn, and free
    absent = encode(Condition(LABELS[1:], torch.tensor([[True, True]])), "onehot", 3)
    assert not torch.equal(planes[1:], absent)


def test_a_free_class_leaves_no_trace() -> None:
    other = torch.where(LABELS == 2, 0, LABELS)
    states = torch.tensor([[True, False]]).expand(2, 2)
    for encoding in ("onehot", "index"):
        assert torch.equal(
            encode(Condition(LABELS, states), encoding, 3), encode(Condition(other, states), encoding, 3)
        )


def test_index_is_label_over_255() -> None:
    planes = encode(Condition(LABELS, torch.ones(2, 2, dtype=torch.bool)), "index", 3)
    assert torch.allclose(planes * 255, LABELS[:, None].float())


@pytest.mark.parametrize("encoding", ["onehot", "index", "none"])
def test_three_dimensions(encoding: str) -> None:
    labels = torch.randint(0, 5, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    planes = encode(Condition(labels, torch.ones(2, 4, dtype=torch.bool)), encoding, 5)  # type: ignore[arg-type]
    assert planes.shape == (2, plane_count(encoding, 5), 3, 4, 5)  # type: ignore[arg-type]
    if encoding == "onehot":
        assert torch.equal(planes[:, :4].sum(1), (labels > 0).float())
