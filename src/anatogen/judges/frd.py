"""The Frechet radiomics distance (Konz et al. 2024, arXiv:2412.01496), by its authors' package `frd-score`."""

from __future__ import annotations

import contextlib
import io
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.io.pictures import write_png


def frd_available() -> bool:
    """Whether `frd-score` and its dependency pyradiomics are installed."""
    return all(find_spec(name) is not None for name in ("frd_score", "radiomics"))


def radiomics_distance(generated: NDArray[np.float32], real: NDArray[np.float32]) -> float:
    """FRD (version 1, a logarithm: lower is closer) of whole images, normalised together.

    Args:
        generated: (N, C, H, W) in [-1, 1]; only the first channel is used.
        real: (M, C, H, W) in [-1, 1].

    Raises:
        ImportError: `frd_available` is False.
    """
    from frd_score import compute_frd

    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
        folders = []
        for name, images in (("generated", generated), ("real", real)):
            folder = Path(work) / name
            folder.mkdir()
            for number, image in enumerate(images):
                write_png(folder / f"{number:05d}.png", image[:1])
            folders.append(str(folder))
        return float(compute_frd(folders, match_sample_count=True))
