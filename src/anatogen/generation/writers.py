"""Formats of generated images and their label maps; one entry of FORMATS each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.io.npy import read_npy, write_npy
from anatogen.io.pictures import read_label_picture, read_png, write_label_png, write_png


@dataclass(frozen=True)
class Format:
    """How one format is written and read: images (C, *spatial) in [-1, 1], label maps (*spatial)."""

    ending: str
    write_image: Callable[[Path, NDArray[np.float32]], None]
    write_labels: Callable[[Path, NDArray[np.int64]], None]
    read_image: Callable[[Path], NDArray[Any]]
    read_labels: Callable[[Path], NDArray[Any]]


FORMATS = {
    "png": Format("png", write_png, write_label_png, read_png, read_label_picture),
    "npy": Format("npy", write_npy, write_npy, read_npy, read_npy),
}
