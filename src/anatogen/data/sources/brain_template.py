"""The ICBM 2009a (MNI152) T1 brain template, distributed with nilearn, as a cohort of virtual subjects.

It is one anatomy, the average of 152 people (Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033). Each virtual
subject is the template, image and tissue maps together, under a smooth random deformation. A contiguous slab of axial
slices is held out: train and heldout subjects are outside it, val and test subjects inside. Results on it test the
software and have no medical meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError
from anatogen.labels import LabelSchema
from anatogen.seeds import derive_seed
from anatogen.volume import Volume

NAME = "brain-template"
NOTICE = (
    "One brain: the ICBM 2009a (MNI152) T1 template, an average of 152 people, under smooth random deformations. "
    "These results test the software and have no medical meaning."
)
SUBJECTS = {"train": 40, "heldout": 10, "val": 4, "test": 6}

SPACING_MM = 2.0
_BRAIN_MM = (-52.0, 74.0)  # range of axial slices, in MNI millimetres
_SLAB_MM = (4.0, 22.0)  # held out: the level of the lateral ventricles
_MARGIN_MM = 4.0  # excluded on each side of the slab, so that no neighbour of a held-out slice is trained on


def detect(location: str) -> bool:
    """Whether `location` names this source."""
    return location == NAME


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The virtual subjects. Raises DataError if nilearn, which contains the template, is not installed."""
    _template_folder()
    low, high = _BRAIN_MM
    below, above = _SLAB_MM[0] - _MARGIN_MM, _SLAB_MM[1] + _MARGIN_MM
    cases, number = [], 0
    for split, count in SUBJECTS.items():
        outside = split in ("train", "heldout")
        parts = {"inferior": (low, below), "superior": (above, high)} if outside else {"slab": _SLAB_MM}
        for _ in range(count):
            number += 1
            patient = f"virtual-{number:03d}"
            cases += [
                SourceCase(f"{patient}-{part}", patient, partial(_load, number, *span), split=split)
                for part, span in parts.items()
            ]
    schema = LabelSchema.from_names(["cerebrospinal fluid", "grey matter", "white matter"])
    return Source(NAME, location, schema, ("T1 MRI",), tuple(cases), NOTICE, patients_from="layout")


def _template_folder() -> Path:
    try:
        import nilearn
    except ImportError as error:
        raise DataError(
            "the brain template requires nilearn, which is not installed",
            path=NAME,
            hint="pip install 'anatogen[nilearn]'",
        ) from error
    return Path(nilearn.__file__).parent / "datasets" / "data"


@cache
def _template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(T1, CSF, grey, white), each 0..255, stacked (4, X, Y, Z), smoothed for sampling at SPACING_MM; and the
    affine.
    """
    import nibabel

    maps = []
    for name in ("t1", "gm", "wm"):
        image = nibabel.load(_template_folder() / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
        maps.append(np.asarray(image.dataobj, dtype=np.float32))
    t1, grey, white = maps
    brain = ndimage.binary_fill_holes(t1 > 0)
    fluid = np.where(brain, 255 - np.minimum(255, grey + white), 0).astype(np.float32)
    smooth = [ndimage.gaussian_filter(m, 0.25 * SPACING_MM) for m in (t1, fluid, grey, white)]
    return np.stack(smooth), np.asarray(image.affine, dtype=np.float64)


def _load(subject: int, low_mm: float, high_mm: float) -> tuple[Volume, Volume]:
    template, template_affine = _template()
    start = np.array([-78.0, -112.0, low_mm])
    shape = tuple(int(n) for n in np.rint((np.array([78.0, 78.0, high_mm]) - start) / SPACING_MM).astype(int))
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = start
    index = np.indices(shape, dtype=np.float64).reshape(3, -1)
    millimetres = affine[:3, :3] @ index + start[:, None]
    moved = _deform(millimetres, np.random.default_rng(derive_seed(NAME, subject)))
    voxels = np.linalg.solve(template_affine[:3, :3], moved - template_affine[:3, 3:])
    t1, fluid, grey, white = (ndimage.map_coordinates(m, voxels, order=1).reshape(shape) for m in template)
    tissue = np.stack([255 - fluid - grey - white, fluid, grey, white])
    return (
        Volume(np.rint(t1).astype(np.uint8), affine),
        Volume(tissue.argmax(axis=0).astype(np.uint8), affine),
    )


def _deform(points_mm: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The template positions of the points (3, N) of a subject: a small affine map and displacements of about 4 mm."""
    angles = rng.normal(0, np.deg2rad(3), 3)
    turn = np.array([[0, -angles[2], angles[1]], [angles[2], 0, -angles[0]], [-angles[1], angles[0], 0]])
    stretch = np.diag(rng.normal(1, 0.05, 3))
    centre = np.array([[0.0], [-18.0], [10.0]])
    moved = (stretch + turn) @ (points_mm - centre) + centre
    knots_mm, reach = 30.0, 8  # displacements at knots 30 mm apart, cubic splines between them
    knots = rng.normal(0, 4.0, (3, reach, reach, reach))
    position = (points_mm - centre) / knots_mm + (reach - 1) / 2
    return moved + np.stack([ndimage.map_coordinates(k, position, order=3, mode="nearest") for k in knots])
