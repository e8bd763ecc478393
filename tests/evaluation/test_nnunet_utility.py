"""Utility for training nnU-Net, with an executable that stands in for its commands and segments by the mean of each
class.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anatogen.data.intensity import IntensityMapping
from anatogen.data.placement import Placement
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, Interrupted, SettingsError
from anatogen.evaluation.sections.utility import real_parts
from anatogen.evaluation.sections.utility_nnunet import NnunetUtility, require_for_nnunet, utility_by_nnunet
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.io.nnunet_raw import raw_case, read_label_map, write_raw
from anatogen.judges import nnunet as nnunet_judge
from anatogen.judges.utility import Parts, dice_of_patients
from anatogen.progress import Bars, watched_by
from anatogen.reporting.answers import answers
from anatogen.reporting.results import Report, UtilityResult
from cohorts import RealImages
from nnunet_stand_in import Installed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    found = Installed(tmp_path / "bin", monkeypatch)
    found.run_in_this_process(monkeypatch)
    return found


@pytest.fixture
def copies(run_folder: Path, dataset: PreparedDataset, tmp_path: Path) -> SampleSet:
    """A sample set whose images are the real heldout ones."""
    rows = dataset.split("heldout")
    requests = requests_from_dataset(dataset, rows, dataset.schema.states())
    generator = Generator.load(run_folder, device="cpu")
    samples = write_sample_set(generator, requests, tmp_path / "samples", image_format="npy")
    for entry, image in zip(samples.entries, dataset.load(rows).images.numpy(), strict=True):
        np.save(samples.folder / entry.file, image)
    return samples


def trained(installed: Installed) -> list[str]:
    """The mixtures that were trained since the last look."""
    names = [Path(homes["nnUNet_raw"]).parent.name for name, _, homes in installed.calls if name == "nnUNetv2_train"]
    installed.log.unlink(missing_ok=True)
    return names


def test_copies_are_as_useful_and_nothing_is_done_twice(
    installed: Installed, dataset: PreparedDataset, copies: SampleSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "report" / "nnunet"

    def call(samples: SampleSet = copies) -> dict[str, dict[str, float]]:
        with watched_by(Bars()):
            made = utility_by_nnunet(dataset, samples, samples.entries, work, 50, device="cpu")
            return made.model_dump(mode="json", exclude_unset=True)

    found = call()
    real, synthetic, both = (found[name] for name in ("real", "synthetic", "both"))
    test, count = real_parts(dataset, "test"), len(dataset.split("heldout"))
    assert {"mean", "per_class", "ci95", "difference_to_real", "difference_ci95"} <= both.keys()
    assert real["per_class"].keys() == {"ball", "core"} and min(real["per_class"].values()) > 0.9
    assert synthetic["mean"] == real["mean"] == both["mean"] and synthetic["difference_ci95"] is None
    assert (real["real_share"], synthetic["real_share"], both["real_share"]) == (1, 0, 0.5)
    assert both["n"]["real_images"] == [count] and both["n"]["synthetic_images"] == count
    assert both["n"]["steps"] == 12_500 and both["n"]["test_patients"] == len(np.unique(test.groups))
    assert found["epochs"] == 50 and found["trainer"] == "nnUNetTrainer_50epochs" and "mixtures" not in found

    # What was scored lies where it says, on the grid of the data set's label maps, and by the built-in one's function.
    predicted = [read_label_map(work / "real" / "predictions" / f"{row.id}.nii.gz", 2) for row in dataset.split("test")]
    scores = dice_of_patients(np.stack(predicted), test, 3)
    assert real["per_class"]["ball"] == pytest.approx(scores[:, 0].mean())
    assert {p.name for p in work.iterdir()} == {f"{n}{e}" for n in ("real", "synthetic", "both") for e in ("", ".json")}
    assert not (work / "real" / "raw").exists() and (work / "real" / "results").exists()
    lines = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("nnU-Net: ") and "nnUNetv2" in line
    ]
    assert len(lines) == 9 and "both: nnUNetv2_train 1 2d all -tr nnUNetTrainer_50epochs -device cpu" in lines[7]

    assert trained(installed) == ["real", "synthetic", "both"]
    assert call() == found and trained(installed) == []
    (work / "both" / "predictions" / f"{dataset.split('test')[0].id}.nii.gz").unlink()
    (work / "real.json").write_text("{torn")
    assert call() == found and trained(installed) == ["real", "both"]
    first = copies.folder / copies.entries[0].file
    np.save(first, np.load(first) * 0.5)
    call()
    assert trained(installed) == ["synthetic", "both"]
    assert [p.name for p in work.iterdir() if p.name == "data"] == []


def test_wrong_images_are_found_out(
    installed: Installed, dataset: PreparedDataset, copies: SampleSet, tmp_path: Path
) -> None:
    """Inverted images: the brightest class is looked for where it is darkest."""
    for entry in copies.entries:
        np.save(copies.folder / entry.file, -np.load(copies.folder / entry.file))
    result = utility_by_nnunet(dataset, copies, copies.entries, tmp_path / "work", 1, device="cpu")
    found = result.model_dump()
    assert found["synthetic"]["per_class"]["core"] == 0 and found["real"]["per_class"]["core"] > 0.9
    assert (
        found["synthetic"]["difference_to_real"] < -0.3 and found["synthetic"]["difference_ci95"] is None
    )  # few patients
    assert found["synthetic"]["difference_to_real"] == pytest.approx(found["synthetic"]["mean"] - found["real"]["mean"])

    utility = UtilityResult(real=result.real, synthetic=result.synthetic, both=result.both)
    report = NnunetUtility.place(Report(utility=utility), result)
    (table,) = answers(report, ("ball", "core"))[1].tables[1:]
    assert [row.label for row in table.rows] == ["real", "synthetic", "both"] and "1 epoch" in table.caption
    assert all(len(row.cells) + 1 == len(table.columns) for row in table.rows)
    assert len(answers(Report(utility=utility), ("ball", "core"))[1].tables) == 1


def test_what_was_stopped_is_begun_again_and_nothing_foreign_is_removed(
    installed: Installed,
    dataset: PreparedDataset,
    copies: SampleSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = tmp_path / "work"
    run = nnunet_judge._run

    def stopped(command: list[str], environment: dict[str, str], log: Path) -> None:
        if command[0] == "nnUNetv2_predict" and log.parent.name == "synthetic":
            raise KeyboardInterrupt
        run(command, environment, log)

    with monkeypatch.context() as patch:
        patch.setattr(nnunet_judge, "_run", stopped)
        with pytest.raises(Interrupted, match="finished of real, synthetic, both: real. Run the same command again"):
            utility_by_nnunet(dataset, copies, copies.entries, work, 1, device="cpu")
    assert trained(installed) == ["real", "synthetic"] and not (work / "data").exists()
    installed.write(failing="nnUNetv2_train")
    with pytest.raises(DataError, match=r"nnunet.log: nnUNetv2_train failed with exit status 3"):
        utility_by_nnunet(dataset, copies, copies.entries, work, 1, device="cpu")
    installed.write()
    trained(installed)
    utility_by_nnunet(dataset, copies, copies.entries, work, 1, device="cpu")
    assert trained(installed) == ["synthetic", "both"]

    (tmp_path / "other" / "real").mkdir(parents=True)
    with pytest.raises(SettingsError, match="already exists and is not of this command"):
        utility_by_nnunet(dataset, copies, copies.entries, tmp_path / "other", 1, device="cpu")
    assert (tmp_path / "other" / "real").is_dir() and not trained(installed)


def test_partly_annotated_cases_and_free_classes_are_refused(
    installed: Installed, dataset: PreparedDataset, copies: SampleSet, tmp_path: Path
) -> None:
    require_for_nnunet(dataset, 50)
    free = SampleSet(copies.folder, copies.header, [copies.entries[0].model_copy(update={"free": ("core",)})])
    with pytest.raises(DataError, match="made with core left free"):
        utility_by_nnunet(dataset, free, free.entries, tmp_path / "work", 1, device="cpu")
    some = tuple(replace(row, annotated=("ball",)) if row.split == "test" else row for row in dataset.rows)
    require_for_nnunet(
        PreparedDataset(dataset.folder, dataset.info, some), 50
    )  # the score leaves out what is not there
    none = tuple(replace(row, annotated=("ball",)) for row in dataset.rows)
    with pytest.raises(
        DataError, match="core is not annotated in case case_00.., and nnU-Net takes no partly annotated"
    ):
        require_for_nnunet(PreparedDataset(dataset.folder, dataset.info, none), 50)
    classes = [replace(c, name="ignore") if c.name == "core" else c for c in dataset.info.classes]
    with pytest.raises(SettingsError, match="meaning of its own for a class called ignore"):
        require_for_nnunet(
            PreparedDataset(dataset.folder, dataset.info.model_copy(update={"classes": classes}), dataset.rows), 50
        )
    assert not installed.calls


def test_nnunet_cuts_across_the_thickest_axis(installed: Installed, dataset_folder: Path, tmp_path: Path) -> None:
    """Sagittal slices of 1 mm have pixels of 1 x 2.5 mm here: as they are, nnU-Net would train on lines."""
    source = open_source(str(dataset_folder.parent / "raw"))
    settings = PrepareSettings(size=(16, 24), axis="sagittal", fit="crop", workers=1)
    dataset = prepare(source, tmp_path / "data", settings, version="test")
    requests = requests_from_dataset(dataset, dataset.split("heldout"), dataset.schema.states())
    samples = write_sample_set(RealImages(dataset), requests, tmp_path / "samples", image_format="npy")  # type: ignore[arg-type]
    utility_by_nnunet(dataset, samples, samples.entries, tmp_path / "work", 1, device="cpu")
    for given in installed.given:
        for case in given["cases"].values():
            assert case["shape"] == [24, 16, 1] and np.allclose(case["spacing"], (1, 2.5, 5))
    assert installed.given


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "volume"])
def test_label_maps_come_back_as_they_were(tmp_path: Path, axis: str) -> None:
    rng = np.random.default_rng(0)
    shape = (8, 9, 11) if axis == "volume" else (9, 11)
    labels = rng.integers(0, 4, shape)
    image = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
    image.reshape(2, -1)[:, :2] = -1, 1
    side = {"volume": (11, 9, 8), "axial": (11, 9, 13), "coronal": (11, 13, 9), "sagittal": (13, 11, 9)}[axis]
    mapping = [IntensityMapping(1, 0, 0, 1000), IntensityMapping(1, 0, -1000, 0)]
    place = Placement.at(np.diag([-1, -2, -3, 1]).tolist(), side, (axis, shape, "crop"), 0, mapping, "CT")
    volumes = place.image(image), place.labels(labels), place.cut.sliced
    cases = [raw_case("a", *volumes), raw_case("../b", *volumes, labelled=False)]
    written = write_raw(tmp_path, iter(cases), ["CT portal", "T1"], ["x", "y", "z"])
    assert written[0] == "a" and written[1].startswith("b-")
    assert np.array_equal(read_label_map(tmp_path / "labelsTr" / "a.nii.gz", len(shape)), labels)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.nii.gz")}
    images = {f"{d}_000{c}.nii.gz" for d in ("imagesTr/a", f"imagesTs/{written[1]}") for c in (0, 1)}
    assert names == {"labelsTr/a.nii.gz"} | images
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT", "1": "T1"} and description["numTraining"] == 1
    for c, (low, high) in enumerate(((0, 1000), (-1000, 0))):
        stored = nibabel.load(tmp_path / "imagesTr" / f"a_000{c}.nii.gz")
        assert stored.get_data_dtype() == np.int16 and stored.shape[2] == (8 if axis == "volume" else 1)
        assert (stored.get_fdata().min(), stored.get_fdata().max()) == (low, high)


def test_dice_of_patients_counts_only_who_has_the_class(dataset: PreparedDataset) -> None:
    test = real_parts(dataset, "test")
    truth = test.labels.numpy()
    assert np.allclose(dice_of_patients(truth, test, 3), 1)
    without = Parts(test.images, test.labels.clamp(max=1), test.annotated, test.groups)
    assert np.isnan(dice_of_patients(truth, without, 3)[:, 1]).all()
