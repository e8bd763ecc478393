"""How near is an average made from snapshots to one that was tracked, and which length of the average is best?

Trains on hippocampus with `training.power_averages`, tracks four averages directly beside it, and compares weights and
denoising loss of validation images (fixed times and noise).

Example: python benchmarks/average_length.py --steps 800 --work /path/for/intermediate/files
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import torch
from torch import Tensor

from anatogen.data.loader import Loader
from anatogen.data.store import PreparedDataset
from anatogen.seeds import Draws, derive_seed
from anatogen.training.config import build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.fit import fit
from anatogen.training.hooks import Hook, Moment
from anatogen.training.power_average import PowerAverages
from anatogen.training.snapshots import average_of, snapshot_hook
from common import hippocampus, machine, parser_of, write_section

LENGTHS = (0.03, 0.05, 0.07, 0.10, 0.15, 0.20)
DIRECTLY = (0.03, 0.07, 0.15, 0.20)
BATCH = 16


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, run = hippocampus(options.work, None), options.work / "runs" / "average-length"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    values = [f"network.width={options.width}", f"training.batch_size={BATCH}", "training.power_averages=true"]
    settings = build_settings(values=values, training={"steps": options.steps})
    task = DenoiserTask(dataset, settings, torch.device("cpu"))
    assert task.power_averages is not None
    direct = PowerAverages(task.denoiser, DIRECTLY)

    def track(moment: Moment) -> None:
        direct.update(task.denoiser)
        if moment.step % 100 == 0:
            print(f"step {moment.step}", flush=True)

    hooks = [Hook("direct", 1, track, remembered=False), snapshot_hook(task.power_averages, run)]
    fit(task, Loader(dataset, dataset.split("train"), BATCH, 0), settings.training, run, hooks=hooks)
    last = {name: value.clone() for name, value in task.denoiser.state_dict().items()}

    lines = [
        "| average | snapshots | profile off by | weights off by | validation loss |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| none: the last weights | | | | {loss_of(task, dataset, last):.5f} |",
        f"| exponential, decay {settings.training.ema_decay} | | | | {loss_of(task, dataset, task.average.weights):.5f} |",
    ]
    for length in LENGTHS:
        found = average_of(run, length)
        off = f"{distance(found.weights, direct.weights[length], last):.4f}" if length in DIRECTLY else ""
        loss = loss_of(task, dataset, found.weights)
        lines.append(f"| length {length:.2f} | {found.snapshots} | {found.error:.4f} | {off} | {loss:.5f} |")
    head = (
        f"{machine()}; width {options.width}, {options.steps} steps of {BATCH} images. Weights off by: distance from the "
        "average that was tracked directly, relative to its distance from the last weights."
    )
    write_section("Length of the weights' average, hippocampus", "\n".join([head, "", *lines]))


def distance(found: Mapping[str, Tensor], truth: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> float:
    """|found - truth| / |last - truth|."""
    off = sum(float((found[name] - truth[name]).double().square().sum()) for name in truth)
    scale = sum(float((last[name] - truth[name]).double().square().sum()) for name in truth)
    return (off / scale) ** 0.5


@torch.no_grad()
def loss_of(task: DenoiserTask, dataset: PreparedDataset, weights: Mapping[str, Tensor]) -> float:
    """The denoising loss of the validation images, with the same times and noise for all weights."""
    task.denoiser.load_state_dict(dict(weights))
    rows = dataset.split("val")
    total = 0.0
    for first in range(0, len(rows), BATCH):
        batch = dataset.load(rows[first : first + BATCH])
        for repeat in range(4):
            draws = Draws([derive_seed("loss", repeat, first + i) for i in range(len(batch))], task.device)
            total += float(task.loss(task.phases[0], batch, draws)[0]) * len(batch) / 4
    return total / len(rows)


if __name__ == "__main__":
    main()
