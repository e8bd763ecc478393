"""The whole path of the kinds of data that users bring: prepare, train, sample, evaluate, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import kinds
from anatogen import evaluate
from anatogen.data.label_values import SourceLabels
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.volume import Volume

pytestmark = pytest.mark.usefixtures("small_judges")

Cli = Callable[..., tuple[int, str, str]]
SPLIT = "train=2,heldout=2,val=1,test=1"
TINY = ("network.width=8", "training.batch_size=2", "training.warmup_steps=1", "sampling.steps=2")


def set_(values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def to_samples(cli: Cli, raw: Path, folder: Path, *options: object, image_format: str = "nifti") -> None:
    """Check, prepare, train three steps, sample two images."""
    for words in (
        ("check", raw),
        ("prepare", raw, folder / "data", "--size", 32, "--split", SPLIT, "--workers", 1, *options),
        ("train", folder / "data", "--out", folder / "run", "--steps", 3, "--device", "cpu", *set_(TINY)),
        ("sample", folder / "run", "--masks", folder / "data", "--out", folder / "samples", "--count", 2, "--format", image_format, "--device", "cpu"),
    ):  # fmt: skip
        code, _, err = cli(*words)
        assert code == 0, (words, err)


@pytest.mark.slow
def test_declared_values_come_back_on_export(cli: Cli, tmp_path: Path) -> None:
    raw = kinds.brats(tmp_path / "raw")
    to_samples(cli, raw, tmp_path, "--keep-empty")
    code, _, err = cli("export", tmp_path / "samples", tmp_path / "out", "--to", "nnunet", "--accept-copies")
    assert code == 0, err
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert described["labels"] == json.loads((raw / "dataset.json").read_text())["labels"]
    found: set[int] = set()
    for path in (tmp_path / "out" / "labelsTr").iterdir():
        found |= set(np.unique(np.asarray(nibabel.load(path).dataobj)).tolist())
    assert found <= {0, 1, 2, 4} and 2 in found
    again = open_source(str(tmp_path / "out"))
    assert again.schema.names == PreparedDataset.open(tmp_path / "data").schema.names
    again.cases[0].load()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regions", "channels"])
def test_evaluation_of(cli: Cli, tmp_path: Path, kind: str) -> None:
    raw = kinds.regions_ignore(tmp_path / "raw") if kind == "regions" else kinds.channels(tmp_path / "raw")
    to_samples(cli, raw, tmp_path, image_format="png")
    few = SegmenterSettings(steps=2, batch_size=2, validations=1)
    results = evaluate(
        tmp_path / "run",
        tmp_path / "data",
        tmp_path / "report",
        only=("faithfulness", "utility"),
        settings=EvaluationSettings(segmenter=few, utility=few),
        count=2,
        device="cpu",
        quick=True,
    )
    assert 0 <= results["faithfulness"]["dice_real_map"]["mean"] <= 1
    assert 0 <= results["utility"]["synthetic"]["mean"] <= 1


def test_values_regions_and_the_ignore_label_are_declared_again() -> None:
    recorded = {
        "values": [0, 1, 2, 4],
        "regions": {"x": ["whole", "core"], "y": ["whole"], "z": ["whole", "core", "enhancing"]},
        "ignore": 5,
    }
    labels = SourceLabels.of(recorded)
    assert labels is not None and SourceLabels.of(None) is None and SourceLabels.of({}) is None
    assert labels.nnunet(["x", "y", "z"]) == {
        "labels": {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": 4, "ignore": 5},
        "regions_class_order": [2, 1, 4],
    }
    plain = SourceLabels((0, 3, 300), {}, None)
    assert plain.nnunet(["a", "b"]) == {"labels": {"background": 0, "a": 3, "b": 300}}
    volume = plain.restored(Volume(np.array([[[0, 1, 2]]], np.uint8), np.eye(4)))
    assert volume.array.ravel().tolist() == [0, 3, 300] and volume.array.dtype == np.uint16
