"""`anatogen`: the command line, with one module for each command."""

from __future__ import annotations

import typer

from anatogen.cli import (
    average,
    balance,
    check,
    compare,
    complete,
    demo,
    edit,
    evaluate,
    export,
    import_,
    info,
    interpolate,
    prepare,
    sample,
    train,
    translate,
    watch,
)
from anatogen.cli.common import version_option

app = typer.Typer(
    name="anatogen",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help=(
        "Generate medical images that follow a given anatomy.\n\n"
        "Example:\n\n"
        "  anatogen prepare Dataset004_Hippocampus data/hippocampus --size 64 --axis sagittal\n\n"
        "  anatogen train data/hippocampus --out runs/hippocampus --max-time 10m\n\n"
        "  anatogen sample runs/hippocampus --masks data/hippocampus --out samples\n\n"
        "  anatogen evaluate samples --dataset data/hippocampus --out report"
    ),
)


@app.callback()
def _main(version: bool = version_option) -> None:
    pass


for module in (
    demo,
    check,
    prepare,
    info,
    train,
    average,
    watch,
    edit,
    sample,
    interpolate,
    complete,
    translate,
    balance,
    evaluate,
    compare,
    import_,
    export,
):
    module.add_to(app)
