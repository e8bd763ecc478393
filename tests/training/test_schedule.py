"""How long a training lasts and what its rate is."""

from __future__ import annotations

import itertools

import pytest
import torch

from anatogen.errors import SettingsError
from anatogen.training.config import TrainingSettings
from anatogen.training.pace import Pace
from anatogen.training.schedule import Length, rate_factor
from anatogen.training.state import MovingAverage, TrainingState


def test_the_first_of_steps_and_epochs_counts() -> None:
    assert Length(TrainingSettings(steps=100), 50, 16).share(25) == 0.25
    assert Length(TrainingSettings(steps=None, epochs=2), 50, 16).end == 7
    assert Length(TrainingSettings(steps=5, epochs=2), 50, 16).end == 5
    assert (
        Length(TrainingSettings(steps=100), 50, 16).share(100) == Length(TrainingSettings(steps=3), 9, 9).share(4) == 1
    )
    with pytest.raises(SettingsError, match="no training length given"):
        Length(TrainingSettings(steps=None), 50, 16)


def test_schedules() -> None:
    decay = TrainingSettings(warmup_steps=10, decay_share=0.5)
    assert [rate_factor(decay, *at) for at in ((0, 0), (9, 0.1), (100, 0.5), (100, 0.75))] == [0.1, 1, 1, 0.5]
    cosine = TrainingSettings(warmup_steps=0, schedule="cosine")
    assert rate_factor(cosine, 5, 0.5) == pytest.approx(0.5)
    assert rate_factor(TrainingSettings(warmup_steps=0, schedule="constant"), 5, 0.99) == 1


class Machine:
    """A clock and a training whose steps take `seconds`; `kill` and resume work like `fit`."""

    def __init__(self, settings: TrainingSettings, seconds_of: object) -> None:
        self.now, self.settings, self.seconds_of = 1000.0, settings, seconds_of
        self.shares: list[float] = []
        self.kept: tuple[dict[str, object], dict[str, object]] | None = None

    def run(self, *, until: int = 10**9) -> TrainingState:
        state, length = TrainingState(), Length(self.settings, 100, 10)
        if self.kept is not None:
            state.load_state_dict(self.kept[0])
            length.load_state_dict(self.kept[1])
        pace = Pace(self.settings, state, lambda: self.now)
        self.shares = self.shares[: state.step]
        while (share := length.share(state.step)) < 1 and state.step < until:
            self.shares.append(share)
            self.now += self.seconds_of(state.step)  # type: ignore[operator]
            state.step += 1
            state.seconds = pace.seconds()
            if pace.due(length):
                length.plan(state.step, state.seconds, pace.seconds_per_step())
                self.kept = (state.state_dict(), length.state_dict())
                pace.saved(length)
        return state


LIMITED = TrainingSettings(steps=None, max_time_s=600)


@pytest.mark.parametrize(
    "seconds_of",
    [lambda step: 0.5, lambda step: 0.5 if step < 900 else 2.0, lambda step: 3.0 if step < 50 else 0.2],
    ids=["steady", "becomes slow", "becomes fast"],
)
def test_a_time_limit_is_met_and_the_rate_never_jumps(seconds_of: object) -> None:
    machine = Machine(LIMITED, seconds_of)
    state = machine.run()
    assert state.seconds == pytest.approx(600, rel=0.02)
    assert all(a <= b for a, b in itertools.pairwise(machine.shares))
    # The decay is gone through: no step leaves out more of it than the plan before the last look allows.
    late = [share for share in machine.shares if share > 0.7]
    assert len(late) > 20 and late[-1] > 0.98
    assert max(b - a for a, b in itertools.pairwise(late)) < 0.05


def test_a_resume_repeats_the_rate_from_checkpoint_to_checkpoint_and_waiting_does_not_count() -> None:
    whole = Machine(LIMITED, lambda step: 0.5)
    whole.run()
    broken = Machine(LIMITED, lambda step: 0.5)
    broken.run(until=700)  # killed: its last checkpoint is older
    lost = broken.shares[:]
    assert broken.kept is not None and (begun := int(broken.kept[0]["step"])) < 700  # type: ignore[call-overload]
    broken.now += 86_400  # a day in the queue
    state = broken.run()
    assert broken.shares[begun:700] == lost[begun:700] == whole.shares[begun:700]
    assert state.seconds == pytest.approx(600, rel=0.02)


def test_time_and_steps_together_end_by_the_first() -> None:
    assert Machine(TrainingSettings(steps=100, max_time_s=600), lambda step: 0.5).run().step == 100
    assert Machine(TrainingSettings(steps=10_000, max_time_s=600), lambda step: 0.5).run().seconds == pytest.approx(
        600, rel=0.02
    )
    both = Machine(TrainingSettings(steps=100, max_time_s=600), lambda step: 0.5)
    both.run()
    assert both.shares == [step / 100 for step in range(100)]  # reading the clock changes nothing


def test_checkpoints_come_by_steps_or_by_the_clock() -> None:
    for every, expected in ((7, [7, 14, 21, 28]), ("10s", [10, 20, 30])):
        state, length, now = TrainingState(), Length(TrainingSettings(steps=32), 100, 10), [0.0]
        pace = Pace(TrainingSettings(steps=32, checkpoint_every=every), state, lambda now=now: now[0])  # type: ignore[misc]
        due = []
        while length.share(state.step) < 1:
            state.step, now[0] = state.step + 1, now[0] + 1
            state.seconds = pace.seconds()
            if pace.due(length):
                due.append(state.step)
                pace.saved(length)
        assert due == expected


def test_slow_checkpoints_take_at_most_a_twentieth_of_the_time() -> None:
    state, length, now, saving = TrainingState(), Length(TrainingSettings(steps=10_000), 100, 10), [0.0], 0.0
    pace = Pace(TrainingSettings(steps=10_000, checkpoint_every="5s"), state, lambda: now[0])
    while length.share(state.step) < 1:
        state.step, now[0] = state.step + 1, now[0] + 1
        state.seconds = pace.seconds()
        if pace.due(length):
            now[0] += 30
            saving += 30
            pace.saved(length)
    assert 0 < saving < 0.055 * now[0]


def test_moving_average_is_the_weighted_mean() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = MovingAverage(module, decay=0.15)
    torch.nn.init.ones_(module.weight)
    average.update(module)  # decay min(0.15, 1/10)
    assert average.weights["weight"].item() == pytest.approx(0.9)
    average.update(module)  # decay min(0.15, 2/11)
    assert average.weights["weight"].item() == pytest.approx(1 - 0.1 * 0.15)
