"""Small data sets of the kinds that users bring, one builder each: a blob (class 1) with a core (class 2), in noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

SHAPE = (24, 26, 6)
AFFINE = np.diag([0.8, 0.8, 3.0, 1.0])


def blob(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """(image int16, labels uint8) of one case."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3) * (1, 1, 0.2)
    distance = np.linalg.norm(
        (np.indices(shape) - centre[:, None, None, None]) / np.reshape([1, 1, 0.4], (3, 1, 1, 1)), axis=0
    )
    labels = (distance < 8).astype(np.uint8) + (distance < 4)
    return (labels.astype(np.int16) * 300 + rng.normal(100, 20, shape)).astype(np.int16), labels.astype(np.uint8)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def nnunet(
    folder: Path, cases: int = 6, change: Callable[[int, np.ndarray], np.ndarray] | None = None, **more: Any
) -> Path:
    """nnU-Net's raw layout. change(number, labels) alters the label map of a case; more: of dataset.json."""
    for number in range(cases):
        image, labels = blob(number)
        save(folder / "imagesTr" / f"c{number}_0000.nii.gz", image)
        save(folder / "labelsTr" / f"c{number}.nii.gz", labels if change is None else change(number, labels))
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": cases, **more}))
    return folder


def decathlon(folder: Path, cases: int = 6, channels: int = 1) -> Path:
    """The Decathlon's layout; several channels lie in the last axis."""
    listed = []
    for number in range(cases):
        image, labels = blob(number)
        image = image if channels == 1 else np.stack([image + 50 * c for c in range(channels)], axis=-1)
        save(folder / "imagesTr" / f"x_{number:03d}.nii.gz", image)
        save(folder / "labelsTr" / f"x_{number:03d}.nii.gz", labels)
        listed.append({"image": f"./imagesTr/x_{number:03d}.nii.gz", "label": f"./labelsTr/x_{number:03d}.nii.gz"})
    (folder / "imagesTs").mkdir()
    description = {
        "name": "X", "tensorImageSize": "4D", "modality": {str(c): f"M{c}" for c in range(channels)},
        "labels": {"0": "background", "1": "a", "2": "b"}, "numTraining": cases, "training": listed, "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def sparse(number: int, labels: np.ndarray) -> np.ndarray:
    """Case 5 with a corner that nobody looked at (label 3)."""
    if number == 5:
        labels[:5, :7] = 3
    return labels


def regions_ignore(folder: Path, **more: Any) -> Path:
    """nnU-Net's regions, and a label to ignore."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    return nnunet(folder, change=sparse, labels=labels, regions_class_order=[1, 2], **more)


def brats(folder: Path) -> Path:
    """Values 0, 1, 2, 4 in three regions: 2 around 1 around 4."""

    def change(number: int, labels: np.ndarray) -> np.ndarray:
        inner = np.zeros_like(labels)
        inner[11:13, 12:14, 2:4] = 1
        return np.select([inner > 0, labels == 2, labels == 1], [4, 1, 2], 0).astype(np.uint8)

    return nnunet(folder, change=change, labels={"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": 4})


def scaled_labels(folder: Path) -> Path:
    """Labels as a scale factor of 8 bits leaves them: 0.996 and 2."""
    nnunet(folder)
    for path in (folder / "labelsTr").iterdir():
        labels = np.asarray(nibabel.load(path).dataobj)
        image = nibabel.Nifti1Image(np.rint(labels * 127.5 - 0.01).astype(np.uint8), AFFINE)
        image.header.set_slope_inter(2 / 255, 0)
        nibabel.save(image, path)
    return folder


def blurred_labels(folder: Path) -> Path:
    """Labels that were resampled linearly: most values lie very near to 0."""
    from scipy import ndimage

    return nnunet(folder, change=lambda _, labels: ndimage.gaussian_filter(labels.astype(np.float32), 1.5))


def two_forms(folder: Path) -> Path:
    """c1 has a qform only; in c2 qform and sform disagree."""
    nnunet(folder)
    for case, forms in (("c1", (AFFINE, None)), ("c2", (np.diag([-0.8, 0.8, -3.0, 1.0]), AFFINE))):
        path = folder / "imagesTr" / f"{case}_0000.nii.gz"
        image = nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), None)
        image.header.set_qform(forms[0], 1)
        image.header.set_sform(forms[1], 1 if forms[1] is not None else 0)
        nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), path)
    return folder


def with_quaternion(path: Path, b: float, c: float = 0.0) -> None:
    """Give an uncompressed or gzipped NIfTI-1 file no form but a qform with this quaternion, whatever its length."""
    import gzip

    data = bytearray(gzip.decompress(path.read_bytes()))
    data[252:256] = np.array([1, 0], "<i2").tobytes()  # qform_code, sform_code
    data[256:268] = np.array([b, c, 0], "<f4").tobytes()  # quatern_b, _c, _d
    path.write_bytes(gzip.compress(bytes(data)))


def tilted(degrees: float) -> np.ndarray:
    """The affine of a scan whose gantry was tilted: slices are shifted along y as they go up."""
    affine = AFFINE.copy()
    affine[1, 2] = 3.0 * np.tan(np.radians(degrees))
    return affine


def sheared(folder: Path, affine: np.ndarray, cases: int = 6) -> Path:
    """Cases on a grid that is not at right angles."""
    nnunet(folder, cases)
    for path in [*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()]:
        nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), affine), path)
    return folder


def channels(folder: Path, count: int = 2, cases: int = 6) -> Path:
    """Several channels, a file each."""
    nnunet(folder, cases, channel_names={str(c): f"T{c + 1}" for c in range(count)})
    for number in range(cases):
        image = blob(number)[0]
        for c in range(1, count):
            save(folder / "imagesTr" / f"c{number}_{c:04d}.nii.gz", (image[::-1] // (c + 1) + 37).astype(np.int16))
    return folder


COLOURS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)}


def colour_masks(folder: Path, cases: int = 6, side: int = 40) -> Path:
    """Pictures whose masks are colours: red around green on black."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        image, labels = (part[:, :, 0] for part in blob(number, (side, side, 1)))
        Image.fromarray((image // 4).clip(0, 255).astype(np.uint8)).save(folder / "images" / f"s{number}.png")
        Image.fromarray(np.array([COLOURS[v] for v in range(3)], np.uint8)[labels]).save(
            folder / "masks" / f"s{number}.png"
        )
    return folder
