"""Which recipe learns most from the same images: AdamW or Muon, at which rate and which times? Judged as in `solvers.py`.

Example: python benchmarks/optimizers.py --set hippocampus --images 8000 --work /path/for/intermediate/files
Example: python benchmarks/optimizers.py --choices muon:1e-3 muon:1e-3:diffusion.time_mean=-0.5

Each model sees the same images in the same order with the same times and noise. Dice(m_gen, m), the mean of |log2| of
the power spectrum, noise and KID on test slices; the training's processor time of one thread.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import Segmenter, SegmenterSettings
from anatogen.model import read_about
from anatogen.progress import format_duration, stage
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import SETS, is_trained, machine, parser_of, spread_rows, write_section
from solvers import Judge

CHOICES = ("adamw:5e-4", "adamw:1e-3", "muon:5e-4", "muon:1e-3")
BATCH = 16


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--choices", nargs="+", default=CHOICES, metavar="OPTIMIZER:RATE[:KEY=VALUE,...]")
    parser.add_argument("--values", nargs="*", default=["network.width=32"], help="settings: key=value")
    parser.add_argument("--count", type=int, default=120, help="test slices")
    parser.add_argument("--judge-steps", type=int, help="of the segmenter; by default the usual training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    dataset = SETS[options.set](options.work, None)
    dataset.hold()

    def segmenter(_: object) -> Segmenter:
        return segmenter_for(dataset, None if options.judge_steps is None else SegmenterSettings(options.judge_steps))

    judge = Judge(dataset, spread_rows(dataset, options.count), segmenter)
    real = judge(judge.real.images.numpy())["dice"]
    lines = []
    for choice in options.choices:
        name, rate, *more = choice.split(":")
        own = ",".join(more).split(",") if more else []
        parts = [options.set, str(options.images), *options.values, name, f"{float(rate):g}", *own]
        run = Path(options.work) / "optimizers" / "-".join(parts)
        if not is_trained(run):
            how = {
                "steps": options.images // BATCH,
                "batch_size": BATCH,
                "optimizer": name,
                "learning_rate": float(rate),
            }
            settings = build_settings(values=["live.previews=false", *options.values, *own], training=how)
            with stage(run.name, 1.0, "s") as bar:
                show = lambda share, text: bar.update(share, text or bar.text)  # noqa: E731
                train_module.train(dataset, run, settings, resume=True, progress=show)
        requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
        found = judge(np.stack([image for _, image in Generator.load(run).generate(requests, batch_size=32)]))
        lines.append(
            f"| {name} | {rate} | {', '.join(own)} | {format_duration(read_about(run).seconds or 0)} | {found['dice']:.3f} "
            f"| {found['power']:.3f} | {found['noise']:.2f} | {found['kid']:.0f} |"
        )
        print(lines[-1], flush=True)
    write_section(
        f"Optimizers, {options.set}",
        f"""
`python benchmarks/optimizers.py --set {options.set} --images {options.images} --choices {" ".join(options.choices)} --values {" ".join(options.values)} --count {options.count}`:
{len(judge.rows)} test slices; Dice of their real images {real:.3f}. {machine()}.

| optimizer | rate | other settings | time of one thread | Dice | power off by (octaves) | noise, gen / real | KID x 1000 |
| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
