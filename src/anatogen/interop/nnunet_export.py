"""A sample set as an nnU-Net raw data set: imagesTr, labelsTr, dataset.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anatogen.data.label_values import SourceLabels
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.generation.sample_set import SampleSet, require_true_maps
from anatogen.io.nifti import read_nifti
from anatogen.io.nnunet_raw import volumes_of, write_case, write_description
from anatogen.volume import Volume, with_last_axis


def export_nnunet(samples: SampleSet, out: Path, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write `samples` to the new folder `out`, on which nnU-Net's integrity check passes. Returns `out`.

    NIfTI samples keep their geometry and units; others lie on a grid of 1 mm, their values from -1 to 1 spread over
    0 to 1000. A slice becomes a volume of one voxel across its axis. Of a paired set only the generated images come
    along. Where the model was trained on label maps with other values than 0, 1, 2, ..., or on regions, the label maps get
    those again. Raises what `require_exportable` does.
    """
    require_exportable(samples, out)
    declared = SourceLabels.of(samples.header.get("about_model", {}).get("dataset", {}).get("labels"))
    with writing(out) as partial:
        for number, entry in enumerate(samples.entries):
            channels, labels = _volumes(samples, entry)
            labels = declared.restored(labels) if declared else labels
            write_case(partial, entry["id"], channels, labels)
            if progress is not None:
                progress(number + 1, len(samples.entries))
        write_description(
            partial,
            samples.header.get("channels") or [f"channel {c}" for c in range(len(channels))],
            samples.schema.names,
            len(samples.entries),
            name=out.name,
            description="Synthetic images made by anatogen from label maps. Not images of patients.",
            model=samples.header["model"],
            **(declared.nnunet(samples.schema.names) if declared else {}),
        )
    return out


def require_exportable(samples: SampleSet, out: Path) -> None:
    """Raises what `require_true_maps` does, and SettingsError where `out` is there already."""
    if out.exists():
        raise SettingsError("is there already", path=out, hint="Choose another folder or remove it")
    require_true_maps(samples)


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
    return volumes_of(samples.image(entry), samples.label_map(entry), samples.schema.count)
