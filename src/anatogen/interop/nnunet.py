"""A sample set as an nnU-Net raw data set: imagesTr, labelsTr, dataset.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anatogen.errors import DataError, SettingsError
from anatogen.generation.sample_set import SampleSet
from anatogen.io.nifti import read_nifti, write_nifti
from anatogen.runtime import writing
from anatogen.volume import Volume, with_last_axis


def export_nnunet(samples: SampleSet, out: Path, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write `samples` to the new folder `out`, on which nnU-Net's integrity check passes. Returns `out`.

    NIfTI samples keep their geometry and units; others lie on a grid of 1 mm, their values from -1 to 1 spread over
    0 to 1000. A slice becomes a volume of one voxel across its axis. Of a paired set only the generated images come
    along. Raises what `require_exportable` does.
    """
    require_exportable(samples, out)
    with writing(out) as partial:
        (partial / "imagesTr").mkdir(parents=True)
        (partial / "labelsTr").mkdir()
        for number, entry in enumerate(samples.entries):
            channels, labels = _volumes(samples, entry)
            for c, channel in enumerate(channels):
                write_nifti(partial / "imagesTr" / f"{entry['id']}_{c:04d}.nii.gz", channel)
            write_nifti(partial / "labelsTr" / f"{entry['id']}.nii.gz", labels)
            if progress is not None:
                progress(number + 1, len(samples.entries))
        names = samples.header.get("channels") or [f"channel {c}" for c in range(len(channels))]
        description = {
            "channel_names": {str(c): name for c, name in enumerate(names)},
            "labels": {"background": 0, **{c.name: c.index for c in samples.schema.classes}},
            "numTraining": len(samples.entries),
            "file_ending": ".nii.gz",
            "name": out.name,
            "description": "Synthetic images made by anatogen from label maps. Not images of patients.",
            "model": samples.header["model"],
        }
        (partial / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
    return out


def require_exportable(samples: SampleSet, out: Path) -> None:
    """Raises DataError where a class was left free or the model is unconditional, for the label map then does not say
    what is in the image, and SettingsError where `out` is there already.
    """
    if out.exists():
        raise SettingsError("is there already", path=out, remedy="Choose another folder or remove it")
    free = sorted({name for entry in samples.entries for name in entry["free"]})
    if free:
        raise DataError(
            f"was made with {', '.join(free)} left free, so its label maps are not the truth of its images",
            path=samples.folder,
            remedy="Sample with every class given",
        )
    if samples.header.get("encoding") == "none":
        raise DataError(
            "was made by an unconditional model, which does not see the label maps",
            path=samples.folder,
            remedy="Sample with a model that was trained on label maps",
        )


def _slices_last(volume: Volume) -> Volume:
    """A volume of one voxel across an axis with that axis last, where nnU-Net's 2D configuration takes its slices from."""
    return with_last_axis(volume, volume.grid.index(1)) if volume.grid.count(1) == 1 else volume


def _volumes(samples: SampleSet, entry: dict[str, Any]) -> tuple[list[Volume], Volume]:
    """The channels and the label map of one sample as volumes on one grid."""
    if samples.header["format"] == "nifti":
        image = read_nifti(samples.folder / entry["file"], channels=len(entry["place"]["low"]))
        labels = read_nifti(samples.folder / entry["labels"])
        array = image.array.reshape(*image.grid, -1)
        channels = [_slices_last(Volume(array[..., c], image.affine)) for c in range(array.shape[-1])]
        return channels, _slices_last(labels)
    picture, drawn = samples.image(entry), samples.label_map(entry)
    to_volume = (2, 1, 0) if drawn.ndim == 3 else (1, 0)
    affine = np.diag([-1.0, -1.0, -1.0, 1.0])

    def volume(array: Any) -> Volume:
        array = array.transpose(to_volume)
        return Volume(array if array.ndim == 3 else array[..., None], affine)

    units = np.rint((picture + 1) * 500).astype(np.int16)
    kind = np.uint8 if samples.schema.count <= 256 else np.uint16
    return [volume(channel) for channel in units], volume(drawn.astype(kind))
