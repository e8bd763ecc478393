"""How much memory do segmenter and encoder need for many images? With images that are generated when they are read.

Example: python benchmarks/judge_memory.py --count 20000 --size 256

Trains for a few steps on `count` real and `count` synthetic images, separately and together, and validates and tests on
200 others; memory does not depend on the length of a training.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from anatogen.judges.encoder import EncoderSettings, train_encoder
from anatogen.judges.fitting import Lazy
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.judges.utility import Parts, UtilityData, UtilitySettings, utility_of_mixtures
from common import machine, write_section


def parts(count: int, size: int) -> Parts:
    """Bright squares at different positions."""
    side = size // 3

    def labels(places: list[int]) -> torch.Tensor:
        found = torch.zeros(len(places), size, size, dtype=torch.int64)
        for label_map, place in zip(found, places, strict=True):
            top, left = place % (size - side), (7 * place) % (size - side)
            label_map[top : top + side, left : left + side] = 1
        return found

    images = Lazy((count, 1, size, size), lambda places: labels(places)[:, None].float() - 0.5)
    annotated = torch.ones(count, 1, dtype=torch.bool)
    return Parts(images, Lazy((count, size, size), labels), annotated, np.arange(count) // 20)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    settings = SegmenterSettings(steps=options.steps, validations=1)
    before, started = peak_mb(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        all_of_it, some = parts(options.count, options.size), parts(200, options.size)
        data = UtilityData(all_of_it, all_of_it, some, some)
        utility_of_mixtures(data, UtilitySettings((1.0, 0.0, 0.5), segmenter=settings), cache=Path(folder))
        of_utility = peak_mb()
        train_encoder(all_of_it.tensors, 2, EncoderSettings(steps=options.steps), cache=Path(folder))
    held = options.count * options.size**2 * 12 / 1e9
    write_section(
        "Memory of the judges where images are many",
        f"""
`python benchmarks/judge_memory.py --count {options.count} --size {options.size}`: peak memory of the process. Real and synthetic images with their
label maps would be {held:.1f} GB each in memory. {options.steps} steps a training, {time.perf_counter() - started:.0f} s in all. {machine()}.

| | MB |
| --- | --- |
| libraries | {before:.0f} |
| utility: real, synthetic, both | {of_utility:.0f} |
| and the encoder | {peak_mb():.0f} |
""",
    )


if __name__ == "__main__":
    main()
