"""A volume larger than the memory: sampled in tiles, within which peak memory, and is there a seam?

Example: python benchmarks/tiles.py --size 128 256 256 --crop 48 96 96 --time 20m --work /path/for/intermediate/files

A model is trained on crops of the CT phantom's volumes for that processor time of one thread, and samples one volume in
tiles of that size. The seam: the mean difference of neighbouring voxels across the planes where a tile's weight begins
or ends to fall, relative to all other planes inside the volume (1: no seam), along each axis; beside it the same for a
real volume, and for the same model with tiles that do not overlap, which has a seam. Memory is the peak resident memory
of the process (Linux: VmHWM), less that before sampling.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from anatogen import __version__, model
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.diffusion import tiles
from anatogen.generation.engine import Generator
from anatogen.progress import format_duration, parse_duration, stage
from anatogen.reporting import figures
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import ROOT, is_trained, machine, parser_of, status_mb, write_section


def planes_of_tiles(side: int, part: int, overlap: float) -> set[int]:
    """The places i along an axis between which (i - 1, i) a tile begins, ends, or its weight begins or ends to fall."""
    starts = [origin[0] for origin in tiles.origins_of((side,), (part,), overlap)]
    ramp = max(1, round(overlap * part))
    found = set()
    for start in starts:
        found |= {start, start + ramp} if start > 0 else set()
        found |= {start + part, start + part - ramp} if start + part < side else set()
    return found


def seam(volume: np.ndarray, tile: tuple[int, ...], overlap: float) -> list[float]:
    """The mean difference across the planes of tiles, relative to the other planes, along each axis (C, D, H, W)."""
    found = []
    for axis, part in enumerate(tile):
        steps = np.abs(np.diff(volume, axis=1 + axis)).mean(axis=tuple(a for a in range(4) if a != 1 + axis))
        places = np.array(sorted(planes_of_tiles(volume.shape[1 + axis], part, overlap))) - 1
        others = np.setdiff1d(np.arange(len(steps)), places)
        near = np.unique(np.concatenate([places + d for d in (-4, -3, 3, 4)]))  # anatomy changes along an axis
        near = np.intersect1d(near, others)
        found.append(float(steps[places].mean() / steps[near].mean()) if len(places) else 1.0)
    return found


def sampled(run: Path, data: Path, steps: int, overlap: float, out: Path) -> None:
    """Sample one test volume in this process, and print the memory and the seconds that it took."""
    torch.set_num_threads(1)
    dataset = PreparedDataset.open(data)
    generator, labels = Generator.load(run, device="cpu"), dataset.load(dataset.split("test")[:1]).labels[0].numpy()
    model.in_tiles = partial(tiles.in_tiles, overlap=overlap)  # type: ignore[attr-defined]
    before, start = status_mb("VmHWM"), time.process_time()
    volume = generator.sample(labels, seeds=(0,), steps=steps)[0]
    print(f"{status_mb('VmHWM') - before:.0f} {status_mb('VmHWM'):.0f} {time.process_time() - start:.0f}")
    np.save(out, volume)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=[128, 256, 256])
    parser.add_argument("--crop", type=int, nargs=3, default=[48, 96, 96])
    parser.add_argument("--time", default="20m")
    parser.add_argument("--steps", type=int, default=8, help="of the solver")
    parser.add_argument("--sample", nargs=4, help="internal: run, data set, overlap and file")
    options = parser.parse_args()
    if options.sample:
        run, data, overlap, out = options.sample
        sampled(Path(run), Path(data), options.steps, float(overlap), Path(out))
        return
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    size, crop = tuple(options.size), tuple(options.crop)
    data = options.work / f"phantom-{'x'.join(map(str, size))}"
    if not data.exists():
        spacing = (409.6 / size[2], 409.6 / size[1], 560.0 / size[0])
        settings = PrepareSettings(size=size, fit="pad", spacing_mm=spacing)
        prepare(open_source("phantom:ct-organ?patients=14"), data, settings, version=__version__)
    dataset = PreparedDataset.open(data)
    run = options.work / "tiles" / f"{data.name}-{options.time}"
    if not is_trained(run):
        values = ["live.previews=false", f"training.crop={list(crop)}", "network.width=32", "network.blocks=1"]
        how = build_settings(values=values, training={"max_time_s": parse_duration(options.time)})
        with stage("training", 1.0, "s") as bar:
            train_module.train(
                dataset, run, how, resume=True, progress=lambda share, text: bar.update(share, text or bar.text)
            )
    lines = [
        "| | seam along D, H, W | memory, MB | process, MB | time on one thread |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    pictures: list[figures.Picture] = []
    real = dataset.load(dataset.split("test")[:1])
    view = figures.view_of(real.labels[0].numpy())
    whole = real.images[0].numpy()
    for name, overlap in (("tiles, blended", 0.25), ("tiles that do not overlap", 0.0)):
        file = options.work / "tiles" / f"{overlap}.npy"
        command = [sys.executable, __file__, "--steps", str(options.steps), "--sample", run, data, str(overlap), file]
        said = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout.split()
        volume = np.load(file)
        shown = ", ".join(f"{value:.2f}" for value in seam(volume, crop, overlap))
        lines.append(f"| {name} | {shown} | {said[0]} | {said[1]} | {format_duration(float(said[2]))} |")
        print(lines[-1], flush=True)
        pictures.append((name, figures.gray(volume, view)))
    shown = ", ".join(f"{value:.2f}" for value in seam(whole, crop, 0.25))
    lines.append(f"| a real volume, the same planes | {shown} | | | |")
    figure = ROOT / "figures" / "tiles.png"
    figure.write_bytes(figures.grid([[("real", figures.gray(whole, view)), *pictures]]))
    shape, part = (" x ".join(map(str, each)) for each in (size, crop))
    count = len(tiles.origins_of(size, crop))
    write_section(
        f"A volume of {shape} in tiles",
        f"""
`python benchmarks/tiles.py --size {shape.replace(" x ", " ")} --crop {part.replace(" x ", " ")} --time {options.time} --steps {options.steps}`: CT phantom, {count} tiles of {part},
{options.steps} steps, one thread. {machine()}. [Picture](figures/{figure.name}).

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
