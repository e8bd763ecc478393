from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from anatogen.seeds import Draws, derive_seed, evenly_spread


def test_an_items_numbers_do_not_depend_on_its_batch() -> None:
    together, alone = Draws([5, 6, 7]), Draws([6])
    for draw in (lambda d: d.normal(1, 8, 8), lambda d: d.uniform(), lambda d: d.normal(), lambda d: d.uniform(3)):
        assert torch.equal(draw(together)[1:2], draw(alone))


def test_shapes_ranges_and_that_the_seed_decides() -> None:
    draws = Draws(range(4))
    assert draws.normal().shape == (4,) and draws.uniform(2, 3).shape == (4, 2, 3)
    u = draws.uniform(1000)
    assert u.min() >= 0 and u.max() < 1 and len(u.unique()) > 3900
    state = torch.get_rng_state()
    assert torch.equal(Draws([1, 2]).normal(5), Draws([1, 2]).normal(5))
    assert not torch.equal(Draws([1, 2]).normal(5), Draws([2, 1]).normal(5))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_numbers_of_many_items_are_distributed_as_they_should(kind: str) -> None:
    """The first number of each of 4000 derived seeds: seeds side by side must not give numbers side by side."""
    draws = Draws([derive_seed(0, 0, step, position, "denoiser") for step in range(250) for position in range(16)])
    numbers = getattr(draws, kind)()
    law = stats.norm if kind == "normal" else stats.uniform
    assert stats.kstest(numbers.numpy(), law.cdf).pvalue > 0.001
    assert abs(torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]) < 0.06


def test_seeds() -> None:
    assert derive_seed("a", 1) == derive_seed("a", 1) != derive_seed("a", 2)
    assert all(0 <= derive_seed(i) < 2**63 for i in range(100)) and derive_seed("a", "b") != derive_seed("ab")


def test_evenly_spread_numbers_fill_any_run_of_steps() -> None:
    """The largest gap of any 16 in a row is a sixth at most; of independent draws it is often more than a third."""
    for first in (0, 1, 1000, 123_456_789):
        points = sorted(evenly_spread(number, derive_seed(3, "even")) for number in range(first, first + 16))
        gaps = [b - a for a, b in itertools.pairwise([*points, points[0] + 1])]
        assert points[0] >= 0 and points[-1] < 1 and max(gaps) < 1 / 6
    assert evenly_spread(5, 1) != evenly_spread(5, 2)


def test_draws_have_even_numbers_of_their_own() -> None:
    assert Draws([1, 2], even=[0.25, 0.75]).even().tolist() == [0.25, 0.75]
    assert len(set(Draws(range(8)).even().tolist())) == 8
