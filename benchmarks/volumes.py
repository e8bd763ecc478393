"""Volumes: a model of whole volumes beside slices that are stacked. Dice, texture along every axis, noise, continuity.

Example: python benchmarks/volumes.py --set hippocampus --time 30m --slices-time 30m --work /path/for/intermediate/files

Both are trained for the processor time of one thread that is given (so that other processes do not matter) with the
settings that `train` plans by itself (--values changes some); the slice model on axial slices of the same patients, its
volumes are those of `anatogen train --model stacked`. Judged on the test patients' label maps by the data set's 3D
segmenter: Dice(m_gen, m); the power spectrum in three dimensions and along each axis (D, H, W), as the mean of |log2|
over 16 bands; noise in three dimensions; and the mean difference of neighbouring voxels along each axis, relative to
real volumes (1 is right, more is discontinuous). Existing runs under --work are used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from anatogen import __version__
from anatogen.data.intensity import IntensityRule
from anatogen.data.placement import typical_spacing
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.kinds import load_model
from anatogen.generation.plan import requests_from_dataset
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.metrics.confusion import confusion_counts
from anatogen.metrics.texture import axis_ratio, compare_noise, local_noise, power_ratio
from anatogen.model import read_about
from anatogen.progress import format_duration, parse_duration, stage
from anatogen.reporting import figures
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from anatogen.workflows.train import TrainRequest, train
from common import ROOT, SHARED, is_trained, machine, parser_of, spread_rows, write_section
from paper_tables import mean

HEAD_NECK_SHARES = {"train": 60.0, "heldout": 15.0, "val": 8.0, "test": 17.0}
SETS: dict[str, tuple[str, PrepareSettings, PrepareSettings]] = {
    "hippocampus": (
        str(SHARED / "Dataset004_Hippocampus"),
        PrepareSettings(size=(48, 64, 48), fit="crop"),
        PrepareSettings(size=(64, 48), fit="crop", axis="axial"),
    ),
    "head-neck": (
        str(SHARED / "Dataset101_HeadNeckCT"),
        PrepareSettings(
            size=(64, 64, 64), fit="crop", spacing_mm=(5, 5, 5), shares=HEAD_NECK_SHARES,
            intensity=IntensityRule(window=(-200, 800)),
        ),
        PrepareSettings(
            size=(64, 64), fit="crop", spacing_mm=(5, 5, 5), shares=HEAD_NECK_SHARES, axis="axial",
            intensity=IntensityRule(window=(-200, 800)),
        ),
    ),
    # Every fourth slice of the phantom's 80: 3.2 x 3.2 x 28 mm.
    "phantom-thick": (
        "phantom:ct-organ?patients=40",
        PrepareSettings(size=(20, 128, 128), spacing_mm=(3.2, 3.2, 28.0)),
        PrepareSettings(size=(128, 128), spacing_mm=(3.2, 3.2, 28.0), axis="axial"),
    ),
}  # fmt: skip


def prepared(work: Path, name: str) -> tuple[PreparedDataset, PreparedDataset]:
    """The volumes and the slices of a set, prepared once under `work`."""
    source, volumes, slices = SETS[name]
    found = []
    for kind, settings in (("volumes", volumes), ("axial", slices)):
        out = work / f"{name}-{kind}"
        if not out.exists():
            prepare(open_source(source), out, settings, version=__version__)
        found.append(PreparedDataset.open(out))
    return found[0], found[1]


def trained(dataset: PreparedDataset, run: Path, seconds: float, values: Sequence[str]) -> Path:
    """The run, trained first if it is missing."""
    if not is_trained(run):
        settings = build_settings(values=["live.previews=false", *values], training={"max_time_s": seconds})
        with stage(run.name, 1.0, "s") as bar:
            train_module.train(
                dataset, run, settings, resume=True, progress=lambda share, text: bar.update(share, text or bar.text)
            )
    return run


class Judge:
    """What the volumes of test label maps are measured by."""

    def __init__(self, dataset: PreparedDataset, steps: int, count: int) -> None:
        self.dataset = dataset
        self.rows: list[Row] = spread_rows(dataset, count)
        self.real = dataset.load(self.rows)
        self.segment = segmenter_for(dataset, SegmenterSettings(steps=steps, batch_size=2))

    def __call__(self, volumes: np.ndarray) -> list[str]:
        """The cells of a row of the table."""
        real = self.real.images.numpy()
        counted = self.real.annotated.numpy()
        found = confusion_counts(
            self.segment(volumes), self.real.truth.numpy(), self.dataset.schema.count, 1.0, counted, surfaces=False
        )
        dice = mean(found.dice_by(np.array([row.patient for row in self.rows])))
        return [
            f"{dice:.3f}",
            f"{octaves(power_ratio(volumes, real)):.3f}",
            ", ".join(f"{octaves(axis_ratio(volumes, real, axis)):.3f}" for axis in range(3)),
            f"{compare_noise(local_noise(volumes), local_noise(real))[0]:.2f}",
            ", ".join(f"{steps_along(volumes, axis) / steps_along(real, axis):.2f}" for axis in range(3)),
        ]


def octaves(ratio: np.ndarray) -> float:
    """The mean of |log2| over bands."""
    return float(np.abs(np.log2(ratio)).mean())


def steps_along(volumes: np.ndarray, axis: int) -> float:
    """The mean difference of neighbouring voxels along an axis."""
    return float(np.abs(np.diff(volumes, axis=2 + axis)).mean())


def volumes_of(run: Path, judge: Judge) -> np.ndarray:
    """The volumes that a model makes of the test label maps."""
    requests = requests_from_dataset(judge.dataset, judge.rows, judge.dataset.schema.states())
    with stage(f"sampling {run.name}", len(requests), "volumes") as bar:
        made = []
        for _, volume in load_model(run).generate(requests, batch_size=2):  # one volume alone is slow on one thread
            made.append(volume)
            bar.advance()
    return np.stack(made)


def picture(judge: Judge, rows: dict[str, np.ndarray]) -> bytes:
    """Three planes through the labelled part of two patients."""
    lines, spacing = list[list[figures.Picture]](), typical_spacing(judge.dataset)
    for place in (0, len(judge.rows) // 2):
        labels = judge.real.labels[place].numpy()
        view = figures.view_of(labels, spacing)
        lines.append(
            [
                ("label map", figures.coloured(labels, judge.dataset.schema, view)),
                ("real", figures.gray(judge.real.images[place].numpy(), view)),
                *((name, figures.gray(volumes[place], view)) for name, volumes in rows.items()),
            ]
        )
    return figures.grid(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--time", default="30m", help="of the model of volumes")
    parser.add_argument("--slices-time", default="30m", help="of the model of slices")
    parser.add_argument("--values", nargs="*", default=[], help="settings of the model of volumes: key=value")
    parser.add_argument("--judge-steps", type=int, default=400, help="of the 3D segmenter")
    parser.add_argument("--count", type=int, default=20, help="test volumes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    volumes, slices = prepared(options.work, options.set)
    folder = options.work / "volumes" / options.set
    own = trained(volumes, folder / f"volumes-{options.time}", parse_duration(options.time), options.values)
    flat = trained(slices, folder / f"slices-{options.slices_time}", parse_duration(options.slices_time), [])
    stacked = folder / f"stacked-{options.slices_time}"
    if not (stacked / "model.json").exists():
        train(TrainRequest(volumes.folder, stacked, None, model="stacked", made_of=flat))
    judge = Judge(volumes, options.judge_steps, options.count)
    rows: dict[str, np.ndarray] = {}
    lines = [
        "| | trained | Dice(m_gen, m) | power off by, octaves | along D, H, W | noise, gen / real | steps along D, H, W |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    makers: list[tuple[str, Callable[[], np.ndarray], Path | None]] = [
        ("volumes", lambda: volumes_of(own, judge), own),
        ("stacked slices", lambda: volumes_of(stacked, judge), flat),
        ("real volumes (the ceiling)", judge.real.images.numpy, None),
    ]
    for name, make, run in makers:
        made = make()
        if run is not None:
            rows[name] = made
        about = read_about(run) if run is not None else None
        how = f"{about.images:,} images, {format_duration(about.seconds or 0)}" if about is not None else ""
        lines.append(f"| {name} | {how} | " + " | ".join(judge(made)) + " |")
        print(lines[-1], flush=True)
    figure = ROOT / "figures" / f"volumes-{options.set}.png"
    figure.write_bytes(picture(judge, rows))
    shape = " x ".join(map(str, volumes.size))
    values = f" --values {' '.join(options.values)}" if options.values else ""
    write_section(
        f"Volumes, {options.set}",
        f"""
`python benchmarks/volumes.py --set {options.set} --time {options.time} --slices-time {options.slices_time} --judge-steps {options.judge_steps} --count {options.count}{values}`:
volumes of {shape}, {len(judge.rows)} test patients; processor time of one thread. {machine()}. [Picture](figures/{figure.name}).

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
