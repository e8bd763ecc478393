"""Counterfactual pairs, translations and balanced sets from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anatogen.data.store import PreparedDataset
from anatogen.generation.sample_set import SampleSet

Cli = Callable[..., tuple[int, str, str]]


def test_counterfactual_pairs(cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    asked = ("sample", run_folder, "--masks", dataset_folder, "--count", 3, "--steps", 2, "--out", tmp_path / "pairs")
    edit = ("--edit", "grow core 2px", "--implausible", "keep")
    assert cli(*asked, *edit, "--counterfactual", "3px")[0] == 0
    samples, dataset = SampleSet.open(tmp_path / "pairs"), PreparedDataset.open(dataset_folder)
    rows = {(row.case, row.slice): row for row in dataset.split("test")}
    for line in samples.entries:
        assert line.margin == "3px" and line.edits and line.real is not None
        before = dataset.load([rows[line.case, line.slice]]).labels[0].numpy()
        changed = samples.label_map(line) != before
        assert changed.any()
        made, real = samples.image(line), samples.real_image(line)
        difference = np.load(samples.folder / "difference" / f"{line.id}.npy")
        assert np.array_equal(difference, made - real)
        near = np.argwhere(changed)
        distance = np.sqrt(((np.indices(before.shape)[:, None] - near.T[:, :, None, None]) ** 2).sum(axis=0)).min(
            axis=0
        )
        assert np.abs(difference[:, distance >= 3]).max() <= 1 / 32767  # one level of the stored integers
        assert np.abs(difference[:, distance == 0]).max() > 0.01
    assert samples.header.real_patients  # they are, beyond the margin
    code, _, said = cli("export", tmp_path / "pairs", tmp_path / "n", "--to", "nnunet")
    assert code == 2 and "real patients" in said
    (samples.folder / "difference" / f"{samples.entries[0].id}.npy").unlink()
    assert cli(*asked, *edit, "--counterfactual", "3px")[0] == 0
    assert (samples.folder / "difference" / f"{samples.entries[0].id}.npy").exists()
    code, _, said = cli(*asked, *edit, "--counterfactual", "4px")
    assert code == 2 and "margin" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--counterfactual", "3px"), "--counterfactual is for --edit"),
        (("--edit", "grow core 2px", "--counterfactual", "3"), "is no distance"),
        (("--edit", "grow core 2px", "--counterfactual", "-3px"), "is no distance"),
    ],
)
def test_counterfactuals_that_are_refused(
    options: tuple[str, ...], said: str, cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    code, _, errors = cli("sample", run_folder, "--masks", dataset_folder, "--out", tmp_path / "o", *options)
    assert code == 2 and said in " ".join(errors.split()) and not (tmp_path / "o").exists()


def test_translation_needs_attributes(cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    asked = ("translate", run_folder, "--images", dataset_folder, "--out", tmp_path / "o", "--attribute")
    code, _, said = cli(*asked, "sequence=T2")
    assert code == 2 and "takes no attributes" in said
    code, _, said = cli(*asked, "sequence=T2", "--strength", "1")
    assert code == 2 and "--strength must be in (0, 1)" in said


def test_a_balanced_set(
    cli: Cli, dataset_folder: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anatogen.judges import of_dataset

    def nothing(images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), *images.shape[2:]), np.int64)

    monkeypatch.setattr(of_dataset, "segmenter_for", lambda *_, **__: nothing)
    asked = ("balance", dataset_folder, tmp_path / "b", "--run", run_folder, "--class", "core", "--count", 10)
    more = ("--steps", 2, "--min-dice", 0, "--implausible", "keep")
    code, out, _ = cli(*asked, "--share", 0.3, *more)
    assert code == 0 and "core is in 30.0% of the label maps" in out and "0.0% of the images" in out
    samples = SampleSet.open(tmp_path / "b")
    assert sum(bool((samples.label_map(line) == 2).any()) for line in samples.entries) == 3
    header = json.loads((tmp_path / "b" / "samples.json").read_text())
    assert header["request"]["balance"] == ["core", 0.3]
    code, _, said = cli(*asked, "--share", 0.5, *more)
    assert code == 2 and "balance" in said  # another set
    assert cli("export", tmp_path / "b", tmp_path / "n", "--to", "nnunet")[0] == 0
    code, _, said = cli(*asked[:5], "--class", "coree", "--share", 0.5, "--count", 4, *more)
    assert code == 2 and "unknown class 'coree'" in said
