"""anatogen export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anatogen.cli.common import guarded

if TYPE_CHECKING:
    from anatogen.generation.sample_set import SampleSet


@guarded
def export(
    source: Path = typer.Argument(metavar="SAMPLES|RUN", help="A sample set (to nnunet) or a run (to diffusers)."),
    out: Path = typer.Argument(help="New folder."),
    to: str = typer.Option(..., help="nnunet: a raw data set. diffusers: a UNet2DModel."),
    dataset: Path | None = typer.Option(
        None, help="What the model was trained on, to look for copies in, where evaluate has not looked yet."
    ),
    accept_copies: bool = typer.Option(
        False, "--accept-copies", help="Export a sample set in which more training patients are copied than by chance."
    ),
) -> None:
    """Turn a sample set or a run into what another program reads.

    A sample set that copies training patients is refused.

    Example: anatogen export samples Dataset501_Synthetic --to nnunet --dataset data/liver
    """
    from anatogen.errors import SettingsError, nearest
    from anatogen.generation.sample_set import SampleSet
    from anatogen.interop.diffusers import export_checkpoint
    from anatogen.interop.nnunet_export import export_nnunet, require_exportable
    from anatogen.progress import Progress

    if to == "diffusers":
        export_checkpoint(source, out)
        print(f"{out}: load it with UNet2DModel.from_pretrained")
        return
    if to != "nnunet":
        raise SettingsError(f"there is no export to '{to}'", hint=nearest(to, ["nnunet", "diffusers"]))
    opened = SampleSet.open(source)
    require_exportable(opened, out)
    _require_no_copies(opened, dataset, accept_copies)
    with Progress("exporting", len(opened.entries), "images") as bar:
        export_nnunet(opened, out, progress=lambda done, total: bar.update(done))
    print(f"{out}: {len(opened.entries)} cases, classes {', '.join(opened.schema.names)}")


def _require_no_copies(samples: SampleSet, dataset: Path | None, accepted: bool) -> None:
    """Raises DataError where copies are known of, or are found in `dataset`; says what is known otherwise."""
    from anatogen.data.store import PreparedDataset
    from anatogen.errors import DataError
    from anatogen.evaluation.copies import copies_of, read_privacy, write_privacy
    from anatogen.progress import Progress

    found = read_privacy(samples)
    if found is None and dataset is not None:
        opened = PreparedDataset.open(dataset)
        with Progress("looking for copies", 1.0, "s") as bar:  # in shares: how many images it takes is not known yet
            measured = copies_of(samples, opened, progress=lambda done, total: bar.update(done / total))
        found = write_privacy(samples, measured.rate)
    if found is None:
        if not accepted:
            print(
                "warning: copies of training patients were not looked for: "
                "give --dataset with what the model was trained on, or run anatogen evaluate first"
            )
    elif found.above_chance and not accepted:
        raise DataError(
            found.verdict.rstrip("."),
            path=samples.folder,
            hint="Sample with --reject-copies, or export the copies all the same with --accept-copies",
        )
    else:
        print(found.verdict)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)
