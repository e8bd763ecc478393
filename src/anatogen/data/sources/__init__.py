"""Layouts of data, one module each. A layout turns a path into a `Source`; to add one, write a module and list it here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anatogen.data.sources import brain_template, nnunet, phantom
from anatogen.data.sources.base import Layout, Source, SourceCase
from anatogen.errors import DataError, SettingsError, nearest

__all__ = ["LAYOUTS", "Source", "SourceCase", "open_source"]

LAYOUTS: dict[str, Layout] = {"phantom": phantom, "nnunet": nnunet, "brain-template": brain_template}


def open_source(location: str, layout: str = "auto", classes: Sequence[str] | None = None) -> Source:
    """The cases at `location`, a path or the name of a built-in source. classes: names, where the layout has none.

    Raises DataError where nothing is there or no layout fits, SettingsError for an unknown layout.
    """
    if layout != "auto":
        if layout not in LAYOUTS:
            raise SettingsError(f"there is no layout '{layout}'", remedy=nearest(layout, LAYOUTS))
        return LAYOUTS[layout].open_source(location, classes)
    for candidate in LAYOUTS.values():
        if candidate.detect(location):
            return candidate.open_source(location, classes)
    if not Path(location).exists():
        raise DataError("there is no such file or folder", path=location, remedy="Check the path")
    raise DataError(
        "no known layout is found here",
        path=location,
        remedy="Expected an nnU-Net raw data set: dataset.json beside imagesTr/ and labelsTr/",
    )
