"""Attributes: does an image have the sequence, the volume and the position that are asked for?

Example: python benchmarks/attributes.py --time 20m --work /path/for/intermediate/files

Two cohorts of one virtual anatomy, T1 and T2: a model of both is asked for each sequence on the test patients' label
maps. The intensity of every class stands against the real image of the same anatomy in that sequence, and against the
lower bound: the real image of the other sequence, its histogram matched to the training images of the asked one. On
the hippocampus set, two attributes that are computed: the volume of a free class as the auxiliary segmenter finds it,
and the position of the slice as a ridge regression of real slices finds it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.conditioning.attributes import Numeric
from anatogen.data.attributes import VOLUME, item_attributes
from anatogen.data.placement import item_spacing
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.engine import Generator
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.metrics.confusion import confusion_counts
from anatogen.model import Noised, Query
from anatogen.progress import parse_duration, stage
from anatogen.seeds import derive_seed
from anatogen.training import train as train_module
from common import hippocampus, machine, parser_of, spread_rows, trained, write_section

SEQUENCES = ("T1", "T2")
STRENGTHS = (0.4, 0.6, 0.8)
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
VOLUME_OF = "anterior"
_MATCHED = 1024  # quantiles of a histogram
_POOLED = 4  # pixels a side, for the regression of the position


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--time", default="20m", help="training time of each of the two models")
    parser.add_argument("--patients", type=int, default=40, help="virtual patients, each scanned in both sequences")
    parser.add_argument("--count", type=int, default=64, help="test slices")
    parser.add_argument("--values", nargs="*", default=[], help="further settings of both trainings: key=value")
    parser.add_argument("--judge-steps", type=int, help="of the phantom's segmenter; by default the usual training")
    parser.add_argument("--only", choices=("sequences", "computed"), help="print one of the tables")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    length = {"max_time_s": parse_duration(options.time)}
    if options.only is not None:
        print(_only(options, length))
        return
    runs, name = options.work / "runs", f"attributes-{options.time}"
    breast = sequences(options.work, options.patients)
    one = trained(
        breast,
        runs / f"{name}-sequence-{options.patients}",
        ["conditioning.attributes=[sequence]", *options.values],
        length,
    )
    table, contrast = asked_sequences(breast, one, options.count, options.judge_steps)
    real = hippocampus(options.work, options.raw)
    values = [f"conditioning.attributes=[position, 'volume:{VOLUME_OF}']", *options.values]
    two = trained(real, runs / f"{name}-computed", values, length)
    write_section(
        "Attributes",
        f"""
`python benchmarks/attributes.py --time {options.time} --patients {options.patients} --count {options.count}`: two models
of {one.about.steps} and {two.about.steps} steps. {machine()}.

Sequence, on {contrast} test slices of virtual patients. Error: mean absolute difference of the class means from those of
the real image of the same anatomy in the asked sequence, in units of the range [-1, 1]. Nearer: share of images whose
class means are nearer to the asked sequence's than to the other's. The lower bound matches the histogram of the other
sequence's real image.

{table}

Computed attributes on the hippocampus set, five values between the training's 10 % and 90 % quantiles for each of
{options.count} test slices at most; the same noise for all values of a slice. Ceiling: the same measurement on real slices.

{computed(real, two, options.count)}
""",
    )


def _only(options: argparse.Namespace, length: dict[str, float]) -> str:
    """One of the two tables."""
    runs, name = options.work / "runs", f"attributes-{options.time}"
    if options.only == "sequences":
        breast = sequences(options.work, options.patients)
        values = ["conditioning.attributes=[sequence]", *options.values]
        run = trained(breast, runs / f"{name}-sequence-{options.patients}", values, length)
        return asked_sequences(breast, run, options.count, options.judge_steps)[0] + f"\n\n{run.about.steps} steps"
    real = hippocampus(options.work, options.raw)
    values = [f"conditioning.attributes=[position, 'volume:{VOLUME_OF}']", *options.values]
    return computed(real, trained(real, runs / f"{name}-computed", values, length), options.count)


def sequences(work: Path, patients: int) -> PreparedDataset:
    """Axial slices of 64 x 64 of virtual patients, each in T1 and in T2, prepared once under `work`."""
    out = work / f"breast-sequences-{patients}"
    if out.exists():
        return PreparedDataset.open(out)
    settings = PrepareSettings(size=(64, 64), shares={"train": 55, "heldout": 20, "val": 5, "test": 20})
    return prepare(open_source(f"phantom:breast-mri?patients={patients}&sequence=both"), out, settings)


@dataclass(frozen=True)
class Pairs:
    """Test slices of the same anatomy in each sequence; real: (N, 1, H, W) by sequence."""

    rows: list[Row]
    labels: NDArray[np.int64]
    real: dict[str, NDArray[np.float32]]


def pairs(dataset: PreparedDataset, count: int) -> Pairs:
    """`count` test slices, spread over all, that were scanned in every sequence."""
    by_place = {
        (row.patient, row.slice, str(dataset.attributes_of(row)["sequence"])): row for row in dataset.split("test")
    }
    rows = [row for (_, _, sequence), row in by_place.items() if sequence == SEQUENCES[0]]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    real = {
        each: dataset.load([by_place[row.patient, row.slice, each] for row in rows]).images.numpy()
        for each in SEQUENCES
    }
    return Pairs(rows, dataset.load(rows).labels.numpy(), real)


def class_means(images: NDArray[np.float32], labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The mean of each class 1..C-1 in each image (N, C-1), nan where it is absent."""
    found = np.full((len(images), count - 1), np.nan)
    for number, (image, classes) in enumerate(zip(images[:, 0], labels, strict=True)):
        sums, pixels = np.bincount(classes.ravel(), image.ravel(), count), np.bincount(classes.ravel(), minlength=count)
        present = pixels[1:] > 0
        found[number, present] = sums[1:][present] / pixels[1:][present]
    return found


def asked_sequences(
    dataset: PreparedDataset, generator: Generator, count: int, judge_steps: int | None = None
) -> tuple[str, int]:
    """The table of sequences, and the number of slices."""
    classes, test = dataset.schema.count, pairs(dataset, count)
    segmenter = segmenter_for(dataset, None if judge_steps is None else SegmenterSettings(judge_steps))
    guiding = generator.sampling_with(generator.with_settings(attribute_guidance=2.0))
    typical, quantiles = {}, {}
    for each in SEQUENCES:
        rows = [row for row in dataset.split("train") if dataset.attributes_of(row)["sequence"] == each]
        batch = dataset.load([rows[i] for i in np.linspace(0, len(rows) - 1, min(256, len(rows))).astype(int)])
        typical[each] = np.nanmean(class_means(batch.images.numpy(), batch.labels.numpy(), classes), axis=0)
        quantiles[each] = np.quantile(batch.images.numpy(), np.linspace(0, 1, _MATCHED))
    lines = []
    for asked, other in (SEQUENCES, SEQUENCES[::-1]):
        seeds = [derive_seed("attributes", row.id) for row in test.rows]
        queries = [
            Query(labels, dataset.schema.states(), seed, attributes={"sequence": asked})
            for labels, seed in zip(test.labels, seeds, strict=True)
        ]
        sets = {
            "generated": made(generator, queries),
            "generated, attribute guidance 2": made(guiding, queries),
            **{
                f"real {other} translated, strength {share:g}": made(
                    generator, noised(queries, test.real[other], share)
                )
                for share in STRENGTHS
            },
            "generated, sequence unknown": made(generator, [replace(query, attributes={}) for query in queries]),
            "lower bound": matched(test.real[other], quantiles[asked]),
            "real": test.real[asked],
        }
        goal = class_means(test.real[asked], test.labels, classes)
        for name, images in sets.items():
            means = class_means(images, test.labels, classes)
            distance = {each: np.nansum(np.abs(means - typical[each]), axis=1) for each in SEQUENCES}
            dice = confusion_counts(segmenter(images), test.labels, classes, surfaces=False).dice_by(
                np.array([row.patient for row in test.rows])
            )
            error = "" if name == "real" else f"{np.nanmean(np.abs(means - goal)):.3f}"
            nearer = float((distance[asked] < distance[other]).mean())
            lines.append(f"| {asked} | {name} | {error} | {100 * nearer:.0f} % | {np.nanmean(dice):.3f} |")
    head = "| asked | images | error | nearer | Dice |\n| --- | --- | --- | --- | --- |\n"
    return head + "\n".join(lines), len(test.rows)


def noised(queries: Sequence[Query], real: NDArray[np.float32], strength: float) -> list[Query]:
    """The same queries from real images, as `anatogen translate` starts them."""
    starts = [Noised(image, round(1000 * strength)) for image in real]
    return [replace(query, start=start) for query, start in zip(queries, starts, strict=True)]


def matched(images: NDArray[np.float32], quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
    """Images whose histogram, that of all of them, is replaced by the one with `quantiles`."""
    own = np.quantile(images, np.linspace(0, 1, len(quantiles)))
    return np.interp(images, own, quantiles).astype(np.float32)


def made(generator: Generator, queries: Sequence[Query]) -> NDArray[np.float32]:
    """The images of `queries`."""
    with stage("sampling", len(queries), "images") as bar:
        images = []
        for _, image in generator.generate(queries, batch_size=32):
            images.append(image)
            bar.advance()
    return np.stack(images)


def computed(dataset: PreparedDataset, generator: Generator, count: int) -> str:
    """The table of the computed attributes: the correlation and the slope of found against asked."""
    dataset.hold()
    schema, segmenter = dataset.schema, segmenter_for(dataset)
    name, index = f"{VOLUME}{VOLUME_OF}", schema.index_of(VOLUME_OF)
    rows = [row for row in spread_rows(dataset, 4 * count) if (dataset.load([row]).labels == index).any()]
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    pixel = np.array([np.prod(item_spacing(dataset, row)) for row in rows])
    batch = dataset.load(rows)
    lines = []

    def area(images: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (segmenter(images) == index).sum(axis=(1, 2)) * np.tile(
            pixel, len(images) // len(rows)
        )
        return found

    wanted = values_of(dataset, generator, name)
    truth = np.array([float(item[name]) for item in item_attributes(dataset, rows, [name])])
    others = [each for each in schema.names if each != VOLUME_OF]
    for what, given in ((f"{VOLUME_OF} free, {', '.join(others)} given", others), ("all free", [])):
        asked, images = swept(generator, batch.labels.numpy(), rows, name, wanted, given)
        lines.append(f"| volume of {VOLUME_OF}, {what} | {relation(asked, area(images))} |")
    lines.append(f"| ceiling: segmented against annotated volume | {relation(truth, area(batch.images.numpy()))} |")
    position = position_finder(dataset)
    asked, images = swept(
        generator, batch.labels.numpy(), rows, "position", values_of(dataset, generator, "position"), []
    )
    lines.append(f"| position, all free | {relation(asked, position(images))} |")
    places = [(row, dataset.attributes_of(row).get("position")) for row in rows]
    known = [number for number, (_, place) in enumerate(places) if place is not None]
    real = np.array([float(places[number][1] or 0) for number in known])
    lines.append(f"| ceiling: position of real slices | {relation(real, position(batch.images.numpy()[known]))} |")
    return "| attribute | correlation | slope |\n| --- | --- | --- |\n" + "\n".join(lines)


def values_of(dataset: PreparedDataset, generator: Generator, name: str) -> list[float]:
    """The values to ask for: quantiles of the training slices, for a volume of those that show the class."""
    takes = generator.spec.attributes
    assert takes is not None and isinstance(takes.attribute(name), Numeric)
    items = item_attributes(dataset, spread_rows(dataset, 1000, "train"), [name])
    known = [float(item[name]) for item in items if name in item]
    shown = [value for value in known if value > 0 or not name.startswith(VOLUME)]
    return [float(value) for value in np.quantile(shown, QUANTILES)]


def swept(
    generator: Generator,
    labels: NDArray[np.int64],
    rows: Sequence[Row],
    name: str,
    wanted: Sequence[float],
    given: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """An image of every row for each value of `wanted`, with the same noise, and what was asked for."""
    states = generator.schema.states(given=given)
    queries = [
        Query(each, states, derive_seed("attributes", row.id), attributes={name: value})
        for value in wanted
        for each, row in zip(labels, rows, strict=True)
    ]
    return np.repeat(wanted, len(rows)), made(generator, queries)


def position_finder(dataset: PreparedDataset):  # type: ignore[no-untyped-def]
    """A ridge regression of the position on pooled pixels, of the held-out and validation patients' slices."""
    rows = [row for row in dataset.rows if row.split in ("heldout", "val") and "position" in dataset.attributes_of(row)]
    target = np.array([float(dataset.attributes_of(row)["position"]) for row in rows])

    def features(images: NDArray[np.float32]) -> NDArray[np.float64]:
        *_, height, width = images.shape
        shape = (len(images), -1, height // _POOLED, _POOLED, width // _POOLED, _POOLED)
        pooled = images.reshape(shape).mean(axis=(3, 5)).reshape(len(images), -1).astype(np.float64)
        return np.hstack([pooled, pooled**2, np.ones((len(images), 1))])

    x = features(dataset.load(rows).images.numpy())
    weights = np.linalg.solve(x.T @ x + len(x) * 0.01 * np.eye(x.shape[1]), x.T @ target)
    return lambda images: features(images) @ weights


def relation(asked: NDArray[np.float64], found: NDArray[np.float64]) -> str:
    """Correlation and slope of `found` against `asked`, as cells of a table."""
    return f"{np.corrcoef(asked, found)[0, 1]:.3f} | {np.polyfit(asked, found, 1)[0]:.2f}"


if __name__ == "__main__":
    main()
