"""Makes the hippocampus set that ships with the package from the download of the Medical Segmentation Decathlon.

Task04_Hippocampus (CC-BY-SA 4.0) holds both hippocampi of most patients as two cases: an odd number and the next even
one are one patient's. The float images show it, because the step between their grey levels is a property of the scan:
of all pairs of cases with an equal step, all but one (by chance) are numbered so. This script therefore takes one
hippocampus a patient, 80 patients evenly spread over the sizes of the hippocampus, and splits them 44/16/4/16 within
blocks of equal size.

Images are stored without loss: a case has a few hundred grey levels, so each voxel is the number of its level.
`--verify` compares the file that ships with what would be made.

Example: python docs/tools/bundle_hippocampus.py Task04_Hippocampus --verify
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from anatogen.data.sources.hippocampus import BUNDLE, CLASSES
from anatogen.files import writing

PATIENTS = 80
SPLIT_OF_TWENTY = {"train": 11, "heldout": 4, "val": 1, "test": 4}


def patient_of(case: str) -> int:
    """hippocampus_003 and hippocampus_004 are patient 2's."""
    return (int(case.removeprefix("hippocampus_")) + 1) // 2


def read(folder: Path, case: str) -> tuple[NDArray[np.generic], NDArray[np.uint8], NDArray[np.float64]]:
    """Image, label map and affine of a case, from the Decathlon's names or nnU-Net's."""
    image_file = folder / "imagesTr" / f"{case}.nii.gz"
    if not image_file.exists():
        image_file = folder / "imagesTr" / f"{case}_0000.nii.gz"
    image = nibabel.load(image_file)
    labels = np.asarray(nibabel.load(folder / "labelsTr" / f"{case}.nii.gz").dataobj)
    assert image.dataobj.slope == 1 and image.dataobj.inter == 0
    assert set(np.unique(labels)) == {0, 1, 2}
    array = np.asarray(image.dataobj)
    return array.astype(array.dtype.newbyteorder("=")), labels.astype(np.uint8), np.asarray(image.affine)


def chosen(folder: Path) -> list[str]:
    """One case a patient, left and right by turns, evenly spread over the volume of the hippocampus, small to large."""
    of_patient: dict[int, list[str]] = {}
    for file in sorted((folder / "labelsTr").glob("hippocampus_*.nii.gz")):
        case = file.name.removesuffix(".nii.gz")
        of_patient.setdefault(patient_of(case), []).append(case)
    one_each = [cases[patient % len(cases)] for patient, cases in sorted(of_patient.items())]
    volume = {case: int((read(folder, case)[1] > 0).sum()) for case in one_each}
    by_size = sorted(one_each, key=lambda case: (volume[case], case))
    return [by_size[i] for i in np.linspace(0, len(by_size) - 1, PATIENTS).round().astype(int)]


def bundle(folder: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of the file. Per case: levels (grey levels, rising), image (numbers of levels), labels."""
    cases = chosen(folder)
    random = np.random.default_rng(4)
    block = [name for name, count in SPLIT_OF_TWENTY.items() for _ in range(count)]
    splits = [str(name) for _ in range(PATIENTS // len(block)) for name in random.permutation(block)]
    arrays: dict[str, NDArray[np.generic]] = {}
    affines = []
    for case in cases:
        image, labels, affine = read(folder, case)
        levels, numbers = np.unique(image, return_inverse=True)
        arrays[f"{case}/levels"] = levels
        arrays[f"{case}/image"] = numbers.reshape(image.shape).astype(np.uint8 if len(levels) <= 256 else np.uint16)
        arrays[f"{case}/labels"] = labels
        affines.append(affine)
    order = np.argsort(cases)
    return {
        "cases": np.array(cases)[order],
        "patients": np.array([f"patient_{patient_of(case):03d}" for case in cases])[order],
        "splits": np.array(splits)[order],
        "affines": np.stack(affines)[order],
        "classes": np.array(CLASSES),
        **{name: arrays[name] for name in sorted(arrays)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Task04_Hippocampus, or the same in nnU-Net's raw layout")
    parser.add_argument("--out", type=Path, default=BUNDLE)
    parser.add_argument("--verify", action="store_true", help="compare with the file that ships, write nothing")
    options = parser.parse_args()
    arrays = bundle(options.folder)
    if options.verify:
        with np.load(BUNDLE) as shipped:
            same = shipped.files == list(arrays) and all(
                shipped[name].dtype == array.dtype and np.array_equal(shipped[name], array)
                for name, array in arrays.items()
            )
        print(f"{BUNDLE}: {'the same' if same else 'DIFFERS'}")
        return 0 if same else 1
    with writing(options.out) as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{options.out}: {len(arrays['cases'])} patients, {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
