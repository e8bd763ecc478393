"""How much is learned from how many images? The default, AdamW (the default of before) and the paper's recipe.

Example: python benchmarks/learning_speed.py --images 2000 4000 8000 --work /path/for/intermediate/files

Each row is a training of its own, so that its learning rate has decayed where the recipe's does: full maps, batches of
16, the same test slices and judges. The paper's recipe is that of `against_paper.py`. Dice, texture, noise and KID as in
`solvers.py`; the training's processor time of one thread. --recipes trains some of them.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from against_paper import RECIPES as AGAINST_PAPER
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.model import read_about
from anatogen.progress import format_duration, stage
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import SETS, is_trained, machine, parser_of, spread_rows, write_section
from solvers import Judge

BATCH = 16
_FULL_MAPS = ["conditioning.mask_ablation=false", f"training.batch_size={BATCH}"]
RECIPES = {
    "default": ("fast", _FULL_MAPS),
    "adamw": ("fast", [*_FULL_MAPS, "training.optimizer=adamw", "training.learning_rate=5e-4"]),
    "paper": AGAINST_PAPER["paper"],
}
NAMES = {"default": "default (Muon)", "adamw": "AdamW, the default of before", "paper": "paper's recipe"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 4_000, 8_000], help="seen in training")
    parser.add_argument("--recipes", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--width", type=int, default=32, help="of the default network")
    parser.add_argument("--count", type=int, default=120, help="test slices")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    dataset = SETS[options.set](options.work, None)
    dataset.hold()
    judge = Judge(dataset, spread_rows(dataset, options.count))
    requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
    lines = []
    for recipe in options.recipes:
        preset, values = RECIPES[recipe]
        own = [f"network.width={options.width}"] if preset == "fast" else []
        for images in options.images:
            run = Path(options.work) / "learning-speed" / f"{options.set}-{options.width}-{recipe}-{images}"
            if not is_trained(run):
                settings = build_settings(
                    preset,  # type: ignore[arg-type]
                    values=["live.previews=false", *own, *values],
                    training={"steps": images // BATCH, "epochs": None},
                )
                with stage(run.name, 1.0, "s") as bar:
                    show = lambda share, text: bar.update(share, text or bar.text)  # noqa: E731
                    train_module.train(dataset, run, settings, device="cpu", resume=True, progress=show)
            made = Generator.load(run, device="cpu").generate(requests, batch_size=32)
            found = judge(np.stack([image for _, image in made]))
            lines.append(
                f"| {NAMES[recipe]} | {images:,} | {format_duration(read_about(run).seconds or 0)} "
                f"| {found['dice']:.3f} | {found['power']:.3f} | {found['noise']:.2f} | {found['kid']:.0f} |"
            )
            print(lines[-1], flush=True)
    real = judge(judge.real.images.numpy())["dice"]
    write_section(
        f"Learning speed, {options.set}",
        f"""
`python benchmarks/learning_speed.py --set {options.set} --images {" ".join(map(str, options.images))} --recipes {" ".join(options.recipes)} --width {options.width} --count {options.count}`:
{len(judge.rows)} test slices; Dice of their real images {real:.3f}. {machine()}.

| recipe | images seen | time of one thread | Dice | power off by (octaves) | noise, gen / real | KID x 1000 |
| --- | ---: | --- | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
