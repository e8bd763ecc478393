"""Several processes train what one process trains, and end together."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_gan import Gaussian, Points, ToyGan

from anatogen.distributed import WHOLE, Shard, current_group
from anatogen.errors import GroupError, Interrupted, OutputError, SettingsError
from anatogen.files import locked
from anatogen.training.config import TrainingSettings, build_settings
from anatogen.training.fit import fit
from anatogen.workflows.train import TrainRequest
from anatogen.workflows.train import train as train_workflow
from processes import in_group

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forkserver")
SHORT = TrainingSettings(steps=20, batch_size=8, warmup_steps=5, checkpoint_every=4, precision="float32")


class Unlucky(Gaussian):
    """Sends a signal to the process with number `rank` before batch `number`, and leaves a file then."""

    def __init__(self, batch_size: int, rank: int, number: int, what: int, told: Path | None = None) -> None:
        super().__init__(batch_size)
        self.rank, self.number, self.what, self.told = rank, number, what, told

    def stream(self, start: int = 0, attempt: int = 0, shard: Shard = WHOLE) -> Generator[Points, None, None]:
        for number, batch in enumerate(super().stream(start, attempt, shard), start=start):
            if number == self.number and current_group().rank == self.rank:
                if self.told is not None:
                    self.told.touch()
                os.kill(os.getpid(), self.what)
            yield batch


def weights(task: ToyGan) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.average.weights.items()}


def trained(folder: Path, settings: TrainingSettings, data: Any = None, *, resume: bool = False) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    task = ToyGan()
    fit(task, data or Gaussian(settings.batch_size), settings, folder, resume=resume)
    return weights(task)


def resumed(folder: Path, settings: TrainingSettings) -> dict[str, Tensor]:
    return trained(folder, settings, resume=True)


def near(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("size", "batch"), [(2, 8), (3, 8), (3, 2)])
def test_any_number_of_processes_trains_the_same(tmp_path: Path, size: int, batch: int) -> None:
    settings = SHORT.model_copy(update={"batch_size": batch})
    alone = trained(tmp_path / "alone", settings)
    together = in_group(size, tmp_path, trained, tmp_path / "run", settings)
    assert not near(alone, weights(ToyGan()))  # so that what follows says something
    assert all(near(alone, one) for one in together)
    # Not only near: the replicas must not drift apart.
    assert all(torch.equal(one[name], together[0][name]) for one in together for name in one)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)


def test_a_killed_process_ends_the_others_and_the_training_goes_on(tmp_path: Path) -> None:
    unlucky = Unlucky(8, rank=1, number=10, what=signal.SIGKILL, told=tmp_path / "killed")
    found = in_group(3, tmp_path, trained, tmp_path / "run", SHORT, unlucky)
    ends = [(tmp_path / "results" / name).stat().st_mtime for name in ("0", "2")]
    assert max(ends) - (tmp_path / "killed").stat().st_mtime < 30
    assert found[1] is None
    assert all(isinstance(found[rank], GroupError) and "has ended" in str(found[rank]) for rank in (0, 2))
    # One process can resume what three began.
    assert near(trained(tmp_path / "run", SHORT, resume=True), trained(tmp_path / "whole", SHORT))


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path: Path) -> None:
    found = in_group(2, tmp_path, trained, tmp_path / "run", SHORT, Unlucky(8, rank=1, number=10, what=signal.SIGTERM))
    assert all(isinstance(one, Interrupted) and "after step 11" in str(one) for one in found)
    assert [one.told for one in found] == [False, True]  # said once
    (tmp_path / "again").mkdir()
    again = in_group(2, tmp_path / "again", resumed, tmp_path / "run", SHORT)
    whole = in_group(2, tmp_path / "run", trained, tmp_path / "whole", SHORT)
    assert all(torch.equal(again[0][name], whole[0][name]) for name in whole[0])


def test_what_is_not_finite_anywhere_is_skipped_everywhere(tmp_path: Path) -> None:
    faulty = Gaussian(8, faulty={3: 7})  # the last item: of the last process
    alone = trained(tmp_path / "alone", SHORT, faulty)
    assert all(near(alone, one) for one in in_group(3, tmp_path, trained, tmp_path / "run", SHORT, faulty))


def test_other_data_is_refused(tmp_path: Path) -> None:
    found = in_group(2, tmp_path, _with_its_own_recipe, tmp_path / "run")
    assert all(isinstance(one, SettingsError) and "process 1 has other settings" in str(one) for one in found)


def _with_its_own_recipe(folder: Path) -> None:
    fit(ToyGan(recipe=str(current_group().rank)), Gaussian(8), SHORT, folder)


REQUEST = build_settings(
    values=["network.width=8", "network.blocks=1", "training.batch_size=5", "training.steps=12", "sampling.steps=2",
            "training.warmup_steps=3", "training.checkpoint_every=5", "augment.noise=0.02", "live.dice=never"]
)  # fmt: skip


def test_a_run_of_two_processes(dataset_folder: Path, tmp_path: Path) -> None:
    alone = train_workflow(TrainRequest(dataset_folder, tmp_path / "alone", REQUEST, "cpu"))
    found = in_group(2, tmp_path, train_workflow, TrainRequest(dataset_folder, tmp_path / "run", REQUEST, "cpu"))
    assert found[0].steps == found[1].steps == alone.steps == 12
    assert found[0].images == alone.images == 60
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {path.name for path in (tmp_path / "alone").iterdir()}
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    from anatogen.io.tensors import read_tensors

    one, two = (read_tensors(tmp_path / name / "model.safetensors") for name in ("alone", "run"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_the_first_process_refuses_for_all(dataset_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    request = TrainRequest(dataset_folder, tmp_path / "run", REQUEST, "cpu")
    with locked(tmp_path / "run"):
        found = in_group(2, tmp_path, train_workflow, request)
    assert all(isinstance(one, OutputError) and "writing here" in str(one) for one in found)
    assert [one.told for one in found] == [False, True]


def test_one_process_needs_no_group() -> None:
    group = current_group()
    assert group.size == 1 and group.first(lambda: 3) == 3 and group.gather("a") == ["a"] and group.totals([2]) == [2]
