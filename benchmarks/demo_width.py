"""How wide should the demo's network be? Dice and texture of two widths after equal time of one core.

Example: python benchmarks/demo_width.py --seconds 360 --work /path/for/intermediate/files

The demo's patients, and its recipe but for the width. Time is that of the processor, so that other programs do not
count. Measures are those of `solvers.py`, by a segmenter of 500 steps.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from anatogen import __version__
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import is_trained, machine, parser_of, spread_rows, write_section
from solvers import Judge


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=360, help="processor time of each training")
    parser.add_argument("--widths", type=int, nargs="*", default=[32, 64])
    parser.add_argument("--count", type=int, default=64, help="test slices")
    options = parser.parse_args()
    folder = options.work / "demo-patients"
    if not folder.exists():
        settings = PrepareSettings(size=(64, 64), axis="sagittal", workers=1)
        prepare(open_source("hippocampus"), folder, settings, version=__version__)
    dataset = PreparedDataset.open(folder)
    dataset.hold()
    judge = Judge(
        dataset, spread_rows(dataset, options.count), partial(segmenter_for, settings=SegmenterSettings(steps=500))
    )
    requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
    lines = []
    for width in options.widths:
        run = options.work / "runs" / f"demo-{width}-{options.seconds:g}"
        if not is_trained(run):
            length = {"steps": 2500, "max_time_s": options.seconds}
            recipe = build_settings(values=[f"network.width={width}"], training=length)
            train_module.CLOCK = time.process_time
            train_module.train(dataset, run, recipe, resume=True)
        generator = Generator.load(run)
        start = time.process_time()
        images = np.stack([image for _, image in generator.generate(requests, batch_size=32)])
        seconds = (time.process_time() - start) / len(images)
        found = judge(images)
        lines.append(
            f"| {width} | {generator.about.steps} | {found['dice']:.3f} | {found['power']:.2f} | {found['noise']:.2f} "
            f"| {seconds:.2f} |"
        )
    write_section(
        "Width of the demo's network",
        f"""
`python benchmarks/demo_width.py --seconds {options.seconds:g}`: the demo's patients, {len(judge.rows)} test slices; real images: Dice
{judge(judge.real.images.numpy())["dice"]:.3f}. {machine()}, one thread.

| width | steps | Dice(m_gen, m) | power off by (octaves) | noise, gen / real | seconds an image |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
