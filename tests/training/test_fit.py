"""The training loop, with a system of two phases that has nothing in common with the denoiser."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_gan import MEAN, Gaussian, ToyGan

from anatogen.errors import DataError, Interrupted, OutputError, SettingsError
from anatogen.training import fit as fit_module
from anatogen.training.config import TrainingSettings
from anatogen.training.fit import fit, step_where_finite
from anatogen.training.hooks import Hook, Moment

SHORT = TrainingSettings(steps=20, batch_size=8, warmup_steps=5, checkpoint_every=4, precision="float32")


class Killed(BaseException):
    """An exception that no handler catches."""


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def kill_after(step: int) -> Callable[[float, str], None]:
    """A progress callback that simulates a kill after `step` steps."""
    calls = [-1]  # the first call is before the first step

    def progress(share: float, text: str) -> None:
        calls[0] += 1
        if calls[0] == step:
            raise Killed

    return progress


def trained(folder: Path, settings: TrainingSettings = SHORT, **more: Any) -> ToyGan:
    folder.mkdir(exist_ok=True)
    task = ToyGan()
    fit(task, more.pop("data", Gaussian(settings.batch_size)), settings, folder, **more)
    return task


def test_two_phases_learn(tmp_path: Path) -> None:
    task = trained(tmp_path, SHORT.model_copy(update={"steps": 300, "batch_size": 16}))
    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = ToyGan().model()(noise), task.model()(noise)
    assert abs(before.mean() - MEAN) > 1.5  # so that what follows says something
    assert abs(after.mean() - MEAN) < 0.5


@pytest.mark.parametrize("killed", [1, 7, 10, 13, 19])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path, killed: int) -> None:
    whole = trained(tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tmp_path / "broken", progress=kill_after(killed))
    resumed = trained(tmp_path / "broken", resume=True)
    assert same(whole.everything(), resumed.everything())
    assert json.loads((tmp_path / "broken" / "model.json").read_text())["steps"] == 20
    assert not (tmp_path / "broken" / "checkpoints").exists()  # nothing is left to resume


def test_what_is_resumed_is_not_the_start(tmp_path: Path) -> None:
    """A resume that starts over would pass the test above, so check where it starts."""
    data = Gaussian()
    with pytest.raises(Killed):
        trained(tmp_path, progress=kill_after(11), data=data)
    trained(tmp_path, resume=True, data=data)
    assert data.asked == [(0, 0), (8, 0)]


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_the_size_of_a_micro_batch_changes_rounding_only(tmp_path: Path, micro: int) -> None:
    whole, parts = (
        trained(tmp_path / "a"),
        trained(tmp_path / "b", SHORT.model_copy(update={"micro_batch_size": micro})),
    )
    for name, tensor in whole.everything().items():
        torch.testing.assert_close(parts.everything()[name], tensor, rtol=1e-3, atol=1e-5)
    again = SHORT.model_copy(update={"micro_batch_size": micro, "seed": 1})
    assert not torch.allclose(
        trained(tmp_path / "c", again).everything()["g.0.weight"], whole.everything()["g.0.weight"], atol=1e-3
    )


def test_draws_are_nobody_elses(tmp_path: Path) -> None:
    """Global random state and hooks that use it have no effect on a training, and the training leaves it unchanged."""
    whole = trained(tmp_path / "a")
    torch.manual_seed(1234)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    quiet = trained(tmp_path / "b")
    assert torch.equal(state, torch.get_rng_state()) and np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]
    noisy = trained(tmp_path / "c", hooks=[Hook("noise", 1, lambda moment: {"noise": torch.randn(1).item()})])
    assert same(whole.everything(), quiet.everything()) and same(whole.everything(), noisy.everything())


def best_so_far(moment: Moment) -> dict[str, float]:
    """A hook with a memory: a score that only it knows, a tensor and a list."""
    memory = moment.memory
    with torch.no_grad():
        score = -abs(moment.model()(torch.zeros(1, 1)).item() - MEAN)
    memory["best"] = max(score, memory.get("best", -math.inf))
    memory["seen"] = [*memory.get("seen", []), moment.step]
    memory["sum"] = memory.get("sum", torch.zeros(())) + score
    return {"score": score}


def test_a_hook_is_called_measured_and_resumed(tmp_path: Path) -> None:
    whole, broken, resumed = (Hook("best", 3, best_so_far) for _ in range(3))
    trained(tmp_path / "a", hooks=[whole])
    with pytest.raises(Killed):
        trained(tmp_path / "b", hooks=[broken], progress=kill_after(11))
    trained(tmp_path / "b", hooks=[resumed], resume=True)
    assert whole.memory["seen"] == resumed.memory["seen"] == [3, 6, 9, 12, 15, 18]
    assert whole.memory["best"] == resumed.memory["best"] and torch.equal(whole.memory["sum"], resumed.memory["sum"])
    scores = {}
    for name in "ab":
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        scores[name] = [(line["step"], line["score"]) for line in lines if "score" in line]
    assert scores["a"] == scores["b"] and len(scores["a"]) == 6  # no line is there twice


def test_a_hook_can_end_a_training(tmp_path: Path) -> None:
    hook = Hook("patience", 2, lambda moment: "stop" if moment.step >= 6 else None)
    assert json.loads((tmp_path / "model.json").read_text())["steps"] == 6 if trained(tmp_path, hooks=[hook]) else False
    with pytest.raises(SettingsError, match="every >= 1, got"):
        Hook("never", 0, best_so_far)


def test_another_list_of_hooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, hooks=[Hook("best", 3, best_so_far)], progress=kill_after(9))
    from anatogen.errors import ModelError

    with pytest.raises(ModelError, match="does not hold the parts of this training .*hook/best"):
        trained(tmp_path, resume=True)


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_that_is_not_finite_moves_nothing(fused: bool) -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
    for number, gradient in enumerate((1.0, math.nan, math.inf, 1.0)):
        before = [p.detach().clone() for p in module.parameters()]
        for p in module.parameters():
            p.grad = torch.full_like(p, gradient)
        norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        skipped = step_where_finite(optimizer, norm)
        assert bool(skipped) == (number in (1, 2))
        moved = [not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True)]
        assert all(moved) if number in (0, 3) else not any(moved)
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}
    assert all(torch.isfinite(m).all() for state in optimizer.state.values() for m in state.values())


def test_a_bad_item_is_skipped_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, task = Gaussian(faulty={4: 3, 5: 0}), ToyGan()
    state = fit(task, data, SHORT, tmp_path)
    assert state.skipped == 2 and state.step == 20 and state.attempt == 0
    assert all(torch.isfinite(t).all() for t in task.everything().values())
    assert "skipped step 4, 5" in caplog.text and "the loss was not finite for the faulty point" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines) and lines


def test_many_in_a_row_go_back_to_the_checkpoint_with_other_draws_and_half_the_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SHORT.model_copy(update={"most_skipped": 5, "steps": 40, "schedule": "constant"})
    data, rates = Gaussian(faulty=dict.fromkeys(range(22, 40), 1)), []
    hook = Hook("rate", 1, lambda moment: rates.append(task.phases[0].optimizer.param_groups[0]["lr"]))
    task = ToyGan()
    state = fit(task, data, settings, tmp_path, hooks=[hook])
    assert data.asked == [(0, 0), (28, 1)]  # a checkpoint of steps that were skipped holds what was before them
    assert (state.step, state.attempt, state.rate_scale) == (40, 1, 0.5)
    assert rates[10] == 1e-2 and rates[-1] == 0.5e-2
    assert "returning to step 28 with other random numbers and 0.5 of the learning rate" in caplog.text


def test_a_loss_that_stays_not_finite_ends_with_a_reason(tmp_path: Path) -> None:
    settings = SHORT.model_copy(update={"most_skipped": 5, "checkpoint_every": 100})
    with pytest.raises(
        DataError, match="not finite in 10 consecutive steps up to step 10, with the faulty point in the batch"
    ):
        fit(ToyGan(), Gaussian(faulty=dict.fromkeys(range(20), 2)), settings, tmp_path)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_signals_save_and_end_between_two_steps(tmp_path: Path, name: str) -> None:
    calls = [0]

    def press(share: float, text: str) -> None:
        calls[0] += 1
        if calls[0] == 8:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(
        Interrupted, match=r"after step 7; the current model is saved as model\.safetensors and its state in"
    ):
        trained(tmp_path, progress=press)
    assert signal.getsignal(getattr(signal, name)) is before
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir())[-1] == "000000007.safetensors"
    assert same(trained(tmp_path, resume=True).everything(), trained(tmp_path / "whole").everything())


def test_whoever_watches_can_cancel(tmp_path: Path) -> None:
    def cancel(share: float, text: str) -> None:
        if share >= 0.5:
            raise Interrupted("training was stopped")

    with pytest.raises(Interrupted, match="after step 10; the current model is saved"):
        trained(tmp_path, progress=cancel)
    assert same(trained(tmp_path, resume=True).everything(), trained(tmp_path / "whole").everything())


def test_a_full_disk_does_not_end_a_training_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object, step: int) -> None:
        raise OutputError("cannot be written (No space left on device)")

    monkeypatch.setattr(fit_module.Checkpoints, "save", full)
    task = trained(tmp_path / "a")
    assert "the checkpoint of step 4 was not saved: cannot be written (No space left on device)" in caplog.text
    monkeypatch.undo()
    assert same(task.everything(), trained(tmp_path / "b").everything())


def test_a_disk_that_is_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No file grows from step 6 to 14: checkpoints and lines of that time are missing, and nothing is damaged."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("anatogen.training.monitor.MetricsLog.__init__.__kwdefaults__", {"every": 0.0, "after": 0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    calls = iter(range(1000))

    def progress(share: float, text: str) -> None:
        step = next(calls)
        if step == 6:
            used = (tmp_path / "run" / "metrics.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (used + 10, limits[1]))
        if step == 14:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    try:
        task = trained(tmp_path / "run", progress=progress)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the checkpoint of step 8 was not saved" in caplog.text
    assert caplog.text.count("the metrics are not written for now") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 7), *range(15, 21)]
    assert same(task.everything(), trained(tmp_path / "whole").everything())


def test_an_error_in_between_keeps_what_was_learnt(tmp_path: Path) -> None:
    def fail(moment: Moment) -> None:
        raise OSError("the data set is gone")

    with pytest.raises(OSError, match="gone"):
        trained(tmp_path, SHORT.model_copy(update={"checkpoint_every": "1h"}), hooks=[Hook("h", 7, fail)])
    resumed = trained(tmp_path, resume=True, hooks=[Hook("h", 100, fail)])
    assert same(resumed.everything(), trained(tmp_path / "whole").everything())


def test_out_of_memory_names_the_setting_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(self: ToyGan, *_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ToyGan, "loss", loss)
    with pytest.raises(SettingsError, match=r"a micro-batch of 8 images does not fit .* training\.micro_batch_size=4"):
        trained(tmp_path)


def test_nothing_is_read_from_the_device_in_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.item()` waits for a GPU: there is none between two log lines or two reads of skipped steps."""
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, original=original: (reads.append(1), original(self))[1])
    with pytest.raises(Killed):
        trained(tmp_path, SHORT.model_copy(update={"checkpoint_every": 1000}), progress=kill_after(9))
    assert not reads
