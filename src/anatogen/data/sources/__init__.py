"""Data layouts, one module each, which turn a path into a `Source`. To add one, write a module and list it here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anatogen.data.sources import (
    brain_template,
    ct_org,
    decathlon,
    dicom,
    duke_breast,
    folders,
    hippocampus,
    nifti_pairs,
    nnunet,
    phantom,
    segguided,
)
from anatogen.data.sources.base import Layout, Source, SourceCase
from anatogen.data.sources.participants import with_participants
from anatogen.errors import DataError, SettingsError, nearest

__all__ = ["LAYOUTS", "Source", "SourceCase", "open_source"]

# In the order of detection, the most specific first.
LAYOUTS: dict[str, Layout] = {
    "phantom": phantom,
    "hippocampus": hippocampus,
    "brain-template": brain_template,
    "decathlon": decathlon,
    "nnunet": nnunet,
    "ct-org": ct_org,
    "segguided": segguided,
    "duke-breast": duke_breast,
    "dicom": dicom,
    "nifti-pairs": nifti_pairs,
    "folders": folders,
}


def open_source(location: str, layout: str = "auto", classes: Sequence[str] | None = None) -> Source:
    """The cases at `location`.

    Args:
        location: A path or the name of a built-in source.
        layout: The layout; "auto" detects it.
        classes: Names of the classes 1, 2, ..., if the layout has none.

    Raises:
        DataError: `location` does not exist, or no layout fits.
        SettingsError: The layout is unknown.
    """
    if layout != "auto":
        if layout not in LAYOUTS:
            raise SettingsError(f"unknown layout '{layout}'", hint=nearest(layout, LAYOUTS))
        return with_participants(LAYOUTS[layout].open_source(location, classes))
    try:
        for candidate in LAYOUTS.values():
            if candidate.detect(location):
                return with_participants(candidate.open_source(location, classes))
        there = Path(location).exists()
    except OSError as error:  # name too long, loop of links, no permission
        raise DataError(
            f"cannot be accessed ({error.strerror or error})", path=location, hint="Check the path"
        ) from error
    if not there:
        raise DataError("does not exist", path=location, hint="Check the path")
    raise DataError(
        "has no known layout",
        path=location,
        hint=f"Arrange it as one of {', '.join(LAYOUTS)} (see the README), or set --layout",
    )
