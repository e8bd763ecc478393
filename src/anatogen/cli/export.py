"""anatogen export"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def export(
    source: Path = typer.Argument(metavar="SAMPLES|RUN", help="A sample set (to nnunet) or a run (to diffusers)."),
    out: Path = typer.Argument(help="New folder."),
    to: str = typer.Option(..., help="nnunet: a raw data set. diffusers: a UNet2DModel."),
) -> None:
    """Turn a sample set or a run into what another program reads.

    Example: anatogen export samples Dataset501_Synthetic --to nnunet
    """
    from anatogen.errors import SettingsError, nearest
    from anatogen.generation.sample_set import SampleSet
    from anatogen.interop.diffusers import export_checkpoint
    from anatogen.interop.nnunet import export_nnunet
    from anatogen.runtime import Progress

    if to == "diffusers":
        export_checkpoint(source, out)
        print(f"{out}: load it with UNet2DModel.from_pretrained")
        return
    if to != "nnunet":
        raise SettingsError(f"there is no export to '{to}'", remedy=nearest(to, ["nnunet", "diffusers"]))
    opened = SampleSet.open(source)
    with Progress("exporting", len(opened.entries), "images") as bar:
        export_nnunet(opened, out, progress=lambda done, total: bar.update(done))
    print(f"{out}: {len(opened.entries)} cases, classes {', '.join(opened.schema.names)}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)
