"""How fast are training and sampling on a GPU? Images/s, share of the bf16 peak and memory, against the paper's network.

Example: python benchmarks/gpu_speed.py --size 256 256 --widths 64 96 128 --batch 16

Steps of training as `train` takes them (bf16 autocast, fused AdamW, moving average) on drawn label maps of five
classes, without the loading of data, and sampling by the default solver. The peak is that of a product of two bf16
matrices of 8192 x 8192, measured in the same call; FLOPs are those of convolutions, attention and matrix products. The
paper's network takes the noisy image and the label map at 2D sizes only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anatogen.conditioning.encode import Condition, Encoding
from anatogen.device import autocast
from anatogen.diffusion.noise import SampleNoise
from anatogen.model import Denoiser, DenoiserConfig, NetworkConfig
from anatogen.networks.hourglass import Hourglass, HourglassConfig
from anatogen.networks.paper_unet import PaperUNetConfig
from anatogen.sampling import SamplingSettings, sample
from anatogen.training.state import MovingAverage
from common import machine, write_section

CLASSES = tuple((f"class {i}", "#808080") for i in range(5))


@dataclass(frozen=True)
class Measured:
    """Of one network: seconds and FLOPs of a training step, peak memory of training and sampling in GB, and seconds of
    sampling one batch by the number of solver steps.
    """

    parameters: int
    seconds: float
    flops: float
    training_gb: float
    sampling_gb: float
    sampling: dict[int, float]


def drawn_labels(batch: int, size: tuple[int, ...], device: torch.device) -> Tensor:
    """Label maps of blocks of 1/8 of the side."""
    labels = torch.randint(0, len(CLASSES) + 1, (batch, *(8 for _ in size)))
    for axis, side in enumerate(size, start=1):
        labels = labels.repeat_interleave(-(-side // 8), axis).narrow(axis, 0, side)
    return labels.contiguous().to(device)


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The fastest of `repeats`, after one to warm up."""
    best = float("inf")
    for turn in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start) if turn else best
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _begin_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")


def measured(
    network: NetworkConfig, size: tuple[int, ...], batch: int, device: torch.device, options: argparse.Namespace
) -> Measured:
    """Train and sample with `network` for a few steps."""
    torch.manual_seed(0)
    encoding: Encoding = "embedding" if isinstance(network, HourglassConfig) else "index"
    config = DenoiserConfig(image_channels=1, size=size, classes=CLASSES, encoding=encoding, network=network)
    denoiser = Denoiser(config).placed(device)
    if options.recompute and isinstance(denoiser.network, Hourglass):
        denoiser.network.recompute(True)
    labels = drawn_labels(batch, size, device)
    condition = Condition.of(labels, torch.ones(batch, len(CLASSES), dtype=torch.bool, device=device))
    _begin_peak(device)
    seconds, flops = training(denoiser, condition, size, options.repeats, device)
    gb = _peak_gb(device)
    denoiser.eval().requires_grad_(False)
    _begin_peak(device)
    times = {steps: sampling(denoiser, condition, size, steps, device) for steps in options.steps}
    return Measured(sum(p.numel() for p in denoiser.parameters()), seconds, flops, gb, _peak_gb(device), times)


def training(
    denoiser: Denoiser, condition: Condition, size: tuple[int, ...], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Seconds and FLOPs of a training step."""
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=device.type in ("cpu", "cuda"))
    average, batch = MovingAverage(denoiser, 0.998), len(condition.labels)
    x = torch.randn(batch, 1, *size, device=device).contiguous(memory_format=denoiser.memory_format)

    def step() -> None:
        with autocast(device, "auto"):
            denoised = denoiser.under(condition)(x, torch.rand(batch, device=device))
            loss = (denoised - x).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        average.update(denoiser)

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = seconds_of(step, repeats, device)
    optimizer.zero_grad(set_to_none=True)
    return seconds, counter.get_total_flops()


def sampling(
    denoiser: Denoiser, condition: Condition, size: tuple[int, ...], steps: int, device: torch.device
) -> float:
    """Seconds of sampling one batch."""
    batch, settings = len(condition.labels), SamplingSettings(steps=steps)

    def generate() -> None:
        with torch.no_grad(), autocast(device, "auto"):
            noise = SampleNoise(range(batch), (1, *size), device)
            sample(denoiser.under(condition), denoiser.path, settings, noise)

    return seconds_of(generate, 1, device)


def peak_flops(device: torch.device, side: int = 8192) -> float:
    """FLOP/s of a product of two bf16 matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: a @ b, 5, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 30], help="of the solver")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recompute", action="store_true", help="training.activation_checkpointing")
    parser.add_argument("--no-paper", action="store_true", help="leave the paper's network out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, size = torch.device(options.device), tuple(options.size)
    peak = peak_flops(device, 8192 if device.type == "cuda" else 512)
    networks: dict[str, NetworkConfig] = {f"hourglass, width {w}": HourglassConfig(width=w) for w in options.widths}
    if len(size) == 2 and not options.no_paper:
        networks["the paper's U-Net"] = PaperUNetConfig()
    head = ["network", "parameters", "training, images/s", "share of the bf16 peak", "GB in training"]
    head += [f"sampling, images/s at {n} steps" for n in options.steps] + ["GB in sampling"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name, network in networks.items():
        found = measured(network, size, options.batch, device, options)
        cells = [
            f"{found.parameters / 1e6:.1f} M",
            f"{options.batch / found.seconds:.4g}",
            f"{found.flops / found.seconds / peak:.1%}",
            f"{found.training_gb:.1f}",
            *(f"{options.batch / found.sampling[n]:.4g}" for n in options.steps),
            f"{found.sampling_gb:.1f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    shape = " x ".join(map(str, size))
    recomputed = ", activations computed again in the backward pass" if options.recompute else ""
    write_section(
        f"Speed on a GPU at {shape}{recomputed}",
        f"""
`python benchmarks/gpu_speed.py --size {" ".join(map(str, size))} --widths {" ".join(map(str, options.widths))} --batch {options.batch}{" --recompute" if options.recompute else ""}`: batches of
{options.batch} in both, bf16. The peak: {peak / 1e12:.0f} TFLOP/s. {machine()}.

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
