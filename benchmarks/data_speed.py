"""How fast is data prepared and loaded?

Example: python benchmarks/data_speed.py --work /path/for/intermediate/files

Writes 10,000 slices of 256 x 256 from generated scans, compared with copying the same bytes with NumPy. Then measures
the loader's throughput from memory and from disk in one process, compared with alternatives: NumPy memory maps and one
compressed file per slice. Peak memory is measured at 2,000 and 10,000 slices, to show whether it grows with their
number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from anatogen.data.loader import Loader
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset
from anatogen.labels import LabelSchema
from anatogen.volume import Volume
from common import machine, write_section

SIZE, DEPTH = 256, 50


class Scan:
    """A smooth random CT with five classes, written to disk once and read like a case."""

    def __init__(self, folder: Path, number: int) -> None:
        self.files = tuple(folder / f"{name}-{number}.npy" for name in ("image", "labels"))

    def write(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        smooth = ndimage.zoom(rng.normal(size=(8, 8, 5)), (SIZE / 8, SIZE / 8, DEPTH / 5), order=1)
        labels = np.digitize(smooth, (-0.5, 0.2, 0.6, 0.9, 1.2)).astype(np.uint8)
        np.save(self.files[0], (labels.astype(np.int16) * 200 - 500 + rng.normal(0, 20, labels.shape)).astype(np.int16))
        np.save(self.files[1], labels)

    def __call__(self) -> tuple[Volume, Volume]:
        image, labels = (np.load(file) for file in self.files)
        return Volume(image, np.diag([-1.0, -1.0, -1.0, 1.0])), Volume(labels, np.diag([-1.0, -1.0, -1.0, 1.0]))


def source(folder: Path, cases: int) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    scans = [Scan(folder, i) for i in range(cases)]
    for i, scan in enumerate(scans):
        if not scan.files[1].exists():
            scan.write(i % 8)
    entries = tuple(
        SourceCase(f"c{i:04d}", f"c{i:04d}", scan, scan.files, split="train") for i, scan in enumerate(scans)
    )
    return Source("benchmark", "scans", LabelSchema.from_names("abcde"), ("CT",), entries)


def prepared(work: Path, cases: int, workers: int | None) -> tuple[float, float, int]:
    """Slices per second, peak memory of this process in MB, and the number of slices."""
    shutil.rmtree(work / "out", ignore_errors=True)
    opened = source(work / "scans", cases)
    start = time.perf_counter()
    dataset = prepare(opened, work / "out", PrepareSettings((SIZE, SIZE), keep_empty=True, workers=workers))
    took = time.perf_counter() - start
    return len(dataset.rows) / took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(dataset.rows)


def in_fresh_process(work: Path, cases: int, workers: int | None) -> tuple[float, float, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(prepared, work, cases, workers).result()


def copied(work: Path, cases: int) -> float:
    """Slices per second of copying the same scans with NumPy: the limit of the disk."""
    opened = source(work / "scans", cases)
    start = time.perf_counter()
    for case in opened.cases:
        image, labels = case.load()
        np.save(work / "copy-image.npy", image.array)
        np.save(work / "copy-labels.npy", labels.array)
    return cases * DEPTH / (time.perf_counter() - start)


def rate(batch: Callable[[int], object], size: int, seconds: float = 5.0) -> float:
    """Slices per second of calling batch(0), batch(1), ..."""
    batch(0)
    number, start = 1, time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch(number)
        number += 1
    return (number - 1) * size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "anatogen-benchmarks" / "data")
    options = parser.parse_args()
    work: Path = options.work
    source(work / "scans", 200)
    _, small_peak, small = in_fresh_process(work, 40, 1)
    _, peak, _ = in_fresh_process(work, 200, 1)
    speed, _, count = in_fresh_process(work, 200, None)
    copy = copied(work, 200)

    disk, memory = PreparedDataset.open(work / "out"), PreparedDataset.open(work / "out")
    rows = memory.rows
    loader = Loader(memory, rows, 32, 0)
    from_disk = Loader(disk, rows, 32, 0)
    from_disk.dataset = PreparedDataset.open(work / "out")  # not held in memory
    held, read = rate(loader.batch, 32), rate(from_disk.batch, 32)

    images, labels = memory._images, memory._labels
    np.save(work / "map-image.npy", images)
    np.save(work / "map-labels.npy", labels)
    maps = [np.load(work / f"map-{n}.npy", mmap_mode="r") for n in ("image", "labels")]
    rng = np.random.default_rng(0)

    def memory_map(_: int) -> tuple[torch.Tensor, torch.Tensor]:
        index = rng.integers(len(rows), size=32)
        return torch.from_numpy(maps[0][index]).float().mul_(1e-3), torch.from_numpy(maps[1][index]).long()

    folder = work / "files"
    folder.mkdir(exist_ok=True)
    for i in range(256):
        np.savez_compressed(folder / f"{i}.npz", image=images[i], labels=labels[i])

    def one_file_each(_: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [np.load(folder / f"{i}.npz") for i in rng.integers(256, size=32)]
        image, label = (np.stack([p[key] for p in parts]) for key in ("image", "labels"))
        return torch.from_numpy(image).float().mul_(1e-3), torch.from_numpy(label).long()

    mapped, files = rate(memory_map, 32), rate(one_file_each, 32)
    stored = sum((work / "out" / n).stat().st_size for n in ("images.b2nd", "labels.b2nd")) / count
    write_section(
        "Preparing and loading",
        f"""
`python benchmarks/data_speed.py`: {count} slices of {SIZE} x {SIZE}, int16 with five classes. {machine()}.

| | slices/s | ratio |
| --- | --- | --- |
| reading the scans and writing the same bytes with NumPy | {copy:.0f} | 1 |
| `prepare` (a worker a core) | {speed:.0f} | {speed / copy:.2f} |
| loader from memory, in [-1, 1], one process | {held:.0f} | {held / mapped:.2f} of the memory map |
| loader from disk (Blosc2, {stored / 1024:.0f} KiB a slice), one process | {read:.0f} | {read / mapped:.2f} of the memory map |
| alternative: NumPy memory map ({SIZE * SIZE * 3 / 1024:.0f} KiB a slice) | {mapped:.0f} | 1 |
| alternative: one compressed NPZ a slice | {files:.0f} | {files / mapped:.2f} |

Peak memory of `prepare` in one process (`--workers 1`): {small_peak:.0f} MB at {small} slices, {peak:.0f} MB at {count}.
""",
    )


if __name__ == "__main__":
    main()
