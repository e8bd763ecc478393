"""What do the defaults reach in ten minutes, no knob touched, on few and on many patients?

Example: python benchmarks/planned_defaults.py --sets hippocampus head-neck --patients 20 0 --time 10m --work /path/for/files

Each model is trained with the settings that `train` plans by itself, its time counted as processor time of one thread,
so that another process does not matter. Dice, texture and noise on test slices as in `solvers.py`, and the copy rate.
0 patients are all. Rows of earlier calls stay in the table.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

from anatogen import evaluate
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.model import read_about
from anatogen.progress import format_duration, parse_duration, stage
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import SETS, is_trained, machine, parser_of, spread_rows, with_few_patients, write_section
from solvers import Judge


def row_of(name: str, patients: int, seconds: float, work: Path, count: int) -> str:
    """The line of the table for one training."""
    whole = SETS[name](work, None)
    dataset = with_few_patients(whole, work / f"{name}-{patients}-patients", patients) if patients else whole
    dataset.hold()
    run = work / "runs" / f"planned-{name}-{patients}-{seconds:g}"
    if not is_trained(run):
        settings = build_settings(training={"max_time_s": seconds})
        with stage(run.name, 1.0, "s") as bar:
            train_module.train(
                dataset, run, settings, resume=True, progress=lambda share, text: bar.update(share, text or bar.text)
            )
    return judged(dataset, run, work, count, name)


def judged(dataset: PreparedDataset, run: Path, work: Path, count: int, name: str) -> str:
    judge = Judge(dataset, spread_rows(dataset, count))
    generator, about = Generator.load(run), read_about(run)
    requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
    found = judge(np.stack([image for _, image in generator.generate(requests, batch_size=32)]))
    ceiling = judge(judge.real.images.numpy())["dice"]
    privacy = evaluate(run, dataset, work / "planned" / run.name, only=["privacy"], count=200, quick=True)["privacy"]
    low, high = privacy["ci95"]
    train = dataset.split("train")
    patients = len({row.patient for row in train})
    network = generator.denoiser.config.network
    return (
        f"| {name} | {patients} ({len(train):,} images) | {network.width} | {about.images:,} "  # type: ignore[union-attr]
        f"({about.images / len(train):.0f}) | {format_duration(about.seconds or 0)} | {found['dice']:.3f} of {ceiling:.3f} "
        f"| {found['power']:.3f} | {found['noise']:.2f} | {privacy['copy_rate']:.3f} [{low:.3f}, {high:.3f}], "
        f"p = {privacy['p_value']:.2g} |"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--patients", type=int, nargs="+", default=[20, 60, 0])
    parser.add_argument("--time", default="10m")
    parser.add_argument("--count", type=int, default=160, help="test slices")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    kept = options.work / "planned.json"
    lines: dict[str, str] = {}
    for name in options.sets:
        for patients in options.patients:
            row = row_of(name, patients, parse_duration(options.time), options.work, options.count)
            lines = json.loads(kept.read_text()) if kept.exists() else {}  # another process may have added some
            lines[f"{name} {patients or 1000:04d} {options.time}"] = row
            kept.write_text(json.dumps(lines))
            print(row, flush=True)
    write_section(
        "Planned defaults on few and many patients",
        f"""
`python benchmarks/planned_defaults.py --sets {" ".join(options.sets)} --patients {" ".join(map(str, options.patients))} --time {options.time}` (the last call): no setting but the time.
Training on one thread, its processor time; {machine()}.

| data | patients | width | images seen (each) | training | Dice | power off by (octaves) | noise, gen / real | copy rate |
| --- | --- | ---: | --- | --- | --- | ---: | ---: | --- |
{chr(10).join(lines[key] for key in sorted(lines))}
""",
    )


if __name__ == "__main__":
    main()
