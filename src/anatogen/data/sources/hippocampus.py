"""The hippocampus of 80 patients, from the Medical Segmentation Decathlon (Task 04), bundled with this package.

T1-weighted MRI cropped around one hippocampus of each patient, about 36 x 50 x 35 voxels of 1 mm, with manual
annotations of the anterior and the posterior hippocampus (Vanderbilt University Medical Center; Simpson et al. 2019,
arXiv:1902.09063; Antonelli et al. 2022, doi:10.1038/s41467-022-30695-9). CC-BY-SA 4.0: see `bundled/ATTRIBUTION.md`.

The Decathlon treats the two hippocampi of a patient as two cases; here each patient has one, so that no patient is in
two splits. `docs/tools/bundle_hippocampus.py` creates the file from the Decathlon's download.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

NAME = "hippocampus"
BUNDLE = Path(__file__).parents[1] / "bundled" / "hippocampus.npz"
CLASSES = ("anterior", "posterior")
NOTICE = (
    "Real patients: T1 MRI of the hippocampus of 80 people, from the Medical Segmentation Decathlon, Task 04 "
    "(Vanderbilt University Medical Center; Simpson et al. 2019), CC-BY-SA 4.0."
)
TERMS = {
    "licence": "CC-BY-SA 4.0",
    "reference": "Vanderbilt University Medical Center, Medical Segmentation Decathlon Task04 (Simpson et al. 2019)",
}


def detect(location: str) -> bool:
    """Whether `location` names this source. A folder of that name in the working directory takes precedence."""
    return location == NAME and not Path(location).exists()


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The 80 patients with their split. Raises DataError if the package was installed without its data."""
    try:
        with np.load(BUNDLE) as stored:
            names, patients, splits = (stored[key].tolist() for key in ("cases", "patients", "splits"))
            affines = stored["affines"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError("cannot be read", path=BUNDLE, hint="Reinstall the package") from error
    cases = tuple(
        SourceCase(name, patient, partial(_load, name, affine), (BUNDLE,), split=split)
        for name, patient, split, affine in zip(names, patients, splits, affines, strict=True)
    )
    return Source(NAME, location, LabelSchema.from_names(CLASSES), ("T1 MRI",), cases, NOTICE, TERMS)


def _load(case: str, affine: np.ndarray) -> tuple[Volume, Volume]:
    """Image and label map exactly as in the Decathlon: gray levels, stored as indices into the list of levels."""
    with np.load(BUNDLE) as stored:
        image = stored[f"{case}/levels"][stored[f"{case}/image"]]
        labels = stored[f"{case}/labels"]
    return Volume(image, affine), Volume(labels, affine)
