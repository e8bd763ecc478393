"""anatogen evaluate --nnunet, with an executable that stands in for nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from anatogen.judges import nnunet as nnunet_judge
from nnunet_stand_in import Installed

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick_and_tame(monkeypatch: pytest.MonkeyPatch) -> None:
    """No judge of faithfulness, which is not asked for, and no change of this process's signals."""
    monkeypatch.setattr("anatogen.evaluation.evaluate.segmenter_for", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr("anatogen.cli.evaluate._end_as_by_ctrl_c", lambda: None)


def test_of_a_run(
    cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(tmp_path / "bin", monkeypatch)
    installed.run_in_this_process(monkeypatch)
    words = ("evaluate", run_folder, "--dataset", dataset_folder, "--out", tmp_path / "report", "--only", "utility")
    words += ("--quick", "--utility-steps", 2, "--device", "cpu")
    code, out, _ = cli(*words)
    assert code == 0 and "nnU-Net" not in out and not installed.calls
    assert "nnunet" not in json.loads((tmp_path / "report" / "report.json").read_text())["utility"]
    code, out, err = cli(*words, "--nnunet", 5)
    assert code == 0, err
    found = json.loads((tmp_path / "report" / "report.json").read_text())["utility"]["nnunet"]
    for name in ("real", "synthetic", "both"):
        assert {"mean", "per_class", "ci95"} <= found[name].keys()
    assert f"nnU-Net on real patients, trained on: real {found['real']['mean']:.3f} (too few" in out
    assert "(2d, 5 epochs)" in (tmp_path / "report" / "report.html").read_text()
    assert len(installed.calls) == 9


def test_refused_before_anything_is_made(
    cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", run_folder, "--dataset", dataset_folder, "--out", tmp_path / "report", "--device", "cpu")
    available = True
    monkeypatch.setattr(nnunet_judge, "nnunet_available", lambda: available)
    for more, message in (
        (("--nnunet", 40), "nnU-Net has no trainer of 40 epochs. Choose 20 or 50."),
        (("--nnunet", 5, "--only", "realism"), "Add utility to --only."),
    ):
        code, _, err = cli(*words, *more)
        assert (code, err) == (2, next(line + "\n" for line in err.splitlines() if message in line))
    available = False
    code, _, err = cli(*words, "--nnunet", 5)
    assert (code, err) == (2, "error: nnU-Net is not installed. Install it with: pip install 'anatogen[nnunet]'.\n")
    assert not (tmp_path / "report").exists()


def test_a_sample_set_from_test_maps_is_not_enough(
    cli: Cli, run_folder: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Installed(tmp_path / "bin", monkeypatch)
    samples = tmp_path / "samples"
    sampled = cli("sample", run_folder, "--masks", dataset_folder, "--out", samples, "--count", 2, "--device", "cpu")
    assert sampled[0] == 0
    words = ("--dataset", dataset_folder, "--out", tmp_path / "report", "--nnunet", 5, "--device", "cpu")
    code, _, err = cli("evaluate", samples, *words)
    assert code == 2 and "needs images from the held-out patients' maps" in err
    assert not (tmp_path / "report").exists() and not installed.calls
