"""nnU-Net's raw layout: dataset.json, imagesTr/CASE_0000.nii.gz (one file per channel), labelsTr/CASE.nii.gz.

"file_ending" may be .nii.gz, .nii, .nrrd, .mha or .mhd. "labels" may be regions (lists of values, which become the
classes into which they divide the values), may have gaps, and may name a value to "ignore", whose voxels are of unknown
class. `annotated_classes` in dataset.json, a list of class names for each case, is our extension for partly annotated
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.sources.declared import LabelReader, channel_names, read_description, schema_of, terms_of
from anatogen.errors import DataError
from anatogen.io.volumes import VOLUMES, read_volume
from anatogen.volume import Volume, same_grid


def detect(location: str) -> bool:
    """Whether there is a dataset.json beside imagesTr."""
    return (Path(location) / "dataset.json").is_file() and (Path(location) / "imagesTr").is_dir()


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The training cases of an nnU-Net raw data set. Raises DataError if dataset.json or a file is invalid."""
    folder = Path(location)
    description = read_description(folder / "dataset.json")
    schema = schema_of(description, folder / "dataset.json")
    names = channel_names(description, folder / "dataset.json")
    ending = description.get("file_ending", ".nii.gz")
    if ending not in VOLUMES:
        raise DataError(
            f"file ending '{ending}' is not supported",
            path=folder / "dataset.json",
            hint=f"Convert the files to one of {', '.join(VOLUMES)}",
        )
    annotated = description.get("annotated_classes", {})
    reader = LabelReader.of(schema, description)

    cases = []
    label_files = sorted(f for f in (folder / "labelsTr").glob(f"*{ending}") if not f.name.startswith("."))
    for label_file in label_files:
        case = label_file.name[: -len(ending)]
        image_files = tuple(folder / "imagesTr" / f"{case}_{c:04d}{ending}" for c in range(len(names)))
        listed = annotated.get(case)
        for name in listed or ():
            schema.index_of(name)
        cases.append(
            SourceCase(
                id=case,
                patient=case,
                load=partial(_load, image_files, label_file, reader),
                files=(*image_files, label_file),
                annotated=tuple(listed) if listed is not None else None,
            )
        )
    if not cases:
        raise DataError(
            f"contains no label maps (*{ending})", path=folder / "labelsTr", hint="Check file_ending in dataset.json"
        )
    return Source("nnunet", location, schema, names, tuple(cases), terms=terms_of(description))


def _load(image_files: tuple[Path, ...], label_file: Path, reader: LabelReader) -> tuple[Volume, Volume]:
    channels = [read_volume(file) for file in image_files]
    for file, channel in zip(image_files[1:], channels[1:], strict=True):
        if not same_grid(channels[0], channel):
            raise DataError(
                "differs in shape or position from the first channel",
                path=file,
                hint="Resample the channels to one grid",
            )
    array = channels[0].array if len(channels) == 1 else np.stack([c.array for c in channels], axis=-1)
    return replace(channels[0], array=array), reader(read_volume(label_file), label_file)
