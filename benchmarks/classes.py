"""What do many classes cost? Time of a training step and peak memory with 2, 20 and 117 classes, planes and embedding.

Example: python benchmarks/classes.py --sizes 64 256

The default network on drawn label maps; the cases take turns, and the median of their ratios counts. Memory is the peak
resident memory of a process that does nothing else (Linux: VmHWM), less that of the libraries.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from anatogen.conditioning.ablate import draw_given
from anatogen.conditioning.encode import Condition, Encoding
from anatogen.model import Denoiser, DenoiserConfig
from anatogen.networks.hourglass import HourglassConfig
from anatogen.training.state import MovingAverage
from common import machine, status_mb, write_section

COUNTS = (2, 20, 117)
ENCODINGS: tuple[Encoding, ...] = ("onehot", "embedding")
BATCH = {64: 16, 256: 2}
BASELINE: tuple[Encoding, int] = ("onehot", 2)


class Case:
    """A network and its optimizer, ready to take steps."""

    def __init__(self, encoding: Encoding, classes: int, size: int, device: torch.device) -> None:
        names = tuple((f"class {i}", "#808080") for i in range(classes))
        config = DenoiserConfig(
            image_channels=1, size=(size, size), classes=names, encoding=encoding, network=HourglassConfig()
        )
        torch.manual_seed(0)
        self.denoiser = Denoiser(config).placed(device)
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=1e-4, fused=device.type in ("cpu", "cuda"))
        self.average = MovingAverage(self.denoiser, 0.998)
        batch = BATCH.get(size, 2)
        # Squares of 1/8 of the side: a cell has one class mostly, as in a label map.
        coarse = torch.randint(0, classes + 1, (batch, 8, 8))
        self.labels = coarse.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2).to(device)
        self.x = torch.randn(batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
        self.classes = classes

    def step(self) -> None:
        count = len(self.x)
        given = torch.ones(count, self.classes, dtype=torch.bool, device=self.x.device)
        given = draw_given(given, torch.rand(count, self.classes + 1, device=self.x.device), ablated_share=0.3)
        denoise = self.denoiser.under(Condition.of(self.labels, given))
        with torch.autocast("cuda", torch.bfloat16, enabled=self.x.device.type == "cuda"):
            loss: Tensor = (denoise(self.x, torch.rand(count, device=self.x.device)) - self.x).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average.update(self.denoiser)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.memory_of:
        print(peak_mb(options.memory_of[0], int(options.memory_of[1]), int(options.memory_of[2]), device))
        return
    lines = [
        f"{machine()}; the default network (width 64); batches of {' and '.join(str(BATCH.get(s, 2)) for s in options.sizes)}; "
        f"medians of {options.turns} turns.",
        "",
        "| size | classes | encoding | ms a step | against 2 classes as planes | peak memory, MB | against 2 classes as planes |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for size in options.sizes:
        lines += rows_of(size, options.turns, device)
    write_section("Cost of many classes", "\n".join(lines))


def rows_of(size: int, turns: int, device: torch.device) -> list[str]:
    cases = {(encoding, count): Case(encoding, count, size, device) for encoding in ENCODINGS for count in COUNTS}
    seconds: dict[tuple[Encoding, int], list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            begun = time.perf_counter()
            case.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - begun)
    lines = []
    memory = {name: memory_of(*name, size, device) for name in cases}
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds[BASELINE], strict=True))
        lines.append(
            f"| {size} | {name[1]} | {name[0]} | {1000 * statistics.median(values):.0f} | {ratio:.2f} "
            f"| {memory[name]:.0f} | {memory[name] / memory[BASELINE]:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def memory_of(encoding: Encoding, classes: int, size: int, device: torch.device) -> float:
    """The peak memory in a process of its own."""
    arguments = [sys.executable, __file__, "--device", device.type, "--memory-of", encoding, str(classes), str(size)]
    return float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def peak_mb(encoding: Encoding, classes: int, size: int, device: torch.device) -> float:
    """Three steps' peak memory, less what was there before them."""
    Case("none", classes, 16, device).step()  # loads what a first step loads
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = status_mb("VmRSS")
    case = Case(encoding, classes, size, device)
    for _ in range(3):
        case.step()
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else status_mb("VmHWM") - before


if __name__ == "__main__":
    main()
