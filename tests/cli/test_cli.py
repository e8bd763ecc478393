"""The commands as a user types them: whole paths, bad input, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.generation.sample_set import SampleSet
from anatogen.judges import of_dataset
from anatogen.model import load_denoiser

pytestmark = pytest.mark.usefixtures("small_judges")

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_four_commands(cli: Cli, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_segmenter = of_dataset.train_segmenter

    def for_a_short_time(train, validation, classes, settings, **more):  # type: ignore[no-untyped-def]
        return train_segmenter(train, validation, classes, replace(settings, steps=40), **more)

    monkeypatch.setattr(of_dataset, "train_segmenter", for_a_short_time)
    data, run, samples, report = (tmp_path / n for n in ("data", "run", "samples", "report"))
    assert cli("prepare", nnunet, data, "--size", 32, "--seed", 1)[0] == 0
    code, out, _ = cli("train", data, "--out", run, "--steps", 4, "--set", "network.width=8", "--device", "cpu")
    assert code == 0 and "4 steps" in out
    few = ("--count", 5, "--steps", 2, "--free", "core", "--device", "cpu")
    assert cli("sample", run, "--masks", data, "--out", samples, *few)[0] == 0
    assert [e.free for e in SampleSet.open(samples).entries] == [("core",)] * 5
    # The same command again makes nothing new, and fails on nothing.
    assert cli("sample", run, "--masks", data, "--out", samples, *few)[0] == 0
    code, out, _ = cli("evaluate", samples, "--dataset", data, "--out", report, "--quick", "--device", "cpu")
    assert code == 0 and (report / "report.html").is_file() and "Dice(real, map)" in out
    for folder, word in ((data, "prepared data set"), (run, "hourglass"), (samples, "5 samples")):
        code, out, _ = cli("info", folder)
        assert code == 0 and word in out


def test_phantoms_by_count_and_patients_by_table(cli: Cli, nnunet: Path, tmp_path: Path) -> None:
    split = ("--split", "train=1", "--size", 64)
    assert cli("prepare", "phantom:breast-mri", tmp_path / "phantom", "--patients", 2, *split)[0] == 0
    assert len(PreparedDataset.open(tmp_path / "phantom").info.cases) == 2
    (tmp_path / "who.csv").write_text("case,patient\n" + "".join(f"ball_{i:03d},p{i // 4}\n" for i in range(8)))
    assert cli("prepare", nnunet, tmp_path / "data", "--patients", tmp_path / "who.csv", *split)[0] == 0
    data = PreparedDataset.open(tmp_path / "data")
    assert len({row.patient for row in data.rows}) == 2 and {line.patient for line in data.names.values()} == {
        "p0",
        "p1",
    }
    code, _, err = cli("prepare", "phantom:breast-mri", tmp_path / "x", "--patients", "many")
    assert code == 2 and "many" in err and "Traceback" not in err


def test_masks_from_a_folder(cli: Cli, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "one.npy", np.ones((32, 32), np.int64))
    code, _, _ = cli(
        "sample", run_folder, "--masks", tmp_path / "maps", "--out", tmp_path / "s", "--per-mask", 2, "--format", "npy"
    )
    assert code == 0 and SampleSet.open(tmp_path / "s").images().shape == (2, 1, 32, 32)


BAD = {
    "path that is not there": (["prepare", "nowhere", "out"], "nowhere: does not exist"),
    "no known layout": (["prepare", ".", "out"], "has no known layout"),
    "unknown layout": (["prepare", "{raw}", "out", "--layout", "nnnet"], "Did you mean 'nnunet'"),
    "unknown axis": (["prepare", "{raw}", "out", "--axis", "axail"], "Did you mean 'axial'"),
    "unknown fit": (["prepare", "{raw}", "out", "--fit", "padd"], "Did you mean 'pad'"),
    "window upside down": (["prepare", "{raw}", "out", "--window", "240", "-160"], "are an empty range"),
    "bad split": (["prepare", "{raw}", "out", "--split", "trian=1"], "Did you mean 'train'"),
    "out is there": (["prepare", "{raw}", "{data}"], "already exists"),
    "train on nothing": (["train", "nowhere", "--out", "run"], "nowhere: does not exist"),
    "train on raw data": (["train", "{raw}", "--out", "run"], "anatogen prepare"),
    "bad duration": (["train", "{data}", "--out", "run", "--max-time", "soon"], "expected a duration, got 'soon'"),
    "bad setting": (["train", "{data}", "--out", "run", "--set", "network.with=3"], "Did you mean 'network.width'"),
    "bad preset": (["train", "{data}", "--out", "run", "--preset", "fats"], "Did you mean 'fast'"),
    "run is there": (["train", "{data}", "--out", "{run}"], "already exists"),
    "sample nothing": (["sample", "nowhere", "--masks", "{data}", "--out", "s"], "nowhere: there is no such run"),
    "run without a model": (["sample", "{data}", "--masks", "{data}", "--out", "s"], "holds no model"),
    "no masks": (["sample", "{run}", "--masks", "nowhere", "--out", "s"], "nowhere: there is no such folder"),
    "unknown class": (["sample", "{run}", "--masks", "{data}", "--out", "s", "--free", "cor"], "Did you mean 'core'"),
    "given and free": (
        ["sample", "{run}", "--masks", "{data}", "--out", "s", "--given", "core", "--free", "core"],
        "both given and free",
    ),
    "unknown solver": (["sample", "{run}", "--masks", "{data}", "--out", "s", "--solver", "dpm"], "no solver 'dpm'"),
    "unknown format": (["sample", "{run}", "--masks", "{data}", "--out", "s", "--format", "pgn"], "Did you mean 'png'"),
    "unknown split": (["sample", "{run}", "--masks", "{data}", "--out", "s", "--split", "tset"], "Did you mean 'test'"),
    "unknown device": (["sample", "{run}", "--masks", "{data}", "--out", "s", "--device", "cuda:9"], "not available"),
    "evaluate nothing": (
        ["evaluate", "nowhere", "--dataset", "{data}", "--out", "r"],
        "nowhere: there is no such folder",
    ),
    "info on nothing": (["info", "nowhere"], "nowhere: does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    cli: Cli,
    name: str,
    nnunet: Path,
    dataset_folder: Path,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, message = BAD[name]
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    code, _, err = cli(*[w.format(raw=nnunet, data=dataset_folder, run=run_folder) for w in words])
    assert code == 2
    assert message in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert not list(work.rglob("*.b2nd")) and not list(work.rglob("*.png"))


def anatogen(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own, for which Ctrl-C means what it means at a terminal: a shell that runs the
    tests in the background has its children ignore it.
    """
    command = [sys.executable, "-m", "anatogen", *map(str, arguments)]
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_training(dataset_folder: Path, tmp_path: Path, sent: signal.Signals) -> None:
    run = tmp_path / "run"
    small = ("--set", "network.width=8", "--set", "live.dice=never", "--device", "cpu")
    process = anatogen("train", dataset_folder, "--out", run, "--steps", 100_000, *small)
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.stat().st_size):
        time.sleep(0.2)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{run}: training was stopped after step" in err and "saved as model.safetensors" in err
    assert "Traceback" not in err
    assert (load_denoiser(run)[1].steps or 0) > 0


@pytest.mark.skipif(os.name != "posix", reason="needs a file size limit")
def test_a_disk_that_refuses_while_sampling(dataset_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    """A real refusal by the operating system: files may not grow past 1 kB, an image of 32 x 32 needs more."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    process = anatogen(
        "sample",
        run_folder,
        "--masks",
        dataset_folder,
        "--out",
        tmp_path / "s",
        "--format",
        "npy",
        "--device",
        "cpu",
        preexec_fn=limit,
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "the 0 of" in err and "stay valid" in err and "Traceback" not in err
    assert list((tmp_path / "s" / "images").iterdir()) == []


def test_help_loads_nothing_heavy_and_has_examples() -> None:
    """That is what keeps it under half a second (`benchmarks/`): a time would depend on what else the machine does."""
    code = (
        "import sys; from anatogen.cli.app import app\ntry: app(args=['--help'], prog_name='anatogen')\nexcept "
        "SystemExit as stop: print('left with', stop.code)\nprint('loaded', sorted({m.split('.')[0] for m in "
        "sys.modules} & {'torch', 'numpy', 'scipy', 'pydantic', 'monai', 'nibabel', 'matplotlib', 'yaml', 'jinja2'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Example" in out and "left with 0" in out and out.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize(
    "command",
    ["demo", "check", "prepare", "info", "train", "average", "sample", "interpolate", "evaluate", "import", "export"],
)
def test_every_command_has_an_example(cli: Cli, command: str) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0 and f"Example: anatogen {command}" in out


def test_version(cli: Cli) -> None:
    from anatogen import __version__

    assert cli("--version")[1] == f"anatogen {__version__}\n"
