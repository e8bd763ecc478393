"""How fast are crops of volumes read, without decompressing the whole? The store against whole volumes and NIfTI.

Example: python benchmarks/store_throughput.py --work /path/for/intermediate/files

Volumes of smooth random tissue in noise (int16, and label maps of five classes), prepared as any source. Each way of
reading takes the same crops, image and label map, at places drawn anew every time; the ways take turns, and the median
of the turns counts. Rates are per second of processor time, so that other processes do not matter, and of files that
the system holds in its cache: they tell the cost of decompression, not that of a disk. MB are those of the crop as
stored, 3 bytes a voxel. Decompressed: the mean share of a volume's image in the blocks that a crop touches. The
loader's batches of 4 also become tensors, float32 in [-1, 1] and int64; a set of up to 4 GB is held in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
import torch
from scipy import ndimage

from anatogen.data.loader import Loader
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources.base import Source, SourceCase
from anatogen.data.store import PreparedDataset
from anatogen.labels import LabelSchema
from anatogen.volume import Volume
from common import machine, parser_of, write_section

Crop = tuple[slice, ...]
Pair = tuple[np.ndarray, np.ndarray]
BATCH = 4
WHOLE = "the store, the whole volume, then cropped"
WHOLLY = {WHOLE: "1.00", "NIfTI gz, the whole volume, then cropped": "1.00"}


@dataclass(frozen=True)
class Tissue:
    """A smooth random volume of five classes in noise, read like a case."""

    seed: int
    side: int

    def __call__(self) -> tuple[Volume, Volume]:
        rng = np.random.default_rng(self.seed)
        smooth = ndimage.zoom(rng.normal(size=(8, 8, 8)).astype(np.float32), self.side / 8, order=1)
        labels = np.digitize(smooth, (-0.5, 0.2, 0.6, 0.9, 1.2)).astype(np.uint8)
        image = labels * np.float32(200) - 500 + 20 * rng.standard_normal(labels.shape, dtype=np.float32)
        affine = np.diag([-1.0, -1.0, -1.0, 1.0])
        return Volume(image.astype(np.int16), affine), Volume(labels, affine)


def prepared(work: Path, side: int, count: int) -> PreparedDataset:
    """`count` volumes of `side` voxels a side, prepared once under `work`; not held in memory."""
    out = work / f"tissue-{side}-{count}"
    if not out.exists():
        cases = tuple(SourceCase(f"c{i}", f"c{i}", Tissue(i, side), (), split="train") for i in range(count))
        source = Source("benchmark", "tissue", LabelSchema.from_names("abcde"), ("CT",), cases)
        prepare(source, out, PrepareSettings(size=(side,) * 3, workers=1))
    return PreparedDataset.open(out)


class Stored:
    """Image and label map arrays of a data set, whole or in crops: those of the store, or copies in other blocks."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    @classmethod
    def rewritten(cls, dataset: PreparedDataset, folder: Path, chunk: int, block: int) -> Stored:
        """The same arrays in cubes of `block` voxels within chunks of `chunk`, compressed as the store is."""
        found = []
        parameters = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=2)
        for name, array in (("images", dataset._images), ("labels", dataset._labels)):
            path = folder / f"{name}-{dataset.size[0]}-{chunk}-{block}.b2nd"
            if not path.exists():
                lead = (1,) * (array.ndim - 3)
                cut = {"chunks": (*lead, *(chunk,) * 3), "blocks": (*lead, *(block,) * 3)}
                made = blosc2.empty(array.shape, dtype=array.dtype, urlpath=str(path), cparams=parameters, **cut)
                for i in range(len(array)):
                    made[i] = array[i]
            found.append(blosc2.open(str(path), mode="r"))
        return cls(*found)

    def crop(self, i: int, crop: Crop) -> Pair:
        return self.images[(i, 0, *crop)], self.labels[(i, *crop)]

    def whole(self, i: int, crop: Crop) -> Pair:
        return self.images[i][(0, *crop)], self.labels[i][crop]

    def touched(self, crop: Crop) -> float:
        """The share of the image in the blocks that a crop touches."""
        sides, blocks = self.images.shape[2:], self.images.blocks[2:]
        share = 1.0
        for part, side, block in zip(crop, sides, blocks, strict=True):
            first, last = part.start // block * block, -(-part.stop // block) * block
            share *= (min(last, side) - first) / side
        return share

    @property
    def megabytes(self) -> float:
        """Of a volume with its label map, on disk."""
        return sum(array.schunk.cbytes for array in (self.images, self.labels)) / len(self.images) / 1e6


class Nifti:
    """Compressed NIfTI files of the same volumes, x fastest as usual."""

    def __init__(self, dataset: PreparedDataset, folder: Path) -> None:
        self.files = []
        for i in range(len(dataset.rows)):
            files = [folder / f"{name}-{dataset.size[0]}-{i}.nii.gz" for name in ("image", "labels")]
            for file, array in zip(files, (dataset._images[i][0], dataset._labels[i]), strict=True):
                if not file.exists():
                    nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), file)
            self.files.append(files)

    def whole(self, i: int, crop: Crop) -> Pair:
        image, labels = (np.asarray(nibabel.load(file).dataobj)[crop[::-1]].T for file in self.files[i])
        return image, labels

    def crop(self, i: int, crop: Crop) -> Pair:
        """By nibabel's slicing of the file."""
        image, labels = (np.asarray(nibabel.load(file).dataobj[crop[::-1]]).T for file in self.files[i])
        return image, labels

    @property
    def megabytes(self) -> float:
        """Of a volume with its label map, on disk."""
        return sum(file.stat().st_size for files in self.files for file in files) / len(self.files) / 1e6


def places(dataset: PreparedDataset, part: int) -> Iterator[tuple[int, Crop]]:
    """Volumes and crops of them, without end; the same every time."""
    rng = np.random.default_rng(0)
    while True:
        starts = rng.integers(0, dataset.size[0] - part, 3, endpoint=True)
        yield int(rng.integers(len(dataset.rows))), tuple(slice(int(s), int(s) + part) for s in starts)


def reading(read: Callable[[int, Crop], Pair], dataset: PreparedDataset, part: int) -> Callable[[], int]:
    """A function that reads the next crop, and returns how many it has read."""
    drawn = places(dataset, part)

    def one() -> int:
        image, labels = read(*next(drawn))
        assert np.ascontiguousarray(image).shape == np.ascontiguousarray(labels).shape == (part,) * 3
        return 1

    return one


def loading(folder: Path, part: int, *, held: bool) -> Callable[[], int]:
    """The same of the loader's batches."""
    loader = Loader(PreparedDataset.open(folder), PreparedDataset.open(folder).rows, BATCH, 0, crop=(part,) * 3)
    if not held:
        loader.dataset = PreparedDataset.open(folder)  # as a set that is larger than 4 GB
    number = 0

    def one() -> int:
        nonlocal number
        number += 1
        return len(loader.batch(number))

    return one


def rates(ways: dict[str, Callable[[], int]], seconds: float, turns: int) -> dict[str, float]:
    """Crops a second of processor time, the median of turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for each in ways.values():
        each()
    for _ in range(turns):
        for name, each in ways.items():
            count, start = 0, time.process_time()
            while (took := time.process_time() - start) < seconds / turns:
                count += each()
            found[name].append(count / took)
    return {name: float(np.median(values)) for name, values in found.items()}


def lines_for(work: Path, side: int, part: int, seconds: float, turns: int) -> list[str]:
    """The rows of the table for volumes of one size and crops of one size."""
    dataset = prepared(work, side, 4)
    store, files = Stored(dataset._images, dataset._labels), Nifti(dataset, work)
    others = {
        f"chunks of {chunk} in blocks of {block}": Stored.rewritten(dataset, work, chunk, block)
        for chunk, block in ((64, 32), (32, 32), (64, 16))
    }
    arrays = {"the store": store, **{f"alternative: {name}": each for name, each in others.items()}}
    i, crop = next(places(dataset, part))
    wanted = store.whole(i, crop)
    for read in (files.whole, files.crop, *(each.crop for each in arrays.values())):
        assert all(np.array_equal(a, b) for a, b in zip(read(i, crop), wanted, strict=True))
    ways = {name: reading(each.crop, dataset, part) for name, each in arrays.items()}
    ways[WHOLE] = reading(store.whole, dataset, part)
    ways["NIfTI gz, the whole volume, then cropped"] = reading(files.whole, dataset, part)
    ways["NIfTI gz, sliced by nibabel"] = reading(files.crop, dataset, part)
    ways["loader, from disk"] = loading(dataset.folder, part, held=False)
    ways["loader, held in memory"] = loading(dataset.folder, part, held=True)
    found = rates(ways, seconds, turns)
    drawn = [crop for _, (_, crop) in zip(range(500), places(dataset, part), strict=False)]
    lines = []
    for name, rate in found.items():
        touched = (
            f"{np.mean([arrays[name].touched(crop) for crop in drawn]):.2f}" if name in arrays else WHOLLY.get(name, "")
        )
        size = arrays[name].megabytes if name in arrays else files.megabytes if name.startswith("NIfTI") else None
        stored = "" if size is None else f"{size:.1f}"
        shown = f"{rate:.3g} | {rate * 3 * part**3 / 1e6:.3g} | {rate / found[WHOLE]:.2f}"
        lines.append(f"| {side} | {part} | {name} | {stored} | {touched} | {shown} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--crops", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way of reading")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = options.work / "store"
    work.mkdir(parents=True, exist_ok=True)
    lines = [
        line
        for side in options.sides
        for part in options.crops
        for line in lines_for(work, side, part, options.seconds, options.turns)
    ]
    cut = ", ".join(f"{side}: {prepared(work, side, 4)._images.blocks[2:]}" for side in options.sides)
    write_section(
        "Crops of volumes from the store",
        f"""
`python benchmarks/store_throughput.py --sides {" ".join(map(str, options.sides))} --crops {" ".join(map(str, options.crops))} --seconds {options.seconds:g}`: rates per second of processor time, files in the
system's cache. Blocks of the store's images, by the volume's side: {cut}. {machine()}.

| volume | crop | | MB a volume on disk | decompressed | crops/s | MB/s | against the whole volume |
| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
