"""What the training loop costs beside the work itself: `fit` against the bare forward, backward, optimizer and average.

Example: python benchmarks/loop_overhead.py --work /path/for/intermediate/files

Both train the default network on the same batches, augmented in the same loader thread; `fit` adds its draws by item, the
metrics, the check for gradients that are not finite, hooks and progress. The two take turns, and the median ratio counts.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

import torch

from anatogen.data.augment import Augment
from anatogen.data.loader import Loader
from anatogen.data.store import PreparedDataset
from anatogen.seeds import Draws
from anatogen.training.config import RunSettings, build_settings
from anatogen.training.denoiser_task import DenoiserTask
from anatogen.training.fit import fit
from common import hippocampus, machine, parser_of, write_section

WARM = 3  # steps before the clock starts
MOST = 1.05


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    dataset = hippocampus(options.work, None)
    values = [f"network.width={options.width}", "augment.rotation_degrees=5", "augment.gain=0.05"]
    settings = build_settings(values=values, training={"steps": WARM + options.steps})
    seconds: dict[str, list[float]] = {"bare": [], "fit": []}
    for _ in range(options.turns):
        seconds["bare"].append(bare(dataset, settings, torch.device(options.device)))
        seconds["fit"].append(whole(dataset, settings, torch.device(options.device), options.work / "runs" / "loop"))
    ratios = [b / a for a, b in zip(seconds["bare"], seconds["fit"], strict=True)]
    each = {name: 1000 * statistics.median(values) / options.steps for name, values in seconds.items()}
    table = [
        f"{machine()}; width {options.width}, batch {settings.training.batch_size}, {options.turns} turns of {options.steps} steps.",
        "",
        "| | ms a step |",
        "| --- | ---: |",
        f"| forward, backward, optimizer, average | {each['bare']:.0f} |",
        f"| `fit` | {each['fit']:.0f} |",
        "",
        f"Ratio, median of turns: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); asked at most {MOST}.",
    ]
    write_section("The training loop's overhead", "\n".join(table))


def parts(dataset: PreparedDataset, settings: RunSettings, device: torch.device) -> tuple[DenoiserTask, Loader]:
    how = settings.training
    loader = Loader(dataset, dataset.split("train"), how.batch_size, how.seed, augment=Augment(settings.augment))
    return DenoiserTask(dataset, settings, device), loader


def bare(dataset: PreparedDataset, settings: RunSettings, device: torch.device) -> float:
    """Seconds of the steps after the first few, without anything that is not needed."""
    task, loader = parts(dataset, settings, device)
    [phase] = task.phases
    stream, random = loader.stream(), Draws(range(loader.batch_size), device)
    begun = 0.0
    for step in range(settings.training.steps or 0):
        if step == WARM:
            wait(device)
            begun = time.perf_counter()
        phase.optimizer.zero_grad(set_to_none=True)
        loss, _ = task.loss(phase, next(stream), random)
        loss.backward()  # type: ignore[no-untyped-call]
        phase.optimizer.step()
        task.average.update(phase.module)
    wait(device)
    seconds = time.perf_counter() - begun
    stream.close()
    return seconds


def whole(dataset: PreparedDataset, settings: RunSettings, device: torch.device, out: Path) -> float:
    """The same in `fit`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    task, loader = parts(dataset, settings, device)
    times: list[float] = []

    def progress(share: float, text: str) -> None:  # noqa: ARG001
        if len(times) == WARM or share == 1:
            wait(device)
        times.append(time.perf_counter())  # the first before step 1

    fit(task, loader, settings.training, out, progress=progress)
    return times[-1] - times[WARM]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
