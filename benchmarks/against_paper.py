"""The fast preset against the paper's recipe, at equal training time on the same cores.

Example: python benchmarks/against_paper.py --time 6m --work /path/for/intermediate/files

Both are trained on full maps (STD) of the hippocampus slices, 64 x 64, one after the other, for the same wall-clock
time. The paper's recipe is the preset `paper` (diffusers' UNet2DModel, eps, index mask, DDIM in 50 steps, no moving
average) scaled to the image: channels 32-64-128, and the fast preset's batch size, learning rate and warm-up, since 500
warm-up steps of batches of 64 would exceed the time. Dice is by patient on the test split, with the segmenter of
`anatogen evaluate`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import Segmenter
from anatogen.metrics.intervals import mean_interval
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.metrics.texture import power_ratio
from anatogen.model import load_denoiser
from anatogen.progress import parse_duration
from anatogen.training.config import build_settings
from anatogen.training.train import train
from common import hippocampus, machine, parser_of, write_section

RECIPES = {
    "fast": ("fast", ["conditioning.mask_ablation=false"]),
    "paper": (
        "paper",
        [
            "network.channels=[32,64,128]",
            "training.batch_size=16",
            "training.learning_rate=5e-4",
            "training.warmup_steps=50",
        ],
    ),
}


def measure(
    name: str, dataset: PreparedDataset, segmenter: Segmenter, work: Path, seconds: float, count: int
) -> dict[str, float | list[float]]:
    preset, values = RECIPES[name]
    settings = build_settings(
        preset,  # type: ignore[arg-type]
        values=values,
        training={"steps": None, "epochs": None, "max_time_s": seconds},
    )
    run = train(dataset, work / f"run-{name}-{time.time_ns()}", settings, device="cpu")
    generator = Generator.load(run, device="cpu")
    about = load_denoiser(run)[1]
    test = dataset.split("test")
    rows = [test[i] for i in np.linspace(0, len(test) - 1, count).round().astype(int)]
    real = dataset.load(rows)
    start = time.perf_counter()
    requests = requests_from_dataset(dataset, rows, dataset.schema.states())
    images = np.stack([image for _, image in generator.generate(requests)])
    sampling = count / (time.perf_counter() - start)
    groups = np.array([row.patient for row in rows])
    scores = dice_by_group(segmenter(images), real.labels.numpy(), groups, dataset.schema.count)
    ceiling = dice_by_group(segmenter(real.images), real.labels.numpy(), groups, dataset.schema.count)
    return {
        "parameters": sum(p.numel() for p in generator.denoiser.parameters()) / 1e6,
        "steps": generator.settings.steps,
        "dice": mean_interval(scores).value,
        "per_class": class_means(scores, axis=0).tolist(),
        "ceiling": mean_interval(ceiling).value,
        "training": (about.images or 0) / (about.seconds or 1),
        "sampling": sampling,
        "power": power_ratio(images, real.images.numpy()).tolist(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--time", default="6m", help="training time of each")
    parser.add_argument("--count", type=int, default=160, help="images to sample and judge")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    segmenter = segmenter_for(dataset)
    seconds = parse_duration(options.time)
    found = {name: measure(name, dataset, segmenter, options.work, seconds, options.count) for name in RECIPES}
    fast, paper = found["fast"], found["paper"]

    def line(title: str, key: str, digits: int, ratio: bool = True) -> str:
        a, b = float(fast[key]), float(paper[key])  # type: ignore[arg-type]
        return f"| {title} | {a:.{digits}f} | {b:.{digits}f} | {f'{a / b:.1f} x' if ratio else f'{a - b:+.3f}'} |"

    classes = " | ".join(
        f"{name} {fast['per_class'][i]:.3f} against {paper['per_class'][i]:.3f}"  # type: ignore[index]
        for i, name in enumerate(dataset.schema.names)
    )
    write_section(
        "Fast preset against the paper's recipe",
        f"""
`python benchmarks/against_paper.py --time {options.time}`: {options.time} of training each, {options.count} test slices, by patient.
{machine()}.

| | fast | paper's recipe | fast / paper |
| --- | --- | --- | --- |
{line(f"Dice(m_gen, m), real images: {fast['ceiling']:.3f}", "dice", 3, ratio=False)}
{line("training, images/s", "training", 1)}
{line("sampling, images/s", "sampling", 2)}
{line("solver steps", "steps", 0)}
{line("parameters, M", "parameters", 1)}

By class: {classes}.
Power of generated over real images in 8 of 16 bands: fast {" ".join(f"{v:.2f}" for v in fast["power"][1::2])};
paper's recipe {" ".join(f"{v:.2f}" for v in paper["power"][1::2])}.
""",  # type: ignore[index]
    )


if __name__ == "__main__":
    main()
