"""`anatogen compare` from end to end: runs and sample sets, the files it writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.evaluation import subject
from anatogen.evaluation.comparing import cost_of
from anatogen.generation.engine import Generator
from anatogen.generation.kinds import load_model
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import write_sample_set
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.of_dataset import encoder_for
from anatogen.reporting.comparison import Comparison
from by_brightness import judge_by_brightness

pytestmark = pytest.mark.usefixtures("small_judges")

Cli = Callable[..., tuple[int, str, str]]


def samples(run: Path, dataset: PreparedDataset, out: Path, count: int) -> Path:
    requests = requests_from_dataset(dataset, dataset.split("test"), dataset.schema.states(), count=count)
    write_sample_set(load_model(run, device="cpu"), requests, out)
    return out


@pytest.mark.slow
def test_runs_and_floors(
    longer_run: Path, run_folder: Path, dataset_folder: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by_brightness(monkeypatch)
    quick = partial(encoder_for, settings=EncoderSettings(steps=40))
    monkeypatch.setattr(subject, "encoder_for", lambda data, _, device: quick(data, device=device))
    out = tmp_path / "out"
    code, said, err = cli(
        "compare", f"ours={longer_run}", f"barely trained={run_folder}", "--dataset", dataset_folder, "--out", out,
        "--only", "faithfulness,realism", "--count", 12, "--not-run", "ControlNet=no Stable Diffusion weights", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    found = Comparison.read(out / "comparison.json")
    assert [s.name for s in found.systems] == ["ours", "barely trained", "ControlNet", "retrieval", "painting"]
    by_name = {s.name: s for s in found.systems}
    ours, barely, retrieval = by_name["ours"], by_name["barely trained"], by_name["retrieval"]
    assert found.reference == "ours" and found.n.images == 12 and found.ceiling is not None
    assert ours.dice_gen_map is not None and barely.dice_gen_map is not None and retrieval.dice_gen_map is not None
    assert (ours.dice_gen_map.mean or 0) > (barely.dice_gen_map.mean or 1)
    assert by_name["ControlNet"].not_run == "no Stable Diffusion weights" and "ControlNet: not run" in said
    assert any("barely trained" in sentence for s in found.systems for sentence in s.floors)
    assert ours.cost.parameters and ours.cost.gflops and ours.cost.images_per_second and retrieval.cost.parameters == 0
    model = load_model(longer_run, device="cpu")
    assert isinstance(model, Generator)
    data = PreparedDataset.open(dataset_folder)
    label_map = data.load(data.split("test")[:1]).labels.numpy()
    one_step = cost_of(model.sampling_with(model.with_settings(steps=1)), list(label_map)).gflops
    assert one_step and ours.cost.gflops == pytest.approx(16 * one_step, rel=0.01)  # all steps count
    for name in ("comparison.html", "comparison.md", "comparison.tex", "figures/systems.png", "ours/report.html"):
        assert (out / name).stat().st_size > 500, name
    page = (out / "comparison.html").read_text()
    assert "not run" in page and "data:image/png" in page and 'src="http' not in page
    # Nothing is made anew where it is there already.
    code, _, err = cli(
        "compare", f"ours={longer_run}", f"barely trained={run_folder}", "--dataset", dataset_folder, "--out", out,
        "--only", "faithfulness", "--count", 12, "--no-floors", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert [s.name for s in Comparison.read(out / "comparison.json").systems] == ["ours", "barely trained"]


def test_what_is_refused(
    run_folder: Path, dataset: PreparedDataset, dataset_folder: Path, tmp_path: Path, cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    judge_by_brightness(monkeypatch)
    common = ("--dataset", dataset_folder, "--only", "faithfulness", "--no-floors", "--device", "cpu")
    a, b = samples(run_folder, dataset, tmp_path / "a", 4), samples(run_folder, dataset, tmp_path / "b", 6)
    code, _, err = cli("compare", a, b, "--out", tmp_path / "out", *common)
    assert code == 2 and "label maps are not those of a" in err and "in common" in err
    code, _, err = cli("compare", a, a, "--out", tmp_path / "out", *common)
    assert code == 2 and "two systems are called 'a'" in err
    code, _, err = cli("compare", f"../x={a}", "--out", tmp_path / "out", *common)
    assert code == 2 and "is no name" in err
    code, _, err = cli("compare", f"x={tmp_path / 'gone'}", "--out", tmp_path / "out", *common)
    assert code == 2 and "gone" in err
    code, _out, err = cli("compare", f"one={a}", f"two={a}", "--out", tmp_path / "out", *common)
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["systems"][1]["differences"]["dice_gen_map"]["mean"] == 0 and not found["systems"][0]["marks"]
