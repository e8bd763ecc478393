"""Is a model that memorised eight images flagged, and a healthy one not? On real scans.

Example: python benchmarks/memorised.py --steps 2000 --work /path/for/intermediate/files

The hippocampus set with eight training images, one each of eight patients, and the same held-out patients for
comparison. The healthy model is the default one of `paper_tables.py`, trained on all training patients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anatogen import evaluate
from anatogen.data.store import PreparedDataset
from anatogen.progress import parse_duration
from common import hippocampus, machine, parser_of, trained, with_few_patients, write_section

KEPT = 8


def row(title: str, privacy: dict[str, Any]) -> str:
    attack = privacy["attack"]
    cells = [
        f"{privacy['copy_rate']:.3f} [{privacy['ci95'][0]:.3f}, {privacy['ci95'][1]:.3f}]",
        f"{privacy['expected']:.3f}",
        f"{privacy['p_value']:.2g}",
        "yes" if privacy["above_chance"] else "no",
        f"{privacy['features']['copy_rate']:.3f}, {privacy['features']['p_value']:.2g}",
        f"{attack['auc']:.2f} [{attack['ci95'][0]:.2f}, {attack['ci95'][1]:.2f}]",
    ]
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="of the model that is to learn by heart")
    parser.add_argument("--time", default="20m", help="training time of the healthy one, where it is not there yet")
    parser.add_argument("--count", type=int, default=200, help="images of each")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    all_of_it = hippocampus(options.work, options.raw)
    few = with_few_patients(all_of_it, options.work / f"hippocampus-{KEPT}", KEPT, middle_only=True)
    runs = options.work / "runs"
    models: dict[str, tuple[PreparedDataset, Path, dict[str, float]]] = {
        f"{KEPT} images by heart": (few, runs / f"hippocampus-{KEPT}-by-heart", {"steps": options.steps}),
        "healthy": (all_of_it, runs / "hippocampus-mat", {"max_time_s": parse_duration(options.time)}),
    }
    heads = ("copy rate", "by chance", "p", "flagged", "copy rate and p by features", "membership AUC")
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    verdicts = []
    for title, (dataset, run, length) in models.items():
        dataset.hold()
        trained(dataset, run, [], length)
        out = options.work / "memorised" / title.replace(" ", "-")
        found = evaluate(
            run, dataset, out, only=["privacy"], count=options.count, quick=True, command="benchmarks/memorised.py"
        )
        lines.append(row(title, found["privacy"]))
        verdicts.append(f"**{title}**: {found['privacy']['verdict']}")
    write_section(
        "A model that learnt by heart, hippocampus",
        f"""
`python benchmarks/memorised.py`: {options.count} images from test maps of each model; {options.steps} steps on {KEPT} images against the default model
on all training patients. {machine()}.

"""
        + "\n".join([*lines, "", *verdicts]),
    )


if __name__ == "__main__":
    main()
