"""Which solver, and how many steps? Dice and realism as functions of the steps, for one model of each path.

Example: python benchmarks/solvers.py --time 20m --work /path/for/intermediate/files

The model of the flow path is the default one of `paper_tables.py` if it exists. Realism: the power of generated over
real images in 16 rings of spatial frequency, as the mean of |log2| over the rings (0 is right); noise (Immerkaer 1996)
relative to real images; and the kernel distance (KID x 1000) of features of an encoder trained on the data set's
held-out patients. The cost is the number of network evaluations: heun needs two per step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.encoder import train_encoder
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import Segmenter
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.distances import kernel_distance
from anatogen.metrics.texture import compare_noise, local_noise, power_ratio
from anatogen.progress import parse_duration, stage
from common import ROOT, hippocampus, machine, parser_of, spread_rows, trained, write_section
from paper_tables import mean

SOLVERS = (("dpmpp_2m", 1.0), ("dpmpp_2m", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("heun", 0.0), ("ddpm", 1.0))
STEPS = (4, 8, 16, 32)
PATHS = {"flow": ("mat", []), "ddpm": ("ddpm", ["diffusion.path=ddpm"])}


class Judge:
    """Dice and realism of images of the test split's label maps."""

    def __init__(
        self,
        dataset: PreparedDataset,
        rows: list[Row],
        segmenter_of: Callable[[PreparedDataset], Segmenter] = segmenter_for,
    ) -> None:
        self.dataset, self.rows, self.real = dataset, rows, dataset.load(rows)
        self.segmenter = segmenter_of(dataset)
        heldout = dataset.load(dataset.split("heldout"))
        self.encoder = train_encoder(
            (heldout.images, heldout.labels, heldout.annotated), dataset.schema.count, cache=dataset.folder
        )
        self.features = self.encoder(self.real.images)
        self.noise = local_noise(self.real.images.numpy())

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        found, patients = self.segmenter(images), np.array([row.patient for row in self.rows])
        of_images = confusion_counts(found, self.real.labels.numpy(), self.dataset.schema.count, surfaces=False)
        ratio = power_ratio(images, self.real.images.numpy())
        return {
            "dice": mean(of_images.dice_by(patients)),
            "power": float(np.abs(np.log2(ratio)).mean()),
            "noise": compare_noise(local_noise(images), self.noise)[0],
            "kid": 1000 * kernel_distance(self.encoder(images), self.features)[0],
        }


def curve(judge: Judge, generator: Generator, solver: str, eta: float) -> list[dict[str, float]]:
    requests = requests_from_dataset(judge.dataset, judge.rows, judge.dataset.schema.states())
    points = []
    for steps in STEPS:
        settings = generator.with_settings(solver=solver, eta=eta, steps=steps)
        start = time.perf_counter()
        with stage(f"{solver} eta {eta:g}, {steps} steps", len(requests), "images") as bar:
            images = []
            for _, image in generator.generate(requests, settings, batch_size=32):
                images.append(image)
                bar.advance()
        seconds = time.perf_counter() - start
        points.append({"steps": steps, "rate": len(images) / seconds, **judge(np.stack(images))})
    return points


def plot(curves: dict[str, list[dict[str, float]]], real: dict[str, float], path: Path) -> None:
    figure = Figure(figsize=(12, 3.6))
    axes = figure.subplots(1, 3)
    titles = (("dice", "Dice(m_gen, m)"), ("power", "power off by, octaves"), ("noise", "noise, generated / real"))
    for axis, (key, title) in zip(axes, titles, strict=True):
        for name, points in curves.items():
            calls = [p["steps"] * (2 if name.startswith("heun") else 1) for p in points]
            axis.plot(calls, [p[key] for p in points], "o-", markersize=3, label=name)
        if key != "power":
            axis.axhline(real["dice"] if key == "dice" else 1, color="0.5", linestyle="--", label="real images")
        axis.set_ylim((0.8, 0.9) if key == "dice" else (0, None))
        axis.set_xscale("log", base=2)
        axis.set(title=title, xlabel="calls of the network")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--path", choices=PATHS, default="flow")
    parser.add_argument("--time", default="20m", help="training time, where the model is not there yet")
    parser.add_argument("--count", type=int, default=96, help="test slices")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    judge = Judge(dataset, spread_rows(dataset, options.count))
    name, values = PATHS[options.path]
    run = options.work / "runs" / f"hippocampus-{name}"
    generator = trained(dataset, run, values, {"max_time_s": parse_duration(options.time)})
    real = judge(judge.real.images.numpy())
    curves = {f"{s} eta {e:g}" if s != "heun" else s: curve(judge, generator, s, e) for s, e in SOLVERS}
    picture = ROOT / "figures" / f"solvers-{options.path}.png"
    plot(curves, real, picture)
    lines = [
        f"| {title} | {p['steps']:g} | {p['dice']:.3f} | {p['power']:.2f} | {p['noise']:.2f} | {p['kid']:.1f} | "
        f"{p['rate']:.1f} |"
        for title, points in curves.items()
        for p in points
    ]
    write_section(
        f"Solvers and steps, {options.path} path",
        f"""
`python benchmarks/solvers.py --path {options.path} --count {options.count}`: {len(judge.rows)} test slices of the hippocampus set, everything given; a model of
{generator.about.steps} steps. Real images: Dice {real["dice"]:.3f}. {machine()}. [Plot](figures/{picture.name}).

| solver | steps | Dice | power off by (octaves) | noise, gen / real | KID x 1000 | images/s |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
