"""anatogen export"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import guarded


@guarded
def export(
    samples: Path = typer.Argument(help="A sample set."),
    out: Path = typer.Argument(help="New folder."),
    to: str = typer.Option(..., help="nnunet: an nnU-Net raw data set."),
) -> None:
    """Turn a sample set into another program's data set.

    Example: anatogen export samples Dataset501_Synthetic --to nnunet
    """
    from anatogen.errors import SettingsError, nearest
    from anatogen.generation.sample_set import SampleSet
    from anatogen.interop.nnunet import export_nnunet
    from anatogen.runtime import Progress

    if to != "nnunet":
        raise SettingsError(f"there is no export to '{to}'", remedy=nearest(to, ["nnunet"]))
    opened = SampleSet.open(samples)
    with Progress("exporting", len(opened.entries), "images") as bar:
        export_nnunet(opened, out, progress=lambda done, total: bar.update(done))
    print(f"{out}: {len(opened.entries)} cases, classes {', '.join(opened.schema.names)}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)
