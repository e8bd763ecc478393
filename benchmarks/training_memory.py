"""Does the memory of a training grow? Resident memory after 100 and after every 500 steps, previews included.

Example: python benchmarks/training_memory.py --steps 5000 --work /path/for/intermediate/files
"""

from __future__ import annotations

import shutil

import torch

from anatogen.training.config import build_settings
from anatogen.training.hooks import Hook, Moment
from anatogen.training.train import train
from anatogen.workflows import live as live_module
from common import hippocampus, machine, parser_of, status_mb, write_section

VALUES = (
    "network.width=16",
    "training.batch_size=8",
    "augment.noise=0.02",
    "training.checkpoint_every=500",
    "live.dice=never",
)
MOST = 1.1  # of the memory at step 100: the allocator's noise; a leak of 20 KB a step would be more


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, run = hippocampus(options.work, None), options.work / "runs" / "memory"
    shutil.rmtree(run, ignore_errors=True)
    settings = build_settings(values=VALUES, training={"steps": options.steps})
    live_module._FIRST = live_module._GROWTH = 0.0  # type: ignore[attr-defined]  # as often as their share of time allows
    live = live_module.live_for(dataset, run, settings, device="cpu")
    assert live is not None
    found: dict[int, float] = {}

    def look(moment: Moment) -> None:
        if moment.step == 100 or moment.step % 500 == 0:
            found[moment.step] = status_mb("VmRSS")
            print(f"step {moment.step}: {found[moment.step]:.0f} MB", flush=True)

    train(dataset, run, settings, device="cpu", hooks=[live.hook(), Hook("memory", 100, look, remembered=False)])
    previews = len(list((run / "previews").glob("*.png")))
    lines = [f"| {step} | {megabytes:.0f} | {megabytes / found[100]:.3f} |" for step, megabytes in found.items()]
    table = ["| step | resident memory, MB | against step 100 |", "| ---: | ---: | ---: |", *lines]
    head = f"{machine()}; width 16, batch 8, one thread, {previews} previews of 8 label maps."
    write_section("Memory of a long training", "\n".join([head, "", *table]))
    assert max(found.values()) <= MOST * found[100]


if __name__ == "__main__":
    main()
