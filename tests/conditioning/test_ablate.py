import torch
from scipy import stats

from anatogen.conditioning.ablate import draw_given


def chance(generator: torch.Generator, samples: int, classes: int) -> torch.Tensor:
    return torch.rand(samples, classes + 1, generator=generator)


def counts(states: torch.Tensor) -> torch.Tensor:
    """How often each subset of given classes was drawn."""
    codes = (states.long() * (2 ** torch.arange(states.shape[1]))).sum(dim=1)
    return torch.bincount(codes, minlength=2 ** states.shape[1])


def test_all_subsets_are_equally_likely() -> None:
    """Algorithm 1: 2^(C-1) subsets, each as often as the others (chi-square test at 0.1 %)."""
    generator = torch.Generator().manual_seed(0)
    found = counts(draw_given(torch.ones(64_000, 4, dtype=torch.bool), chance(generator, 64_000, 4)))
    assert len(found) == 16
    assert stats.chisquare(found.numpy()).pvalue > 0.001


def test_each_sample_of_a_batch_is_drawn_for_itself() -> None:
    """The reference implementation draws once for the whole batch: then no batch of 64 would hold two subsets."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        assert (counts(draw_given(torch.ones(64, 2, dtype=torch.bool), chance(generator, 64, 2))) > 0).sum() > 1
    both = torch.ones(2, 1, dtype=torch.bool)
    pairs = torch.stack([draw_given(both, chance(generator, 2, 1))[:, 0] for _ in range(8000)])
    together = counts(pairs)
    assert stats.chisquare(together.numpy()).pvalue > 0.001  # two samples of one batch are independent


def test_share_left_whole() -> None:
    states = draw_given(
        torch.ones(40_000, 3, dtype=torch.bool), chance(torch.Generator().manual_seed(2), 40_000, 3), ablated_share=0.4
    )
    whole = states.all(dim=1).float().mean()
    assert abs(float(whole) - (0.6 + 0.4 / 8)) < 0.01


def test_what_was_not_annotated_is_never_given() -> None:
    annotated = torch.tensor([[True, False, True]]).expand(1000, 3)
    states = draw_given(annotated, chance(torch.Generator().manual_seed(3), 1000, 3), ablated_share=0.5)
    assert not states[:, 1].any()
    assert states[:, 0].any()
