"""A training that is stopped, killed or refused: what stays, what is said, and that it goes on bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anatogen.data.store import PreparedDataset
from anatogen.errors import Interrupted, ModelError, OutputError, SettingsError
from anatogen.files import locked
from anatogen.model import load_denoiser, read_about
from anatogen.training.checkpoints import checkpoint_files
from anatogen.training.config import RunSettings, TrainingSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.hooks import Hook, Moment
from anatogen.training.train import train

# Steps 10 and 12 lie in the middle of an epoch.
VALUES = ("network.width=8", "network.blocks=1", "training.batch_size=5", "training.steps=20", "training.warmup_steps=3", "sampling.steps=3",
          "training.checkpoint_every=5", "augment.rotation_degrees=5", "augment.noise=0.02")  # fmt: skip
SETTINGS = build_settings(values=VALUES)


class Killed(BaseException):
    pass


def kill_after(step: int) -> Callable[[float, str], None]:
    calls = [-1]

    def progress(share: float, text: str) -> None:
        calls[0] += 1
        if calls[0] == step:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def whole(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training."""
    return train(dataset_folder, tmp_path_factory.mktemp("whole") / "run", SETTINGS, device="cpu")


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def broken(dataset: PreparedDataset, out: Path, step: int = 12) -> Path:
    with pytest.raises(Killed):
        train(dataset, out, SETTINGS, device="cpu", progress=kill_after(step))
    return out


def command(dataset: Path, out: Path, *more: str) -> list[str]:
    sets = [text for value in VALUES for text in ("--set", value)]
    return [sys.executable, "-m", "anatogen", "train", str(dataset), "--out", str(out), *sets, "--device", "cpu", *more]


def test_the_test_stops_in_the_middle_of_an_epoch(dataset: PreparedDataset) -> None:
    images = len(dataset.split("train"))
    assert 12 * 5 % images and 10 * 5 % images and images < 20 * 5


@pytest.mark.parametrize("step", [3, 12])
def test_killed_and_resumed_is_bit_for_bit_the_same(
    dataset: PreparedDataset, tmp_path: Path, whole: Path, step: int
) -> None:
    out = broken(dataset, tmp_path / "run", step)
    train(dataset, out, SETTINGS if step < 5 else None, device="cpu", resume=True)  # nothing was saved before step 5
    assert weights(out) == weights(whole)
    about, reference = read_about(out), read_about(whole)
    assert about.model_copy(update={"seconds": 0}) == reference.model_copy(update={"seconds": 0})
    assert about.finished and about.steps == 20 and about.images == 100


@pytest.mark.slow
def test_ten_steps_kill_9_ten_steps(
    dataset_folder: Path, dataset: PreparedDataset, tmp_path: Path, whole: Path
) -> None:
    """SIGKILL at ten moments, in steps and between the file operations of a save, in a process each."""
    script = """
import os, signal, sys
from pathlib import Path
import monai.transforms, tensorboardX, torch._dynamo  # once, not in every child
import torch
torch.set_num_threads(1)
sys.path[:0] = [sys.argv[3]]
from anatogen.training import fit as fit_module
from anatogen.training.checkpoints import Checkpoints
from anatogen.training.train import train
from test_resume import SETTINGS

def killed(number):  # which step or which file operation it dies at
    seen = {"step": -1, "operation": 0}
    def progress(share, text):
        seen["step"] += 1
        if number < 4 and seen["step"] == (1, 6, 10, 19)[number]:
            os.kill(os.getpid(), signal.SIGKILL)
    def before(operation):
        seen["operation"] += 1
        if number >= 4 and seen["operation"] == (2, 4, 5, 10, 13, 27)[number - 4]:
            os.kill(os.getpid(), signal.SIGKILL)
    class Mortal(Checkpoints):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more, before=before)
    fit_module.Checkpoints = Mortal
    train(sys.argv[1], Path(sys.argv[2]) / str(number), SETTINGS, device="cpu", progress=progress)

for number in range(10):
    child = os.fork()
    if not child:
        killed(number)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    arguments = [sys.executable, "-c", script, str(dataset_folder), str(tmp_path), str(Path(__file__).parent)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 10, done.stderr
    for number in range(10):
        out = tmp_path / str(number)
        train(dataset, out, SETTINGS, device="cpu", resume=True)
        assert weights(out) == weights(whole), number
        left = sorted(f.name for f in out.iterdir() if f.name != ".lock")
        assert left == [
            "before_decay",
            "config.yaml",
            "metrics.jsonl",
            "model.json",
            "model.safetensors",
            "tensorboard",
        ], number


@pytest.mark.slow
def test_sigterm_and_resume_on_the_command_line(dataset_folder: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    long = ("--steps", "100000", "--set", "live.dice=never")
    process = subprocess.Popen(command(dataset_folder, out, *long), stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if list((out / "checkpoints").glob("*.json")):
            break
        time.sleep(0.1)
    second = subprocess.run(command(dataset_folder, out, *long), capture_output=True, text=True, check=False)
    assert second.returncode == 2 and "Traceback" not in second.stderr
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    error = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "the current model is saved as model.safetensors and its state in checkpoints" in error
    assert f"Resume it with: anatogen train {dataset_folder} --out {out} --resume" in error
    about = read_about(out)
    assert not about.finished and f"after step {about.steps};" in error


def test_a_plain_rerun_says_how_to_resume(
    dataset: PreparedDataset, tmp_path: Path, whole: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    out = broken(dataset, tmp_path / "run")
    before = sorted(f.read_bytes() for f in out.rglob("*") if f.is_file())
    code, _, err = cli(*command(dataset.folder, out)[3:])
    assert code == 2 and err.count("\n") == 1
    assert "holds an unfinished run (step 10)" in err and "--resume" in err
    assert sorted(f.read_bytes() for f in out.rglob("*") if f.is_file()) == before
    code, _, err = cli("info", out)
    assert code == 2 and "Its training is not finished" in err

    code, said, err = cli("train", dataset.folder, "--out", out, "--resume", "--device", "cpu")
    assert code == 0 and "20 steps, 100 images" in said, err
    assert weights(out) == weights(whole)
    code, _, err = cli("train", dataset.folder, "--out", out, "--resume")
    assert code == 2 and "is finished, after 20 steps" in err
    code, _, err = cli("train", dataset.folder, "--out", out)
    assert code == 2 and "already exists" in err


def test_the_same_command_with_resume_begins_and_goes_on(
    dataset: PreparedDataset, tmp_path: Path, whole: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """A job script has one command: --resume starts a run if there is none."""
    out = tmp_path / "run"
    code, _, err = cli(*command(dataset.folder, out, "--resume")[3:])
    assert code == 0, err
    assert weights(out) == weights(whole)
    later = broken(dataset, tmp_path / "later")
    code, _, err = cli(*command(dataset.folder, later, "--resume", "--set", "training.micro_batch_size=5")[3:])
    assert code == 0, err  # what changes no weights may change
    assert weights(later) == weights(whole)


def test_other_settings_or_data_are_not_resumed(
    dataset: PreparedDataset, tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = broken(dataset, tmp_path / "run")
    code, _, err = cli("train", dataset.folder, "--out", out, "--resume", "--set", "training.learning_rate=0.1")
    assert code == 2 and "was started with a different training.learning_rate" in err
    code, _, err = cli("train", dataset.folder, "--out", out, "--resume", "--preset", "paper")
    assert code == 2 and "two presets are named" in err
    monkeypatch.setattr(PreparedDataset, "digest_of", lambda self, split: "other")
    with pytest.raises(SettingsError, match="was started with different training data"):
        train(dataset, out, device="cpu", resume=True)
    assert len(list((out / "checkpoints").glob("*.json"))) == 2


def test_a_torn_checkpoint_is_passed_over(
    dataset: PreparedDataset, tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = broken(dataset, tmp_path / "run")
    last = out / "checkpoints" / "000000010.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    train(dataset, out, device="cpu", resume=True)
    assert "000000010.json: is damaged" in caplog.text and weights(out) == weights(whole)


def test_one_fit_with_a_hook_for_the_denoiser_too(dataset: PreparedDataset, tmp_path: Path, whole: Path) -> None:
    """A hook gets the averaged model, and sampling a preview has no side effects."""
    seen = []

    def preview(moment: Moment) -> dict[str, float]:
        model = moment.model()
        seen.append((moment.step, not model.training, model.config.size))
        torch.randn(7)
        return {"weight": next(model.parameters()).double().mean().item()}

    out = train(dataset, tmp_path / "run", SETTINGS, device="cpu", hooks=[Hook("preview", 8, preview)])
    assert weights(out) == weights(whole) and seen == [(8, True, (32, 32)), (16, True, (32, 32))]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "weight" in line] == [8, 16]


def test_micro_batches_train_the_same_run_to_rounding(dataset: PreparedDataset, tmp_path: Path, whole: Path) -> None:
    settings = build_settings(values=[*VALUES, "training.micro_batch_size=3"])
    parts = load_denoiser(train(dataset, tmp_path / "run", settings, device="cpu"))[0].state_dict()
    one = load_denoiser(whole)[0].state_dict()
    other = build_settings(values=[*VALUES, "training.seed=1"])
    foreign = load_denoiser(train(dataset, tmp_path / "other", other, device="cpu"))[0].state_dict()

    def apart(state: dict[str, torch.Tensor]) -> float:
        return sum(float((state[k] - one[k]).abs().sum()) for k in one)

    assert apart(parts) < 0.02 * apart(foreign)


def test_fewer_images_than_the_batch_learn(
    dataset: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """tabnet #537: fewer images than the batch, a loss of 0, weights that never move and no error."""
    settings = build_settings(values=[*VALUES, "training.batch_size=500", "training.steps=3"])
    images = len(dataset.split("train"))
    run = train(dataset, tmp_path / "run", settings, device="cpu")
    assert f"fewer images ({images}) than the batch size (500)" in caplog.text
    assert read_about(run).images == 3 * images
    begun = DenoiserTask(dataset, settings, torch.device("cpu")).denoiser.state_dict()
    trained = load_denoiser(run)[0].state_dict()
    assert any(not torch.equal(begun[k], trained[k]) for k in begun)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines and all(line["loss"] > 0 for line in lines)


def test_a_failure_before_the_first_step_blocks_nothing(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def no_network(*_: object) -> None:
        raise SettingsError("such a network cannot be built")

    with monkeypatch.context() as patched, pytest.raises(SettingsError, match="cannot be built"):
        patched.setattr("anatogen.training.denoiser_task.Denoiser.__init__", no_network)
        train(dataset, out, SETTINGS, device="cpu")
    with pytest.raises(ModelError, match="no such run"):
        train(dataset, out, build_settings(values=[*VALUES, f"training.start_from={tmp_path / 'gone'}"]), device="cpu")
    with pytest.raises(SettingsError, match="device 'nowhere'"):
        train(dataset, out, SETTINGS, device="nowhere")
    assert not out.exists()

    def fail(*_: object) -> None:
        raise RuntimeError("in the first step")

    with monkeypatch.context() as patched:
        patched.setattr(DenoiserTask, "loss", fail)
        with pytest.raises(RuntimeError, match="in the first step"):
            train(dataset, out, SETTINGS, device="cpu")
    assert [f.name for f in out.iterdir() if f.name != ".lock"] == []
    with pytest.raises(Killed):  # before the first step, without any cleaning up
        train(dataset, out, SETTINGS, device="cpu", progress=kill_after(0))
    train(dataset, out, SETTINGS, device="cpu")
    assert read_about(out).steps == 20


def test_stopped_before_the_first_step(dataset: PreparedDataset, tmp_path: Path) -> None:
    def press(share: float, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="before its first step; nothing was saved"):
        train(dataset, tmp_path / "run", SETTINGS, device="cpu", progress=press)
    assert [f.name for f in (tmp_path / "run").iterdir() if f.name != ".lock"] == []


def test_what_others_put_into_the_folder_stays(dataset: PreparedDataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(SettingsError, match="already exists"):
            train(dataset, out, SETTINGS, device="cpu")
        (out / "config.yaml").write_text("{}")
    assert sorted(f.name for f in out.iterdir()) == ["config.yaml", "notes.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="already exists"):
        train(dataset, tmp_path / "file", SETTINGS, device="cpu")


@pytest.mark.slow
def test_two_trainings_into_one_folder(dataset_folder: Path, tmp_path: Path, whole: Path) -> None:
    """Two processes at once: one trains undisturbed, the other reports a one-line error."""
    out = tmp_path / "run"
    both = [
        subprocess.Popen(command(dataset_folder, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert sorted(code for _, code in ends) == [0, 2], ends
    said = next(text for text, code in ends if code == 2)
    assert said.count("\n") == 1 and str(out) in said and "Traceback" not in said
    assert weights(out) == weights(whole)


def test_the_second_is_told_that_another_trains(dataset: PreparedDataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(out):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        for resume in (False, True):
            with pytest.raises(
                OutputError, match="another process is writing here.* Another training is running there"
            ):
                train(dataset, out, SETTINGS, device="cpu", resume=resume)
    finally:
        let_go.set()
        thread.join()
    assert [f.name for f in out.iterdir() if f.name != ".lock"] == []


def test_a_time_limit_on_an_injected_clock(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reading of this clock is a second later: a limit of 200 s ends near 200 s, and the decay is complete."""
    now = [0.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    rates = []
    hook = Hook("rate", 1, lambda moment: rates.append(moment.share))
    settings = build_settings(values=[*VALUES[:3], "training.max_time_s=200", "training.checkpoint_every=1h"])
    monkeypatch.setattr("anatogen.training.train.CLOCK", clock)
    run = train(dataset, tmp_path / "run", settings, device="cpu", hooks=[hook])
    about = read_about(run)
    assert about.finished and about.seconds == pytest.approx(200, rel=0.05)
    assert rates == sorted(rates) and rates[-1] == 1 and rates[-2] > 0.97


def test_killed_inside_its_first_save(dataset: PreparedDataset, tmp_path: Path, whole: Path) -> None:
    """A half-written checkpoint is none: the run starts anew, and a plain rerun says nothing else."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / "config.yaml", out)
    (out / "checkpoints" / ".partial-7-ab-000000005.json").write_text("{")
    (out / "checkpoints" / "000000005.safetensors").write_bytes(b"")
    copy = shutil.copytree(out, tmp_path / "copy")
    train(dataset, out, SETTINGS, device="cpu", resume=True)
    train(dataset, copy, SETTINGS, device="cpu")
    assert weights(out) == weights(copy) == weights(whole)


def longer(steps: int, **more: object) -> RunSettings:
    return build_settings(values=VALUES, training={"steps": steps, **more})


def test_a_finished_run_is_extended_as_if_it_had_been_longer(dataset: PreparedDataset, tmp_path: Path) -> None:
    out = train(dataset, tmp_path / "run", longer(10), device="cpu")
    whole = train(dataset, tmp_path / "whole", longer(25), device="cpu")
    assert [file.stem for file in checkpoint_files(out / "before_decay")] == ["000000007"]
    first = weights(out)
    with pytest.raises(SettingsError, match="finished, after 10 steps.*To extend it.*--steps 20"):
        train(dataset, out, resume=True, device="cpu")
    with pytest.raises(SettingsError, match="no longer than that"):
        train(dataset, out, longer(9), resume=True, device="cpu")
    with pytest.raises(SettingsError, match="different training.learning_rate"):
        train(dataset, out, longer(25, learning_rate=1e-4), resume=True, device="cpu")
    with pytest.raises(Killed):
        train(dataset, out, longer(25), resume=True, device="cpu", progress=kill_after(5))
    assert weights(out) == first  # usable until the longer one is there
    train(dataset, out, resume=True, device="cpu")
    assert weights(out) == weights(whole) and read_about(out).steps == 25
    assert [file.stem for file in checkpoint_files(out / "before_decay")] == ["000000018"]


def test_another_length_while_the_rate_decays_goes_back_to_before(dataset: PreparedDataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(dataset, out, longer(16), device="cpu", progress=kill_after(16))  # decays from step 12 on; saved at 15
    train(dataset, out, longer(25), resume=True, device="cpu")
    assert weights(out) == weights(train(dataset, tmp_path / "whole", longer(25), device="cpu"))


def test_without_the_checkpoint_there_is_no_extension(dataset: PreparedDataset, tmp_path: Path, whole: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(out / "before_decay")
    with pytest.raises(SettingsError, match="cannot be extended.*--from"):
        train(dataset, out, longer(40), resume=True, device="cpu")


def test_a_setting_that_a_later_version_adds_ends_no_training(dataset: PreparedDataset) -> None:
    class Later(TrainingSettings):
        novelty: bool = False

    class LaterRun(RunSettings):
        training: Later = Later()

    def digest(kind: type[RunSettings], **more: object) -> str:
        tree = SETTINGS.model_dump()
        tree["training"] |= more
        return DenoiserTask(dataset, kind.model_validate(tree), torch.device("cpu")).recipe["settings"]

    assert digest(RunSettings) == digest(LaterRun)
    changed = {digest(LaterRun, novelty=True), digest(LaterRun, learning_rate=1e-4)}
    assert len({digest(RunSettings), *changed}) == 3
