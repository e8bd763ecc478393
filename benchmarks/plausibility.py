"""Are plausibility limits right? Real maps of unseen patients should pass, edited ones fail the more the larger the edit.

Example: python benchmarks/plausibility.py data/hippocampus data/hippocampus-volumes --class anterior

Limits are learned from the training patients of each prepared data set; every third held-out map is edited.
"""

from __future__ import annotations

from pathlib import Path

from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.store import PreparedDataset
from anatogen.generation.edited_maps import EditedMaps, Editing, limits_of
from anatogen.generation.plan import DatasetMaps
from anatogen.progress import Bars, watched_by
from common import machine, parser_of, write_section

EDITS = (
    "grow {name} 1mm",
    "grow {name} 3mm",
    "grow {name} 5mm",
    "shrink {name} 2mm",
    "move {name} 5mm",
    "move {name} 10mm",
    "move {name} 20mm",
    "deform 0.3",
    "deform 0.6",
    "deform 0.9",
)


def shares(folder: Path, name: str) -> dict[str, str]:
    """For each kind of map, how many of how many are found implausible."""
    dataset = PreparedDataset.open(folder)
    limits = limits_of(dataset)
    found = {}
    for split in ("heldout", "test"):
        source = DatasetMaps(dataset, dataset.split(split))
        items = [source.item(i) for i in range(len(source))]
        bad = [item.origin.patient for item in items if limits.faults(item.labels, item.spacing_mm)]
        patients = {item.origin.patient for item in items}
        found[f"real, {split}"] = f"{len(bad)} of {len(items)} ({len(set(bad))} of {len(patients)} patients)"
    source = DatasetMaps(dataset, dataset.split("heldout")[::3])
    for text in EDITS:
        maps = EditedMaps(source, Editing(parse_edits([text.format(name=name)]), limits=limits))
        wrong = sum(bool(maps.item(i).origin.implausible) for i in range(len(maps)))
        found[text.format(name="CLASS")] = f"{wrong} of {len(maps)}"
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--class", dest="name", default="anterior", help="what is edited; else the first class")
    options = parser.parse_args()
    with watched_by(Bars()):
        names = {each: PreparedDataset.open(each).schema.names for each in options.datasets}
        columns = {
            each: shares(each, options.name if options.name in names[each] else names[each][0]) for each in names
        }
    kinds = next(iter(columns.values()))
    lines = ["| maps found implausible | " + " | ".join(each.name for each in columns) + " |"]
    lines += ["| --- |" + " --- |" * len(columns)]
    lines += [f"| {kind} | " + " | ".join(column[kind] for column in columns.values()) + " |" for kind in kinds]
    table = "\n".join(lines)
    write_section(
        "Are plausibility limits right?",
        f"""
`python benchmarks/plausibility.py {" ".join(each.name for each in columns)}`: label maps outside the limits that were
learned from the training patients; real ones should pass. CLASS is {options.name}, or the first class. {machine()}.

{table}
""",
    )


if __name__ == "__main__":
    main()
