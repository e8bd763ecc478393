"""Utility of volumes for training nnU-Net's 3d_fullres, with commands that check what nnU-Net would check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.evaluation.evaluate import require_evaluable
from anatogen.evaluation.sections.utility_nnunet import NnunetUtility, require_for_nnunet, utility_by_nnunet
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.judges import nnunet as nnunet_judge
from anatogen.judges.nnunet import train_with_nnunet
from anatogen.reporting.answers import answers
from anatogen.reporting.results import NnunetUtilityResult, Report, UtilityResult
from cohorts import RealImages
from conftest import write_nnunet
from nnunet_stand_in import Installed

SHARES = {"train": 10.0, "heldout": 40.0, "val": 10.0, "test": 40.0}
OBLIQUE = np.array([[0.0, -0.9, 0, 12], [-0.9, 0, 0, -3], [0, 0, 2.5, 40], [0, 0, 0, 1]])


def prepared(folder: Path, affine: np.ndarray = OBLIQUE, change: Any = None, **settings: Any) -> PreparedDataset:
    """Balls in 20 x 24 x 12 voxels with `affine`. change: called with the image and label arrays of each scan."""
    labels = {"background": 0, "ball": 1, "core": 2, **({"ignore": 3} if settings.pop("ignore", False) else {})}
    raw = write_nnunet(folder / "raw", labels=labels)
    for file in sorted((raw / "labelsTr").iterdir()):
        image_file = raw / "imagesTr" / file.name.replace(".nii", "_0000.nii")
        image, drawn = (np.asarray(nibabel.load(f).dataobj).copy() for f in (image_file, file))
        if change is not None:
            change(image, drawn)
        nibabel.save(nibabel.Nifti1Image(image, affine), image_file)
        nibabel.save(nibabel.Nifti1Image(drawn, affine), file)
    wanted = {"size": (12, 20, 24), "shares": SHARES, "workers": 1, **settings}
    return prepare(open_source(str(raw)), folder / "data", PrepareSettings(**wanted), version="test")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepared(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    found = Installed(tmp_path / "bin", monkeypatch)
    found.run_in_this_process(monkeypatch)
    return found


def copies(dataset: PreparedDataset, out: Path, change: Callable[[np.ndarray], np.ndarray] = np.copy) -> SampleSet:
    """A sample set of the real heldout volumes, each changed."""
    requests = requests_from_dataset(dataset, dataset.split("heldout"), dataset.schema.states())
    samples = write_sample_set(RealImages(dataset), requests, out, image_format="npy")  # type: ignore[arg-type]
    for entry in samples.entries:
        np.save(samples.folder / entry.file, change(np.load(samples.folder / entry.file)))
    return samples


def utility(dataset: PreparedDataset, samples: SampleSet, work: Path) -> NnunetUtilityResult:
    return utility_by_nnunet(dataset, samples, samples.entries, work, 5, device="cpu")


def test_copies_are_as_useful_in_3d_fullres(installed: Installed, volumes: PreparedDataset, tmp_path: Path) -> None:
    found = utility(volumes, copies(volumes, tmp_path / "samples"), tmp_path / "work")
    real, synthetic, both = (found.trainings()[name] for name in ("real", "synthetic", "both"))
    assert real.mean == synthetic.mean == both.mean and min(real.per_class.values()) > 0.9  # type: ignore[type-var]
    heldout, test = ({row.patient for row in volumes.split(name)} for name in ("heldout", "test"))
    assert not heldout & test and real.n.test_patients == len(test)
    assert real.n.real_images == (len(heldout),) and both.n.synthetic_images == len(heldout) > 1
    assert found.configuration == "3d_fullres"

    for name, arguments, _ in installed.calls:
        assert "3d_fullres" in arguments and "2d" not in arguments, name
    assert len(installed.calls) == 9
    folders = list((tmp_path / "work" / "both" / "results" / "Dataset001_anatogen").iterdir())
    assert [folder.name for folder in folders] == ["nnUNetTrainer_5epochs__nnUNetPlans__3d_fullres"]

    report = NnunetUtility.place(Report(utility=UtilityResult(real=real, synthetic=synthetic, both=both)), found)
    (table,) = answers(report, ("ball", "core"))[1].tables[1:]
    assert "(3d_fullres, 5 epochs)" in table.caption and len(table.rows) == 3


def test_nnunet_is_given_millimetres(installed: Installed, volumes: PreparedDataset, tmp_path: Path) -> None:
    """Real and synthetic cases are where the scans are, voxel for voxel; predictions too."""
    utility(volumes, copies(volumes, tmp_path / "samples"), tmp_path / "work")
    real, synthetic, both = (given["cases"] for given in installed.given)
    assert len(real) == len(synthetic) == len(both) / 2 == len(volumes.split("heldout"))
    index = np.array(list(np.ndindex(2, 2, 2))) * [23, 19, 11]  # the corners of both grids
    scan = OBLIQUE @ np.c_[np.array(list(np.ndindex(2, 2, 2))) * [19, 23, 11], np.ones(8)].T
    for case in (*real.values(), *synthetic.values(), *both.values()):
        assert case["shape"] == [24, 20, 12] and np.allclose(case["spacing"], (0.9, 0.9, 2.5))
        corners = np.array(case["affine"]) @ np.c_[index, np.ones(8)].T
        assert {tuple(c) for c in corners.T.round(3)} == {tuple(c) for c in scan.T.round(3)}
    [first, *_] = sorted((tmp_path / "work" / "real" / "predictions").iterdir())
    assert np.allclose(nibabel.load(first).affine, next(iter(real.values()))["affine"])


def test_after_resizing_the_spacing_is_that_of_the_voxels(installed: Installed, tmp_path: Path) -> None:
    """Halved in plane, kept along the slices."""
    dataset = prepared(tmp_path, size=(12, 10, 12), fit="stretch")
    utility(dataset, copies(dataset, tmp_path / "samples"), tmp_path / "work")
    for given in installed.given:
        for case in given["cases"].values():
            assert case["shape"] == [12, 10, 12] and np.allclose(case["spacing"], (1.8, 1.8, 2.5))


def test_wrong_and_empty_volumes_are_found_out(installed: Installed, volumes: PreparedDataset, tmp_path: Path) -> None:
    wrong = utility(volumes, copies(volumes, tmp_path / "inverted", np.negative), tmp_path / "work").trainings()
    assert wrong["synthetic"].per_class["core"] == 0 and (wrong["real"].per_class["core"] or 0) > 0.9
    assert (wrong["synthetic"].difference_to_real or 0) < -0.3
    empty = copies(volumes, tmp_path / "empty", lambda image: np.full_like(image, -1))
    found = utility(volumes, empty, tmp_path / "work").trainings()
    assert found["real"] == wrong["real"] and (found["synthetic"].mean or 0) < 0.3
    assert [Path(given["folder"]).parents[1].name for given in installed.given] == [
        "real", "synthetic", "both", "synthetic", "both",  # what is finished is taken as it is
    ]  # fmt: skip


def test_voxels_of_unknown_class_are_ignored(installed: Installed, tmp_path: Path) -> None:
    """As labels of nnU-Net's own ignore label, one past the classes: in real and in synthetic volumes."""

    def undrawn(image: np.ndarray, labels: np.ndarray) -> None:
        labels[..., :3] = 3
        image[..., :3] = 1500  # would move the mean of any class

    dataset = prepared(tmp_path, change=undrawn, ignore=True)
    found = utility(dataset, copies(dataset, tmp_path / "samples"), tmp_path / "work")
    for training in found.trainings().values():
        assert min(training.per_class.values()) > 0.9  # type: ignore[type-var]


def test_sheared_scans_are_read_by_nibabel(installed: Installed, tmp_path: Path) -> None:
    """ITK, which nnU-Net reads with by default, rejects axes that are not orthogonal."""
    sheared = OBLIQUE.copy()
    sheared[0, 2] = 0.4
    dataset = prepared(tmp_path, sheared)
    found = utility(dataset, copies(dataset, tmp_path / "samples"), tmp_path / "work")
    assert found.real is not None and (found.real.mean or 0) > 0.9


def test_volumes_too_small_for_nnunet_are_refused(installed: Installed, tmp_path: Path) -> None:
    """Before anything is made where the grid shows it; else by what nnU-Net planned, with the reason."""
    tiny = prepared(tmp_path / "tiny", np.diag([-2.0, -2.0, 0.5, 1.0]), size=(8, 20, 24), fit="crop")
    with pytest.raises(DataError, match=r"8 x 20 x 24 voxels of 0.5 x 2 x 2 mm are too small .* slices \(--dim 2\)"):
        require_evaluable(tiny, ("utility",), EvaluationSettings(nnunet_epochs=5))
    assert not installed.calls

    def one_slice(image: np.ndarray, labels: np.ndarray) -> None:
        labels[..., :6], labels[..., 7:], image[..., :6], image[..., 7:] = 0, 0, 0, 0

    flat = prepared(tmp_path / "flat", np.diag([-1.0, -1.0, 2.5, 1.0]), one_slice, size=(12, 24, 20))
    with pytest.raises(DataError, match="no 3d_fullres for these images: .* median size is 1 x 24 x 20 voxels"):
        utility(flat, copies(flat, tmp_path / "samples"), tmp_path / "work")
    assert [name for name, *_ in installed.calls] == ["nnUNetv2_plan_and_preprocess"]
    assert not (tmp_path / "work" / "data").exists()


def test_what_slices_need_volumes_need(
    installed: Installed, volumes: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_evaluable(volumes, ("utility",), EvaluationSettings(nnunet_epochs=5))
    partly = tuple(replace(row, annotated=("ball",)) for row in volumes.rows)
    with pytest.raises(DataError, match="core is not annotated in case case_00.., and nnU-Net takes no partly"):
        require_for_nnunet(PreparedDataset(volumes.folder, volumes.info, partly), 5)
    with pytest.raises(SettingsError, match="no trainer of 40 epochs"):
        require_for_nnunet(volumes, 40)
    monkeypatch.setattr(nnunet_judge, "nnunet_available", lambda: False)
    with pytest.raises(SettingsError, match=r"nnU-Net is not installed. Install it with: pip install 'anatogen\[nn"):
        require_for_nnunet(volumes, 5)
    assert not installed.calls


def test_the_stand_in_refuses_what_nnunet_refuses(installed: Installed, tmp_path: Path) -> None:
    """A stand-in that lets everything pass would prove nothing."""
    raw = write_nnunet(tmp_path / "raw", cases=2)
    label, image = raw / "labelsTr" / "ball_000.nii.gz", raw / "imagesTr" / "ball_000_0000.nii.gz"
    good = {file: file.read_bytes() for file in (label, image)}

    def refusal(file: Path, change: Callable[[Any], Any]) -> str:
        stored = nibabel.load(file)
        nibabel.save(change(nibabel.Nifti1Image(np.asarray(stored.dataobj).copy(), stored.affine)), file)
        with pytest.raises(DataError) as caught:
            work = tmp_path / f"work{len(installed.calls)}"
            train_with_nnunet([raw], raw / "imagesTr", work, configuration="3d_fullres")
        for kept, content in good.items():
            kept.write_bytes(content)
        return str(caught.value)

    def with_affine(stored: Any, *spacing: float) -> Any:
        return nibabel.Nifti1Image(np.array(stored.dataobj), np.diag([*spacing, 1.0]))

    def with_zooms(stored: Any) -> Any:
        stored.header["pixdim"][3] = 7
        stored.header["sform_code"] = 2
        return stored

    assert "Geometry mismatch" in refusal(label, lambda stored: with_affine(stored, -1, -1, 2))
    assert "Shape mismatch" in refusal(label, lambda stored: stored.slicer[:-1])
    assert "Unexpected labels" in refusal(
        label, lambda stored: nibabel.Nifti1Image(2 * np.array(stored.dataobj), stored.affine)
    )
    assert "axes, not three" in refusal(
        image, lambda stored: nibabel.Nifti1Image(np.array(stored.dataobj)[..., None, None], stored.affine)
    )
    assert "spacing in the header" in refusal(image, with_zooms)
