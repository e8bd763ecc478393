"""nnU-Net's raw layout: dataset.json, imagesTr/CASE_0000.nii.gz (a file a channel), labelsTr/CASE.nii.gz.

`annotated_classes` in dataset.json, a list of class names for each case, is our addition for partly annotated data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import DataError
from anatogen.io.nifti import read_nifti
from anatogen.labels import LabelSchema
from anatogen.volume import Volume, same_grid


def detect(location: str) -> bool:
    """Whether there is a dataset.json beside imagesTr."""
    return (Path(location) / "dataset.json").is_file() and (Path(location) / "imagesTr").is_dir()


def open_source(location: str, classes: Sequence[str] | None = None) -> Source:
    """The training cases of an nnU-Net raw data set, whose dataset.json names the classes. Raises DataError where dataset.json or a file is wrong."""
    folder = Path(location)
    description = _read_description(folder / "dataset.json")
    schema = _schema(description, folder / "dataset.json")
    channels = tuple(description.get("channel_names") or description.get("modality") or {"0": "image"})
    names = tuple(
        str((description.get("channel_names") or description.get("modality") or {"0": "image"})[c]) for c in channels
    )
    ending = description.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise DataError(
            f"file ending '{ending}' is not read yet", path=folder / "dataset.json", hint="Convert to .nii.gz"
        )
    annotated = description.get("annotated_classes", {})

    cases = []
    label_files = sorted(f for f in (folder / "labelsTr").glob(f"*{ending}") if not f.name.startswith("."))
    for label_file in label_files:
        case = label_file.name[: -len(ending)]
        image_files = tuple(folder / "imagesTr" / f"{case}_{int(c):04d}{ending}" for c in channels)
        drawn = annotated.get(case)
        for name in drawn or ():
            schema.index_of(name)
        cases.append(
            SourceCase(
                id=case,
                patient=case,
                load=partial(_load, image_files, label_file),
                files=(*image_files, label_file),
                annotated=tuple(drawn) if drawn is not None else None,
            )
        )
    if not cases:
        raise DataError(
            f"there are no label maps (*{ending})", path=folder / "labelsTr", hint="Check file_ending in dataset.json"
        )
    terms = {key: str(description[key]) for key in ("licence", "license", "reference") if description.get(key)}
    return Source("nnunet", location, schema, names, tuple(cases), terms=terms)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError("there is no such file", path=path, hint="Name the folder that holds dataset.json") from error
    except ValueError as error:
        raise DataError(f"is not valid JSON ({error})", path=path) from error
    if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
        raise DataError('has no "labels" object', path=path, hint='Add "labels": {"background": 0, ...}')
    return description


def _schema(description: dict[str, Any], path: Path) -> LabelSchema:
    labels = description["labels"]
    if all(str(key).isdigit() for key in labels):  # the Medical Segmentation Decathlon's way round
        labels = {name: int(key) for key, name in labels.items()}
    if not all(isinstance(value, int) for value in labels.values()):
        raise DataError("region-based labels are not supported", path=path, hint="Give each class one integer")
    by_value = {value: name for name, value in labels.items()}
    if sorted(by_value) != list(range(len(labels))):
        raise DataError("labels must be numbered 0, 1, 2, ... without gaps, 0 the background", path=path)
    return LabelSchema.from_names(by_value[value] for value in range(1, len(labels)))


def _load(image_files: tuple[Path, ...], label_file: Path) -> tuple[Volume, Volume]:
    channels = [read_nifti(file) for file in image_files]
    for file, channel in zip(image_files[1:], channels[1:], strict=True):
        if not same_grid(channels[0], channel):
            raise DataError(
                "differs in shape or place from the first channel",
                path=file,
                hint="Resample the channels to one grid",
            )
    array = channels[0].array if len(channels) == 1 else np.stack([c.array for c in channels], axis=-1)
    return Volume(array, channels[0].affine), read_nifti(label_file)
