"""The work of worker processes on a case. Imports nothing heavy, so that they start fast."""

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
    """The items of a case.

    Attributes:
        digest: Of the pixels of its image.
        blank: Whether these are all equal, so that unrelated cases may share the digest.
    """

    items: CaseItems
    digest: str
    blank: bool


def read_case(case: SourceCase, schema: LabelSchema, channels: int, settings: SliceSettings) -> ReadCase:
    """Read, check and cut one case. Raises DataError, with the file, if it cannot be used."""
    loaded = case.load()
    items = cut_case(replace(case, load=lambda: loaded), schema, channels, settings)
    pixels = canonical(loaded[0]).array
    return ReadCase(items, content_digest(pixels), bool((pixels == pixels.flat[0]).all()))


def content_digest(pixels: NDArray[Any]) -> str:
    """A digest of values and shape, whatever the type (float32 represents all 16-bit integers exactly)."""
    total = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    for plane in pixels:
        total.update(np.ascontiguousarray(plane, dtype=np.float32).data)
    return total.hexdigest()


def slice_settings(settings: SliceSettings) -> SliceSettings:
    """`settings` without the fields of a subclass, whose module a worker would have to load."""
    return SliceSettings(**{f.name: getattr(settings, f.name) for f in fields(SliceSettings)})
