"""When does guidance on the label map pay? Dice, thin classes and realism over its weight and interval.

Example: python benchmarks/guidance.py --run runs/hippocampus --data data/hippocampus --split test --count 72

The run has to be one with mask ablation. Dice(m_gen, m) by patient, as the difference to no guidance with its 95 %
interval (the same maps, noise and patients); beside it the same over the thin parts alone: for each class the quarter
of its slices in which it has the fewest pixels. Realism: the kernel and Fréchet distances of an encoder's features
(KID x 1000, FID), the spectrum (`solvers.py`) and the noise, against the real images of the maps; the last row has real
training images in place of generated ones. --one CLASS also guides that class alone: all else given, and all else free.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.labels import ClassStates
from anatogen.metrics.confusion import ConfusionCounts, confusion_counts
from anatogen.metrics.distances import FeatureMoments, frechet_distance
from anatogen.metrics.intervals import mean_interval
from anatogen.sampling import SamplingSettings
from common import machine, parser_of, spread_rows, write_section
from solvers import Judge

INTERVALS = ((0.0, 1.0), (0.22, 0.74), (0.5, 1.0))
WEIGHTS = (1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Found:
    """Of one setting: Dice by patient (P, C-1), that of thin parts, realism, and seconds an image."""

    dice: NDArray[np.float64]
    thin: NDArray[np.float64]
    realism: dict[str, float]
    seconds: float = float("nan")


class Measure:
    """What is measured of images of the test maps."""

    def __init__(self, dataset: PreparedDataset, judge: Judge) -> None:
        self.dataset, self.judge = dataset, judge
        self.patients = np.array([row.patient for row in judge.rows])
        self.moments = FeatureMoments.of(judge.features)

    def counts(self, images: NDArray[np.float32]) -> ConfusionCounts:
        real = self.judge.real
        found, count = self.judge.segmenter(images), self.dataset.schema.count
        return confusion_counts(found, real.labels.numpy(), count, counted=real.annotated.numpy(), surfaces=False)

    def realism(self, images: NDArray[np.float32]) -> dict[str, float]:
        fid = frechet_distance(FeatureMoments.of(self.judge.encoder(images)), self.moments)
        return {**self.judge(images), "fid": fid}

    def __call__(self, images: NDArray[np.float32], seconds: float = float("nan"), *, realism: bool = True) -> Found:
        counts = self.counts(images)
        size = np.where(counts.truth > 0, counts.truth, np.nan)
        thin = counts.where(size <= np.nanquantile(size, 0.25, axis=0))
        return Found(
            counts.dice_by(self.patients), thin.dice_by(self.patients), self.realism(images) if realism else {}, seconds
        )


def sampled(
    generator: Generator, measure: Measure, settings: SamplingSettings, states: ClassStates
) -> tuple[NDArray[np.float32], float]:
    """The images of the judge's rows, and the seconds of each."""
    asked = requests_from_dataset(measure.dataset, measure.judge.rows, states)
    start = time.process_time()
    images = np.stack([image for _, image in generator.generate(asked, settings, batch_size=24)])
    return images, (time.process_time() - start) / len(images)


def gain(scores: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """The mean difference by patient, with its interval."""
    found = mean_interval(scores - base)
    return f"{found.value:+.4f}" + (f" [{found.ci95[0]:+.4f}, {found.ci95[1]:+.4f}]" if found.ci95 else "")


def row_of(name: str, found: Found, base: Found) -> str:
    """A line of the table; Dice as differences to `base`."""
    if found is base:
        dice, thin = (f"{mean_interval(scores).value:.4f}" for scores in (found.dice, found.thin))
        of_class = ", ".join(f"{value:.3f}" for value in np.nanmean(found.dice, axis=0))
    else:
        dice, thin = gain(found.dice, base.dice), gain(found.thin, base.thin)
        of_class = ", ".join(f"{value:+.3f}" for value in np.nanmean(found.dice - base.dice, axis=0))
    seconds = "" if np.isnan(found.seconds) else f"{found.seconds:.2f}"
    return f"| {name} | {dice} | {of_class} | {thin} | {realism_cells(found.realism)} | {seconds} |"


def realism_cells(found: dict[str, float]) -> str:
    """Four cells; empty where it was not measured."""
    return (
        f"{found['kid']:.1f} | {found['fid']:.1f} | {found['power']:.2f} | {found['noise']:.2f}" if found else "| | |"
    )


def one_class(generator: Generator, measure: Measure, name: str, weights: list[float]) -> list[str]:
    """Lines on one guided class, all else given and all else free: its Dice, and that of the others."""
    schema = measure.dataset.schema
    place, lines = schema.index_of(name) - 1, []
    for title, states in (("given", schema.states()), ("free", schema.states(given=[name]))):
        base = None
        for weight in (1.0, *weights):
            settings = generator.with_settings(guidance=weight, guidance_classes=(name,))
            images, _ = sampled(generator, measure, settings, states)
            dice = measure.counts(images).dice_by(measure.patients)
            own, others = dice[:, [place]], np.delete(dice, place, axis=1)
            base = (own, others) if base is None else base
            cells = [
                f"{mean_interval(scores).value:.4f}" if weight == 1 else gain(scores, before)
                for scores, before in zip((own, others), base, strict=True)
            ]
            lines.append(f"| {title} | {weight:g} | {cells[0]} | {cells[1] if title == 'given' else ''} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=72, help="label maps")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--one", metavar="CLASS", help="also guide this class alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, generator = PreparedDataset.open(options.data), Generator.load(options.run, device="cpu")
    measure = Measure(dataset, Judge(dataset, spread_rows(dataset, options.count, options.split)))
    states = dataset.schema.states()
    base = measure(*sampled(generator, measure, generator.with_settings(guidance=1.0), states))
    lines = [row_of("off", base, base)]
    print(lines[-1], flush=True)
    for low, high in INTERVALS:
        for weight in options.weights:
            settings = generator.with_settings(guidance=weight, guidance_interval=(low, high))
            found = measure(*sampled(generator, measure, settings, states))
            lines.append(row_of(f"{weight:g}, {low:g} to {high:g}", found, base))
            print(lines[-1], flush=True)
    lines.append(row_of("real images of these maps", measure(measure.judge.real.images.numpy(), realism=False), base))
    training = dataset.load(spread_rows(dataset, len(measure.judge.rows), "train")).images.numpy()
    lines.append(f"| real training images | | | | {realism_cells(measure.realism(training))} | |")
    single = one_class(generator, measure, options.one, [2.0]) if options.one else []
    head = ["", "| the other classes | weight | its Dice | Dice of the others |", "| --- | ---: | --- | --- |"]
    aside = [f"Guiding {options.one} alone, at all noise:", *head, *single] if single else []
    name, one = dataset.folder.name, f" --one {options.one}" if options.one else ""
    write_section(
        f"Guidance on the label map, {name}",
        f"""
`python benchmarks/guidance.py --run {options.run.name} --data {name} --split {options.split} --count {options.count} --weights {" ".join(f"{w:g}" for w in options.weights)}{one}`: {len(measure.judge.rows)} label maps of
{len(set(measure.patients))} patients, {generator.settings.solver} in {generator.settings.steps} steps, a model of {generator.about.steps} training steps; classes in the order {", ".join(dataset.schema.names)}.
Guided rows: difference to "off" by patient. {machine()}, one thread.

| weight, noise interval | Dice | by class | thin parts | KID x 1000 | FID | power off by (octaves) | noise, gen / real | s / image |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

{chr(10).join(aside)}
""",
    )


if __name__ == "__main__":
    main()
