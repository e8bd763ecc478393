"""What does mask-ablated training cost, and what does it gain? STD, MAT-onehot and MAT-index at equal training.

Example: python benchmarks/paper_tables.py --set hippocampus --time 20m --work /path/for/intermediate/files

For each model: Dice(m_gen, m) with all classes given; Dice on the given classes with each class left free in turn; and
the variation between seeds of a class when free and when given (1 - Dice, by the segmenter of `anatogen evaluate`).
STD has never seen a free class: its rows with a free class show what happens if it is asked for one anyway. Existing
runs under --work are used. --share adds MAT-onehot with other shares of ablated images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.sections.generator import variation
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import Segmenter
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.intervals import mean_interval
from anatogen.metrics.overlap import class_means
from anatogen.progress import parse_duration, stage
from common import SETS, machine, parser_of, spread_rows, trained, write_section

MODELS = {
    "STD": ("std", ["conditioning.mask_ablation=false"]),
    "MAT-onehot": ("mat", []),
    "MAT-index": ("mat-index", ["conditioning.encoding=index"]),
}


def dice_with_freed(
    dataset: PreparedDataset, rows: list[Row], segmenter: Segmenter, generator: Generator, freed: list[str]
) -> np.ndarray:
    """Dice(m_gen, m) (patients, classes) on the given classes while the classes `freed` are free."""
    states, real = dataset.schema.states(free=freed), dataset.load(rows)
    requests = requests_from_dataset(dataset, rows, states)
    with stage(f"{', '.join(freed) or 'nothing'} free", len(rows), "images") as bar:
        images = []
        for _, image in generator.generate(requests, batch_size=32):
            images.append(image)
            bar.advance()
    counted = real.annotated.numpy() & np.array(states.given)
    found = segmenter(np.stack(images))
    of_images = confusion_counts(found, real.labels.numpy(), dataset.schema.count, 1.0, counted, surfaces=False)
    return of_images.dice_by(np.array([row.patient for row in rows]))


def measure(
    dataset: PreparedDataset, rows: list[Row], segmenter: Segmenter, generator: Generator, maps: int, seeds: int
) -> dict[str, Any]:
    names = dataset.schema.names
    scores = dice_with_freed(dataset, rows, segmenter, generator, [])
    freed = {name: dice_with_freed(dataset, rows, segmenter, generator, [name]) for name in names}
    apart = variation(dataset, rows, segmenter, generator, maps=maps, seeds=seeds).result.model_dump()
    return {
        "given": scores,
        "freed": freed,
        "apart": apart,
        "steps": generator.about.steps,
        "seconds": generator.about.seconds,
    }


def mean(scores: np.ndarray) -> float:
    return mean_interval(scores).value


def same_without(name: str, names: tuple[str, ...], scores: np.ndarray) -> float:
    """The mean of the scores with all classes given over the classes other than `name`, for comparison."""
    return mean(np.delete(scores, names.index(name), axis=1))


def table(dataset: PreparedDataset, found: dict[str, dict[str, Any]], ceiling: np.ndarray) -> str:
    names, std = dataset.schema.names, found.get("STD")
    lines = ["| | " + " | ".join(found) + " | real images |", "| --- |" + " --- |" * (len(found) + 1)]

    def line(title: str, cells: list[str], last: str = "") -> None:
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {last} |")

    def interval(scores: np.ndarray) -> str:
        value, ends, reason = mean_interval(scores)
        return f"{value:.3f} " + (f"[{ends[0]:.3f}, {ends[1]:.3f}]" if ends else f"({reason})")

    line("Dice, everything given", [interval(f["given"]) for f in found.values()], interval(ceiling))
    if std is not None:
        line("difference to STD, by patient", [interval(f["given"] - std["given"]) for f in found.values()])
    for name in names:
        cells = [f"{mean(f['freed'][name]):.3f} ({same_without(name, names, f['given']):.3f})" for f in found.values()]
        line(f"Dice on the others, {name} free (given)", cells)
    overall = [class_means(np.array([mean(f["freed"][n]) for n in names]), axis=0) for f in found.values()]
    line("the same, mean over the freed class", [f"{value:.3f}" for value in overall])
    for name in names:
        if name in next(iter(found.values()))["apart"]["free"]:
            cells = [f"{f['apart']['free'][name]:.2f} / {f['apart']['given'][name]:.2f}" for f in found.values()]
            line(f"between seeds, {name} free / given", cells)
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--time", default="20m", help="training time of each")
    parser.add_argument("--steps", type=int, help="train for so many steps instead")
    parser.add_argument("--share", type=float, nargs="*", default=[], help="shares of ablated draws to compare")
    parser.add_argument("--only-shares", action="store_true", help="leave the three models out")
    parser.add_argument("--count", type=int, default=160, help="test slices")
    parser.add_argument("--maps", type=int, default=16, help="label maps a class for the difference between seeds")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the set")
    options = parser.parse_args()
    dataset = SETS[options.set](options.work, options.raw)
    dataset.hold()
    segmenter, rows = segmenter_for(dataset), spread_rows(dataset, options.count)
    length = {"steps": options.steps} if options.steps else {"max_time_s": parse_duration(options.time)}
    models = {} if options.only_shares else dict(MODELS)
    models |= {
        f"{share:g} ablated": (f"share-{share:g}", [f"conditioning.ablated_share={share:g}"]) for share in options.share
    }
    found = {
        title: measure(
            dataset,
            rows,
            segmenter,
            trained(dataset, options.work / "runs" / f"{options.set}-{name}", values, length),
            options.maps,
            options.seeds,
        )
        for title, (name, values) in models.items()
    }
    real = dataset.load(rows)
    patients = np.array([row.patient for row in rows])
    ceiling = confusion_counts(
        segmenter(real.images), real.labels.numpy(), dataset.schema.count, 1.0, real.annotated.numpy(), surfaces=False
    ).dice_by(patients)
    what = "Shares of ablated draws" if options.only_shares else "STD, MAT-onehot and MAT-index"
    arguments = f"--set {options.set} " + (f"--steps {options.steps}" if options.steps else f"--time {options.time}")
    arguments += f" --count {options.count} --maps {options.maps} --seeds {options.seeds}"
    if options.share:
        arguments += f"{' --only-shares' if options.only_shares else ''} --share " + " ".join(
            map("{:g}".format, options.share)
        )
    steps = ", ".join(str(f["steps"]) for f in found.values())
    write_section(
        f"{what}, {options.set}",
        f"""
`python benchmarks/paper_tables.py {arguments}`: {len(rows)} test slices of {len(set(patients))} patients, Dice by patient with
95 % intervals; between seeds: 1 - Dice, {options.maps} maps a class and {options.seeds} seeds. Training steps: {steps}. {machine()}.

{table(dataset, found, ceiling)}
""",
    )


if __name__ == "__main__":
    main()
