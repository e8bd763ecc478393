"""Layouts of data, one module each. A layout turns a path into a `Source`; to add one, write a module and list it here."""

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

# In the order in which they are tried: the more a layout asks for, the earlier.
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
    """The cases at `location`, a path or the name of a built-in source. classes: names, where the layout has none.

    Raises DataError where nothing is there or no layout fits, SettingsError for an unknown layout.
    """
    if layout != "auto":
        if layout not in LAYOUTS:
            raise SettingsError(f"there is no layout '{layout}'", hint=nearest(layout, LAYOUTS))
        return with_participants(LAYOUTS[layout].open_source(location, classes))
    try:
        for candidate in LAYOUTS.values():
            if candidate.detect(location):
                return with_participants(candidate.open_source(location, classes))
        there = Path(location).exists()
    except OSError as error:  # a name that is too long, a loop of links, a folder that may not be read
        raise DataError(
            f"cannot be looked at ({error.strerror or error})", path=location, hint="Check the path"
        ) from error
    if not there:
        raise DataError("there is no such file or folder", path=location, hint="Check the path")
    raise DataError(
        "no known layout is found here",
        path=location,
        hint=f"Arrange it as one of {', '.join(LAYOUTS)} (the README shows them), or name it with --layout",
    )
