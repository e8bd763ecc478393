"""How long may a model train on few patients before it learns them by heart, and what does it cost to stop earlier?

One training of constant rate on a few patients; its averaged weights are judged at several numbers of images seen:
Dice, texture and noise on test slices (as in `solvers.py`), and the copy rate.

Example: python benchmarks/few_patients.py --patients 20 --width 32 --images 16000 32000 64000 --work /path/for/files
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from anatogen import evaluate
from anatogen.data.loader import Loader
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.progress import stage
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.fit import fit
from anatogen.training.hooks import Hook, Moment
from anatogen.training.state import TrainingState
from common import SETS, is_trained, machine, parser_of, spread_rows, with_few_patients, write_section
from solvers import Judge

BATCH = 16


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--images", type=int, nargs="+", default=[16_000, 32_000, 64_000])
    parser.add_argument("--optimizer", default="muon:1e-3", metavar="OPTIMIZER:RATE")
    parser.add_argument("--count", type=int, default=160, help="test slices")
    options = parser.parse_args()
    whole = SETS[options.set](options.work, None)
    few = with_few_patients(whole, options.work / f"{options.set}-{options.patients}-patients", options.patients)
    few.hold()
    train = few.split("train")
    name = f"few-{options.set}-{options.patients}-{options.width}-{options.optimizer}"
    run = options.work / "runs" / name.replace(":", "-")
    at = [images // BATCH for images in options.images]
    if not is_trained(run):
        values = [f"network.width={options.width}", "training.schedule=constant", f"training.batch_size={BATCH}"]
        optimizer, _, rate = options.optimizer.partition(":")
        values += [f"training.optimizer={optimizer}", f"training.learning_rate={rate}"]
        settings = build_settings(values=values, training={"steps": at[-1]})
        task = DenoiserTask(few, settings, torch.device("cpu"))

        def keep(moment: Moment) -> None:
            if moment.step in at:
                folder = run / f"at-{moment.step}"
                folder.mkdir(parents=True, exist_ok=True)
                task.export(folder, replace(TrainingState(), step=moment.step, images=moment.step * BATCH))

        hooks = [Hook("keep", 1, keep, remembered=False)]
        with stage(run.name, 1.0, "s") as bar:
            show = lambda share, text: bar.update(share, text or bar.text)  # noqa: E731
            run.mkdir(parents=True, exist_ok=True)
            fit(task, Loader(few, train, BATCH, 0), settings.training, run, hooks=hooks, resume=True, progress=show)
    judge = Judge(few, spread_rows(few, options.count))
    ceiling = judge(judge.real.images.numpy())["dice"]
    lines = []
    for step in at:
        generator = Generator.load(run / f"at-{step}")
        requests = requests_from_dataset(few, judge.rows, few.schema.states())
        found = judge(np.stack([image for _, image in generator.generate(requests, batch_size=32)]))
        report = Path(options.work) / "few" / f"{run.name}-{step}"
        privacy = evaluate(run / f"at-{step}", few, report, only=["privacy"], count=200, quick=True)["privacy"]
        low, high = privacy["ci95"]
        lines.append(
            f"| {step * BATCH:,} | {step * BATCH / len(train):.0f} | {found['dice']:.3f} | {found['power']:.3f} | "
            f"{found['noise']:.2f} | {privacy['copy_rate']:.3f} [{low:.3f}, {high:.3f}] | {privacy['p_value']:.2g} | "
            f"{privacy['attack']['auc']:.2f} |"
        )
        print(lines[-1], flush=True)
    write_section(
        f"Few patients: {options.patients} of {options.set}, width {options.width}, {options.optimizer}",
        f"""
`python benchmarks/few_patients.py --set {options.set} --patients {options.patients} --width {options.width} --images {" ".join(map(str, options.images))} --optimizer {options.optimizer}`: {len(train)} training
images, constant rate, averaged weights; {len(judge.rows)} test slices, 200 images for the copy rate. Real images: Dice {ceiling:.3f}. {machine()}.

| images seen | each of them | Dice | power off by (octaves) | noise, gen / real | copy rate | p | membership AUC |
| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
