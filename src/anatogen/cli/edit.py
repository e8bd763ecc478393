"""anatogen edit"""

from __future__ import annotations

from pathlib import Path

import typer

from anatogen.cli.common import command_line, edit_option, guarded, implausible_option


@guarded
def edit(
    dataset: Path = typer.Argument(help="A prepared data set."),
    out: Path = typer.Argument(help="Folder for the new label maps; an incomplete one is resumed."),
    edits: list[str] = edit_option,
    split: str = typer.Option("test", help="Which label maps of the data set."),
    per_map: int = typer.Option(10, min=1, help="Edits of each label map, each drawn by its own seed."),
    count: int | None = typer.Option(None, min=1, help="Edits in all, of label maps spread evenly, --per-map of each."),
    seed: int = typer.Option(0, help="The same seed gives the same edits."),
    implausible: str = implausible_option,
) -> None:
    """Make new label maps from a data set's by editing them: grow, shrink, move, remove, mirror, deform, paste or
    interpolate.

    Example: anatogen edit data/liver edited --edit "grow liver 2..6mm; remove left_kidney; deform 0.3" --per-map 10

    Distances in mm are in the plane for slices, and in space for volumes; left is the patient's left. The folder has an
    overview.png with each edit before and after. Then:
    anatogen sample runs/liver --masks edited --out samples

    Several recipes take turns, and a range is drawn anew for each edit:
    anatogen edit data/liver edited --edit "move tumour 3..8mm" --edit "paste tumour; deform 0.1..0.3"
    """
    from anatogen.workflows.edit import EditChoice, EditRequest
    from anatogen.workflows.edit import edit as run_workflow

    result = run_workflow(
        EditRequest(
            dataset=dataset,
            out=out,
            edits=EditChoice(tuple(edits), per_map, implausible),
            split=split,
            count=count,
            seed=seed,
            command=command_line(),
        )
    )
    for note in result.notes:
        print(note)
    print(f"{result.folder}: {len(result.maps)} label maps, overview in {result.overview}")
    print(f"Next: anatogen sample RUN --masks {result.folder} --out SAMPLES")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(edit)
