"""What stands in for nnU-Net's commands: they check a data set as nnU-Net does, plan 2d and 3d_fullres by its rules, and
segment by the nearest mean of each class. Light imports only, because each command is a process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

NAMES = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")


class Refused(Exception):
    """What nnU-Net would end with: an assertion, a RuntimeError or an IndexError."""


def run(name: str, arguments: Sequence[str], environment: Mapping[str, str], seen: Path | None = None) -> None:
    """Run a command. seen: a file to which shape, spacing and affine of each training case are written."""
    {NAMES[0]: _plan, NAMES[1]: _train, NAMES[2]: _predict}[name](
        list(arguments), {k: Path(v) for k, v in environment.items() if k.startswith("nnUNet_")}, seen
    )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise Refused(problem)


def _data_set(homes: Mapping[str, Path], number: str, home: str) -> Path:
    found = list(homes[f"nnUNet_{home}"].glob(f"Dataset{int(number):03d}_*"))
    _require(len(found) == 1, f"Could not find a dataset with the ID {number}")
    return found[0]


def _plan(arguments: list[str], homes: Mapping[str, Path], seen: Path | None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-d")
    parser.add_argument("-c")
    parser.add_argument("-npfp", type=int)
    parser.add_argument("-np", type=int)
    parser.add_argument("--verify_dataset_integrity", action="store_true")
    asked = parser.parse_args(arguments)
    raw = _data_set(homes, asked.d, "raw")
    cases = _verified(raw)
    if seen is not None:
        about = {
            case: {"shape": image.shape, "spacing": _spacing(image), "affine": image.affine.tolist()}
            for case, image in cases.items()
        }
        with seen.open("a") as file:
            file.write(json.dumps({"folder": str(raw), "cases": about}) + "\n")
    out = homes["nnUNet_preprocessed"] / raw.name
    out.mkdir()
    plans = _planned(list(cases.values()))
    (out / "nnUNetPlans.json").write_text(json.dumps({"dataset_name": raw.name, **plans}))
    if asked.c in plans["configurations"]:  # others are skipped without an error
        (out / f"nnUNetPlans_{asked.c}").mkdir()


def _verified(raw: Path) -> dict[str, Any]:
    """The first channel of each case, if all is as `--verify_dataset_integrity` wants it. Different places of image and
    label map are a warning of nnU-Net, and an error here.
    """
    about = json.loads((raw / "dataset.json").read_text())
    missing = {"labels", "channel_names", "numTraining", "file_ending"} - set(about)
    _require(not missing, f"not all required keys are present in dataset.json: {missing}")
    ignored = about["labels"].get("ignore")
    values = sorted(value for name, value in about["labels"].items() if name != "ignore")
    values += [] if ignored is None else [ignored]
    _require(values == list(range(len(values))), f"Labels must be in consecutive order, not {values}")
    cases = sorted({file.name[: -len("_0000.nii.gz")] for file in (raw / "imagesTr").iterdir()})
    _require(len(cases) == about["numTraining"], f"Did not find the expected number of training cases ({len(cases)})")
    orthogonal = about.get("overwrite_image_reader_writer") != "NibabelIO"
    found = {}
    for case in cases:
        label = _opened(raw / "labelsTr" / f"{case}.nii.gz", orthogonal)
        drawn = np.asarray(label.dataobj)
        _require(bool(np.isin(drawn, values).all()), f"Unexpected labels in {case}: {np.unique(drawn)}")
        channels = [_opened(file, orthogonal) for file in sorted((raw / "imagesTr").glob(f"{case}_????.nii.gz"))]
        _require(len(channels) == len(about["channel_names"]), f"Unexpected number of modalities in {case}")
        for image in channels:
            _require(image.shape == label.shape, f"Shape mismatch between segmentation and image of {case}")
            same = np.allclose(_spacing(image), _spacing(label)) and np.allclose(image.affine, label.affine)
            _require(same, f"Geometry mismatch between segmentation and image of {case}")
            _require(bool(np.isfinite(image.get_fdata()).all()), f"Images of {case} contain NaN")
        found[case] = channels[0]
    return found


def _opened(file: Path, orthogonal: bool) -> Any:
    """A file as SimpleITK would read it, or NibabelIO where axes need not be `orthogonal`."""
    image = nibabel.load(file)
    _require(image.ndim == 3, f"{file} has {image.ndim} axes, not three")
    lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
    stated = np.allclose(_spacing(image), lengths, rtol=1e-5) and int(image.header["sform_code"]) > 0
    _require(stated, f"the spacing in the header of {file} is not that of its affine")
    cosines = (image.affine[:3, :3] / lengths).T @ (image.affine[:3, :3] / lengths)
    skewed = np.abs(cosines - np.eye(3)).max() > 5e-5
    _require(not (orthogonal and skewed), f"ITK only supports orthonormal direction cosines, not those of {file}")
    return image


def _spacing(image: Any) -> list[float]:
    return [float(mm) for mm in image.header.get_zooms()]


def _planned(images: Sequence[Any]) -> dict[str, Any]:
    """2d and, if the axis of the largest spacing is longer than a voxel, 3d_fullres: in (z, y, x), that axis first."""
    spacings = np.array([_spacing(image)[::-1] for image in images])
    shapes = np.array([_without_zeros(np.asarray(image.dataobj).transpose(2, 1, 0)) for image in images])
    target = np.median(spacings, axis=0)
    order = [int(target.argmax()), *(axis for axis in range(3) if axis != target.argmax())]
    target = target[order]
    size = np.median(np.rint(shapes * spacings / np.median(spacings, axis=0)), axis=0)[order]
    configurations = {"2d": _network(size[1:], target[1:])}
    if size[0] != 1:
        configurations["3d_fullres"] = _network(size, target)
    return {
        "original_median_shape_after_transp": np.median(shapes, axis=0)[order].astype(int).tolist(),
        "configurations": configurations,
    }


def _without_zeros(array: np.ndarray) -> list[int]:
    """The shape of the box in which `array` is not 0."""
    there = np.argwhere(array != 0)
    return list(array.shape) if not len(there) else (np.ptp(there, axis=0) + 1).tolist()


def _network(size: np.ndarray, spacing: np.ndarray) -> dict[str, Any]:
    """A level for each halving of the axes that are long enough, and whose spacing is near the smallest of such."""
    stages, voxels, mm = 1, size.copy(), spacing.copy()
    while (voxels >= 8).any():
        halved = (voxels >= 8) & (mm < 2 * mm[voxels >= 8].min())
        if halved.sum() == 1 and voxels[halved][0] < 12:
            break
        voxels, mm, stages = np.where(halved, np.ceil(voxels / 2), voxels), np.where(halved, 2 * mm, mm), stages + 1
    kwargs = {"n_stages": stages}
    return {
        "patch_size": size.astype(int).tolist(),
        "spacing": spacing.tolist(),
        "architecture": {"arch_kwargs": kwargs},
    }


def _model(homes: Mapping[str, Path], number: str, configuration: str, trainer: str, fold: str) -> Path:
    name = _data_set(homes, number, "raw").name
    return homes["nnUNet_results"] / name / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"


def _train(arguments: list[str], homes: Mapping[str, Path], _: Path | None) -> None:
    parser = argparse.ArgumentParser()
    for name in ("number", "configuration", "fold"):
        parser.add_argument(name)
    parser.add_argument("-tr", default="nnUNetTrainer")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"])
    asked = parser.parse_args(arguments)
    raw, preprocessed = (_data_set(homes, asked.number, home) for home in ("raw", "preprocessed"))
    planned = json.loads((preprocessed / "nnUNetPlans.json").read_text())["configurations"]
    _require(asked.configuration in planned, f"Requested configuration {asked.configuration} not found in plans")
    _require((preprocessed / f"nnUNetPlans_{asked.configuration}").is_dir(), "nothing was preprocessed")
    stages = planned[asked.configuration]["architecture"]["arch_kwargs"]["n_stages"]
    _require(stages > 1, "list index out of range")
    labels = [_values(file) for file in sorted((raw / "labelsTr").iterdir())]
    images = [_values(file) for file in sorted((raw / "imagesTr").glob("*_0000.nii.gz"))]
    about = json.loads((raw / "dataset.json").read_text())["labels"]
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (images, labels)]
    classes = [value for name, value in about.items() if name != "ignore"]
    means = [float(flat[0][flat[1] == c].mean()) if (flat[1] == c).any() else 1e9 for c in classes]
    folder = _model(homes, asked.number, asked.configuration, asked.tr, asked.fold)
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").write_text(json.dumps(means))


def _predict(arguments: list[str], homes: Mapping[str, Path], _: Path | None) -> None:
    parser = argparse.ArgumentParser()
    for option in ("-i", "-o", "-d", "-c", "-f", "-tr", "-device", "-npp", "-nps"):
        parser.add_argument(option)
    parser.add_argument("--disable_progress_bar", action="store_true")
    asked = parser.parse_args(arguments)
    means = np.array(
        json.loads((_model(homes, asked.d, asked.c, asked.tr, asked.f) / "checkpoint_final.pth").read_text())
    )
    out = Path(asked.o)
    out.mkdir(parents=True)
    for path in Path(asked.i).glob("*_0000.nii.gz"):
        image = nibabel.load(path)
        nearest = np.abs(np.asarray(image.dataobj)[..., None] - means).argmin(-1).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(nearest, image.affine), out / path.name.replace("_0000.nii", ".nii"))


def _values(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)
