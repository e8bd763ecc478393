"""What worker processes do with a case. Imports nothing heavy, so that they start quickly (tests/data/test_worker.py)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.data.slicing import CaseItems, SliceSettings, cut_case
from anatogen.data.sources.base import SourceCase
from anatogen.labels import LabelSchema
from anatogen.volume import canonical


@dataclass(frozen=True)
class ReadCase:
    """The items of a case. digest: of its image's pixels. blank: whether these are all the same, so that others may have them too."""

    items: CaseItems
    digest: str
    blank: bool


def read_case(case: SourceCase, schema: LabelSchema, channels: int, settings: SliceSettings) -> ReadCase:
    """Read, check and cut one case. Raises DataError, naming the file, where it cannot be used."""
    loaded = case.load()
    items = cut_case(replace(case, load=lambda: loaded), schema, channels, settings)
    pixels = canonical(loaded[0]).array
    return ReadCase(items, content_digest(pixels), bool((pixels == pixels.flat[0]).all()))


def content_digest(pixels: NDArray[Any]) -> str:
    """The same for the same values in the same shape, whatever type holds them (float32 tells all of 16-bit integers apart)."""
    total = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    for plane in pixels:
        total.update(np.ascontiguousarray(plane, dtype=np.float32).data)
    return total.hexdigest()


def slice_settings(settings: SliceSettings) -> SliceSettings:
    """`settings` without what a subclass adds, whose module a worker would have to load."""
    return SliceSettings(**{f.name: getattr(settings, f.name) for f in fields(SliceSettings)})
