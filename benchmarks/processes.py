"""Are several processes faster than one, and do they train the same? 1, 2 and 3 on the CPU at equal global batch.

Example: python benchmarks/processes.py --steps 200 --work /path/for/intermediate/files

`torchrun` starts the processes, which speak over gloo; each has one thread, as torchrun gives it, beside one process
with a thread for each core. The loss of every step is gathered from all processes. Curves: the mean difference of the
loss from that of one process at the same step, and the difference of the mean over the last fifth, both relative to the
loss. Another seed, with other batches, times and noise, shows what chance does to them. More processes than cores
cannot be faster; nothing else should run meanwhile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anatogen.distributed import joined
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.task import System
from anatogen.training.train import train
from common import hippocampus, machine, parser_of, write_section

WARM = 3  # steps before the clock starts


class Noting(DenoiserTask):
    """Notes the losses of its items in every step, and when the step began."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.losses: list[np.ndarray] = []
        self.times: list[float] = []

    def loss(self, *parts: Any) -> tuple[Tensor, Any]:
        self.times.append(time.perf_counter())
        loss, measured = super().loss(*parts)
        self.losses.append(measured["loss"].numpy())
        return loss, measured


def trained(data: Path, run: Path, settings: RunSettings) -> None:
    """Train in this process, one of those that `torchrun` has started."""
    tasks: list[Noting] = []

    def task(data: Any, how: RunSettings, device: torch.device, _: Path | None) -> Noting:
        tasks.append(Noting(data, how, device))
        return tasks[-1]

    with joined() as group:
        train(data, run, settings, system=System("denoiser", RunSettings, task), device="cpu")
        np.savez(run / f"noted-{group.rank}.npz", losses=np.stack(tasks[-1].losses), times=tasks[-1].times)


def measured(processes: int, threads: int, run: Path, more: list[str]) -> tuple[float, np.ndarray]:
    """Seconds of a step after the first few, and the losses (steps, batch) of a training."""
    shutil.rmtree(run, ignore_errors=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([*command, __file__, "--train-into", str(run), *more], env=environment, check=True)
    parts = [np.load(run / f"noted-{rank}.npz") for rank in range(processes)]
    times = parts[0]["times"]
    seconds = (times[-1] - times[WARM]) / (len(times) - 1 - WARM)
    return seconds, np.concatenate([part["losses"] for part in parts], axis=1)


def apart(losses: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """The mean difference of two curves at the same step, and that of their last fifths, relative to the loss."""
    one, other = losses.mean(1), reference.mean(1)
    late = max(1, len(other) // 5)
    return float(np.abs(one / other - 1).mean()), float(abs(one[-late:].mean() / other[-late:].mean() - 1))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16, help="of all processes together")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 3], help="beside one")
    parser.add_argument("--values", nargs="*", default=["network.width=32"], help="settings: key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-into", type=Path, help="internal: train into that folder")
    options = parser.parse_args()
    data = hippocampus(options.work, None).folder
    if options.train_into:
        how = {"steps": options.steps, "batch_size": options.batch, "seed": options.seed}
        trained(data, options.train_into, build_settings(values=["live.previews=false", *options.values], training=how))
        return
    folder, cores = options.work / "processes", os.cpu_count() or 1
    again = ["--work", options.work, "--steps", options.steps, "--batch", options.batch, "--values", *options.values]
    more = [str(part) for part in again]
    rows = {"1": (1, 1), **{str(n): (n, 1) for n in options.processes}}
    rows |= {f"1, {cores} threads": (1, cores)} if cores > 1 else {}
    rows |= {"1, another seed": (1, 1)}
    lines: list[str] = []
    first: tuple[float, np.ndarray] | None = None
    for number, (name, (processes, threads)) in enumerate(rows.items()):
        seed = ["--seed", str(options.seed + 1)] if name.endswith("seed") else []
        seconds, losses = measured(processes, threads, folder / str(number), [*more, *seed])
        first = first or (seconds, losses)
        by_step, late = apart(losses, first[1])
        lines.append(
            f"| {name} | {options.batch / seconds:.1f} | {first[0] / seconds:.2f} | {losses[-1].mean():.4f} "
            f"| {by_step:.1e} | {late:.1e} |"
        )
        print(lines[-1], flush=True)
    write_section(
        "Several processes on one machine",
        f"""
`python benchmarks/processes.py --steps {options.steps} --batch {options.batch} --values {" ".join(options.values)}`: hippocampus, a thread each where nothing is said. {machine()}.

| processes | images/s | ratio | last loss | curves apart, by step | the last fifth |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
