"""Adjustable similarity: the paper's literal formula against the variance-preserving one (Konz et al. 2024, 3.2.2).

Example: python benchmarks/similarity.py --time 20m --work /path/for/intermediate/files

On the default model of `paper_tables.py`, with one class given and the other free: similarity to the real image
(correlation of pixels, MS-SSIM), Dice(m_gen, m) of the given class, Dice of the free class with the real image's, and
texture, as functions of --similarity.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from anatogen.evaluation.sections.similarity import correlation
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.texture import compare_noise, local_noise, ms_ssim, power_ratio
from anatogen.progress import parse_duration, stage
from common import ROOT, hippocampus, machine, parser_of, trained, write_section
from paper_tables import mean

SIMILARITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
MIXINGS = ("variance_preserving", "literal")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--given", default="anterior", help="the class that is given")
    parser.add_argument("--time", default="20m", help="training time, where the model is not there yet")
    parser.add_argument("--count", type=int, default=64, help="test slices")
    parser.add_argument("--step", type=int, default=240)
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    length = {"max_time_s": parse_duration(options.time)}
    generator = trained(dataset, options.work / "runs" / "hippocampus-mat", [], length)
    segmenter, schema = segmenter_for(dataset), dataset.schema
    given = schema.index_of(options.given)
    rows = [row for row in dataset.split("test") if (dataset.load([row]).labels == given).any()]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(options.count, len(rows))).round().astype(int)]
    real, patients = dataset.load(rows), np.array([row.patient for row in rows])
    pixels, noise = real.images.numpy(), local_noise(real.images.numpy())
    in_real, labels = segmenter(pixels), real.labels.numpy()
    states = schema.states(given=[options.given])

    found: dict[str, list[dict[str, Any]]] = {}
    for mixing in MIXINGS:
        found[mixing] = []
        for similarity in SIMILARITIES:
            requests = requests_from_dataset(
                dataset, rows, states, similarities=(similarity,), step=options.step, mixing=mixing
            )
            with stage(f"{mixing}, {similarity}", len(requests), "images") as bar:
                images = []
                for _, image in generator.generate(requests, batch_size=32):
                    images.append(image)
                    bar.advance()
            made = np.stack(images)
            seen = segmenter(made)
            obeyed = confusion_counts(seen, labels, schema.count, surfaces=False).dice_by(patients)[
                :, given - 1 : given
            ]
            free = np.delete(
                confusion_counts(seen, in_real, schema.count, surfaces=False).dice_by(patients), given - 1, axis=1
            )
            found[mixing].append(
                {
                    "similarity": similarity,
                    "correlation": float(correlation(made, pixels).mean()),
                    "ms_ssim": float(ms_ssim(made, pixels).mean()),
                    "given": mean(obeyed),
                    "free": mean(free),
                    "power": float(np.abs(np.log2(power_ratio(made, pixels))).mean()),
                    "noise": compare_noise(local_noise(made), noise)[0],
                }
            )
    report(found, options, len(rows), generator.about.steps)


def report(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace, slices: int, steps: int) -> None:
    picture = ROOT / "figures" / "similarity.png"
    plot(found, picture)
    lines = [
        f"| {mixing.replace('_', ' ')} | {p['similarity']:g} | {p['correlation']:.3f} | {p['ms_ssim']:.3f} | "
        f"{p['given']:.3f} | {p['free']:.3f} | {p['power']:.2f} | {p['noise']:.2f} |"
        for mixing, points in found.items()
        for p in points
    ]
    rising = {m: all(a["correlation"] < b["correlation"] for a, b in pairwise(p)) for m, p in found.items()}
    write_section(
        "Adjustable similarity",
        f"""
`python benchmarks/similarity.py --count {options.count}`: {slices} test slices of the hippocampus set, {options.given} given, the rest free, halted at the
noise of step {options.step} of 1000; a model of {steps} steps. {machine()}. [Plot](figures/{picture.name}).
The correlation rises at every step: {", ".join(f"{m.replace('_', ' ')} {'yes' if r else 'no'}" for m, r in rising.items())}.

| mixing | similarity | correlation with the real image | MS-SSIM | Dice, given | Dice, free with real | power off by (octaves) | noise, gen / real |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
""",
    )


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    titles = (
        ("correlation", "correlation with the real image"),
        ("given", "Dice on the given class"),
        ("power", "power off by, octaves"),
    )
    for axis, (key, title) in zip(axes, titles, strict=True):
        for mixing, points in found.items():
            axis.plot([p["similarity"] for p in points], [p[key] for p in points], "o-", label=mixing.replace("_", " "))
        axis.set(title=title, xlabel="similarity (1 - lambda)", ylim=(0, 0.3 if key == "power" else 1.02))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
