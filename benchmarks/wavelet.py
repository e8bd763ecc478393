"""Does a Haar wavelet instead of space-to-depth make better images? Both after equal images, times and noise.

Example: python benchmarks/wavelet.py --set hippocampus --images 8000 --seeds 2 --work /path/for/intermediate/files
Example: python benchmarks/wavelet.py --volumes --set hippocampus --images 1200 --work /path/for/intermediate/files

The hourglass makes the values of a patch channels, and turns its last channels into patches. Here the same patches go
through an orthonormal Haar wavelet: the stem sees their mean and their differences, and the head predicts these. That
is a change of basis before and after a learned linear layer, and white noise stays white. So neither network can
compute what the other cannot (`tests/networks/test_haar.py` turns one into the other), and the loss, clipping and weight
decay, which depend on norms alone, treat both alike. What can differ:

- The stem's initial weights are drawn for bands instead of pixels. They are independent and equally large, so their
  variance is the same along every band in both bases, and only the draw is another; scaling the bands would change
  more. The head starts at zero in both.
- AdamW, which trains stem and head beside Muon, too, divides each weight's step by the size of its own gradients: with
  the wavelet by those of a band, so that the small differences are learned as fast as the mean.

Several --seeds tell a difference from chance.

Slices are judged as in `solvers.py`, volumes as in `volumes.py`. Training loss: the mean over the last fifth of the
steps, which met the same images, times and noise; validation loss: of the averaged weights, at four noise levels, with
the same noise for both. The time is processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.denoising_loss import denoising_losses
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.model import Denoiser
from anatogen.progress import format_duration, stage
from anatogen.training import train as train_module
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.task import System
from common import SETS, machine, parser_of, spread_rows, write_section
from haar import in_bands
from solvers import Judge as JudgeOfSlices
from volumes import SETS as VOLUMES
from volumes import Judge as JudgeOfVolumes
from volumes import prepared

VALIDATION = 64  # slices
OF_SLICES = "Dice | power off by (octaves) | noise, gen / real | KID x 1000"
OF_VOLUMES = "Dice | power off by (octaves) | along D, H, W | noise, gen / real | steps along D, H, W"


class InBands(DenoiserTask):
    """Trains a denoiser whose hourglass works on the bands of a wavelet."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        in_bands(self.denoiser.network)

    def model(self) -> Denoiser:
        found = super().model()
        in_bands(found.network)
        return found


TASKS: dict[str, type[DenoiserTask]] = {"space-to-depth": DenoiserTask, "Haar wavelet": InBands}


def trained(dataset: PreparedDataset, run: Path, name: str, seed: int, options: argparse.Namespace) -> Generator:
    """The generator in `run`, trained first if it is missing."""
    if not (run / "model.json").exists():
        how = {"steps": options.images // options.batch, "batch_size": options.batch, "seed": seed}
        settings = build_settings(values=["live.previews=false", *options.values], training=how)
        system = System("denoiser", RunSettings, lambda data, how, device, _: TASKS[name](data, how, device))
        with stage(run.name, 1.0, "s") as bar:
            show = lambda share, text: bar.update(share, text or bar.text)  # noqa: E731
            train_module.train(dataset, run, settings, system=system, resume=True, progress=show)
    generator = Generator.load(run)
    if TASKS[name] is InBands:
        in_bands(generator.denoiser.network)
    return generator


def training_loss(run: Path, share: float = 0.2) -> float:
    """The mean loss of the last `share` of the steps; a line of metrics.jsonl has that of the steps since the last."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line.get("loss") is not None]
    counts = np.diff([0, *(line["step"] for line in lines)])
    late = np.array([line["step"] > (1 - share) * lines[-1]["step"] for line in lines])
    return float(np.average([line["loss"] for line in lines], weights=counts * late))


def validation_loss(dataset: PreparedDataset, denoiser: Denoiser) -> float:
    """The mean denoising loss of validation images under their label maps."""
    volumes = len(dataset.size) == 3
    found = []
    for batch in dataset.batches(
        spread_rows(dataset, VALIDATION // (8 if volumes else 1), "val"), 1 if volumes else 16
    ):
        denoise = denoiser.under(Condition.of(batch.labels, batch.annotated))
        found.append(denoising_losses(denoise, denoiser.path, batch.images, ignored=batch.ignored))
    return float(np.concatenate(found).mean())


def judge_for(
    dataset: PreparedDataset, options: argparse.Namespace
) -> tuple[list[Any], Callable[[np.ndarray], list[str]]]:
    """The test rows, and what makes the cells of the table from images of their label maps."""
    how = None if options.judge_steps is None else SegmenterSettings(options.judge_steps)
    if options.volumes:
        of_volumes = JudgeOfVolumes(dataset, options.judge_steps or 400, options.count)
        return of_volumes.rows, of_volumes
    of_slices = JudgeOfSlices(dataset, spread_rows(dataset, options.count), lambda data: segmenter_for(data, how))

    def cells(images: np.ndarray) -> list[str]:
        found = of_slices(images)
        return [f"{found['dice']:.3f}", f"{found['power']:.3f}", f"{found['noise']:.2f}", f"{found['kid']:.0f}"]

    return of_slices.rows, cells


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--volumes", action="store_true", help="3D instead of 2D")
    parser.add_argument("--set", choices=sorted({*SETS, *VOLUMES}), default="hippocampus")
    parser.add_argument("--images", type=int, help="of a training; by default 8000 slices or 1200 volumes")
    parser.add_argument("--batch", type=int, help="by default 16 slices or 2 volumes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--values", nargs="*", default=["network.width=32"], help="settings: key=value")
    parser.add_argument("--count", type=int, help="test images; by default 120 slices or 20 volumes")
    parser.add_argument("--judge-steps", type=int, help="of the segmenter; by default the usual training, or 400 in 3D")
    options = parser.parse_args()
    usual = (
        {"images": 1200, "batch": 2, "count": 20} if options.volumes else {"images": 8000, "batch": 16, "count": 120}
    )
    for key, value in usual.items():
        setattr(options, key, getattr(options, key) or value)
    if options.set not in (VOLUMES if options.volumes else SETS):
        parser.error(f"--set {options.set} has no {'volumes' if options.volumes else 'slices'} here")
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    dataset = prepared(options.work, options.set)[0] if options.volumes else SETS[options.set](options.work, None)
    dataset.hold()
    rows, judge = judge_for(dataset, options)
    requests = requests_from_dataset(dataset, rows, dataset.schema.states())
    kind = "volumes" if options.volumes else "slices"
    lines = []
    for seed in range(options.seeds):
        for name in TASKS:
            folder = "-".join(
                [options.set, kind, str(options.images), *options.values, name.split()[0].lower(), str(seed)]
            )
            generator = trained(dataset, run := options.work / "wavelet" / folder, name, seed, options)
            with stage(f"sampling {run.name}", len(requests), kind) as bar:
                made = []
                for _, image in generator.generate(requests, batch_size=1 if options.volumes else 32):
                    made.append(image)
                    bar.advance()
            cells = [name, str(seed), format_duration(generator.about.seconds or 0), *judge(np.stack(made))]
            cells += [f"{training_loss(run):.4f}", f"{validation_loss(dataset, generator.denoiser):.4f}"]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    real = judge(dataset.load(rows).images.numpy())
    lines.append(f"| real images (the ceiling) | | | {' | '.join(real)} | | |")
    head = f"patches as | seed | time of one thread | {OF_VOLUMES if options.volumes else OF_SLICES} | training loss | validation loss"
    steps = "" if options.judge_steps is None else f" --judge-steps {options.judge_steps}"
    write_section(
        f"Space-to-depth and a Haar wavelet, {options.set}{', volumes' if options.volumes else ''}",
        f"""
`python benchmarks/wavelet.py {"--volumes " * options.volumes}--set {options.set} --images {options.images} --batch {options.batch} --seeds {options.seeds} --values {" ".join(options.values)} --count {options.count}{steps}`:
{len(rows)} test {kind}. {machine()}.

| {head} |
| --- | ---: | --- |{" --- |" * (head.count("|") - 2)}
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
