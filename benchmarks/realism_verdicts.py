"""Is the verdict on realism right? Known generators on real patients: perfect, collapsed, blurred and noisy ones.

Example: python benchmarks/realism_verdicts.py --repetitions 40 --work /path/for/intermediate/files

Each repetition draws patients of the hippocampus set that the encoder (trained on the held-out patients) never saw, and
up to 12 slices of each. Perfect generators return the real images of the same maps, unchanged or stored in 8 bits, or
the real images of as many other patients. Collapsed ones return one image, ten images, or the mean of all patients'
images at the position of the slice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.sections.realism import Measured, compare
from anatogen.judges.encoder import Encoder
from anatogen.judges.of_dataset import encoder_for
from anatogen.metrics.texture import local_noise, neighbour_steps, ring_powers
from anatogen.progress import Bars, stage, watched_by
from common import hippocampus, machine, parser_of, write_section

EACH = 12
HELD = 256
Images = NDArray[np.float32]


def measured(encoder: Encoder, images: Images, patients: NDArray[np.str_]) -> Measured:
    """Everything that is compared of `images`, with all of them kept."""
    features = np.concatenate([encoder(images[i : i + 256]) for i in range(0, len(images), 256)])
    every = np.arange(len(images))
    texture = ring_powers(images), local_noise(images), neighbour_steps(images)
    return Measured(features.astype(np.float64), *texture, patients, images, every)


def chosen(
    of_all: Measured, places: NDArray[np.int64], patients: NDArray[np.str_], held: NDArray[np.int64]
) -> Measured:
    """The images at `places` as images of maps of `patients`; `held`: those whose pixels are compared."""
    parts = (part[places] for part in (of_all.features, of_all.rings, of_all.noise, of_all.steps))
    return Measured(*parts, patients, of_all.images[places[held]], held)


def place_means(images: Images, rows: list[Row]) -> Images:
    """For each slice the mean of all patients' slices at the same relative position in the volume, in 12 bins."""
    of_patient: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_patient.setdefault(row.patient, []).append(place)
    step = np.zeros(len(rows), dtype=int)
    for places in of_patient.values():
        step[places] = np.arange(len(places)) * 12 // len(places)
    return np.stack([images[step == k].mean(axis=0) for k in range(12)])[step]


def distorted(images: Images, rows: list[Row]) -> dict[str, tuple[bool, Images]]:
    """Generators that work image by image: whether they differ from real images, and their images."""
    noise = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    unit = float(np.nanmedian(local_noise(images)))
    return {
        "perfect: the real images": (False, images),
        "perfect: the real images in 8 bits": (False, np.round((images + 1) * 127.5).astype(np.float32) / 127.5 - 1),
        "collapsed: the mean image of each place": (True, place_means(images, rows)),
        **{
            f"blurred, sigma {sigma} pixels": (True, ndimage.gaussian_filter(images, (0, 0, sigma, sigma)))
            for sigma in (0.4, 0.7, 1.5)
        },
        **{
            f"noise of {k} x the real noise added": (True, np.clip(images + k * unit * noise, -1, 1))
            for k in (0.5, 1.0, 2.0)
        },
    }


def by_index(
    rng: np.random.Generator, places: NDArray[np.int64], others: NDArray[np.int64]
) -> dict[str, tuple[bool, NDArray[np.int64]]]:
    """Generators that choose among real images: whether they differ, and the image of each map."""
    few = rng.choice(others, 10, replace=False)
    return {
        "perfect: real images of other patients": (False, others),
        "collapsed: one image": (True, np.full(len(places), few[0])),
        "collapsed: ten images": (True, rng.choice(few, len(places))),
    }


def slices_of(rows: list[Row], names: NDArray[np.str_]) -> list[NDArray[np.int64]]:
    """Places of EACH rows of each of `names`, at equal distances."""
    patients = np.array([row.patient for row in rows])
    every = [np.flatnonzero(patients == name) for name in names]
    return [places[np.linspace(0, len(places) - 1, EACH).round().astype(int)] for places in every]


def verdicts(
    dataset: PreparedDataset, counts: tuple[int, ...], repetitions: int
) -> dict[str, dict[int, list[bool | None]]]:
    """Verdicts by generator and number of patients, None for too few; * marks generators that differ from real
    images.
    """
    rows = [row for row in dataset.rows if row.split != "heldout"]
    counted: dict[str, int] = {}
    for row in rows:
        counted[row.patient] = counted.get(row.patient, 0) + 1
    rows = [row for row in rows if counted[row.patient] >= EACH]
    images = np.concatenate([batch.images.numpy() for batch in dataset.batches(rows)])
    names, encoder = np.array([row.patient for row in rows]), encoder_for(dataset, device="cpu")
    wholes = {name: (bad, measured(encoder, made, names)) for name, (bad, made) in distorted(images, rows).items()}
    real = wholes["perfect: the real images"][1]
    found: dict[str, dict[int, list[bool | None]]] = {}

    def judge(name: str, bad: bool, count: int, made: Measured, beside: Measured) -> None:
        test = compare(made, beside, paired=True).test
        answer = None if test is None or not test.decided else bool(test.told_apart_by)
        found.setdefault(f"{'*' if bad else ''}{name}", {}).setdefault(count, []).append(answer)

    with stage("judging", len(counts) * repetitions, "repetitions") as bar:
        for count in counts:
            for repetition in range(repetitions):
                rng = np.random.default_rng([count, repetition])
                drawn = rng.permutation(np.unique(names))[: 2 * count]
                places, others = (np.concatenate(slices_of(rows, part)) for part in (drawn[:count], drawn[count:]))
                of = names[places]
                held = np.sort(rng.choice(len(places), min(HELD, len(places)), replace=False))
                beside = chosen(real, places, of, held)
                for name, (bad, made) in wholes.items():
                    judge(name, bad, count, chosen(made, places, of, held), beside)
                for name, (bad, which) in by_index(rng, places, others).items():
                    judge(name, bad, count, chosen(real, which, of, held), beside)
                bar.advance()
    return found


def table(found: dict[str, dict[int, list[bool | None]]], counts: tuple[int, ...]) -> str:
    share: Callable[[list[bool | None], bool], str] = lambda answers, bad: (  # noqa: E731
        "too few patients" if None in answers else f"{100 * np.mean([a == bad for a in answers]):.0f} %"
    )
    lines = [
        "| generator | right verdict | " + " | ".join(f"right, {n} patients" for n in counts) + " |",
        "| --- | --- |" + " --- |" * len(counts),
    ]
    for name, by_count in found.items():
        bad = name.startswith("*")
        cells = [share(by_count[count], bad) for count in counts]
        lines.append(
            f"| {name.lstrip('*')} | {'told apart' if bad else 'not told apart'} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--patients", type=int, nargs="*", default=[4, 8, 12, 24])
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    counts = tuple(options.patients)
    with watched_by(Bars()):
        found = verdicts(hippocampus(options.work, options.raw), counts, options.repetitions)
    write_section(
        "Is the verdict on realism right? Hippocampus",
        f"""
`python benchmarks/realism_verdicts.py --repetitions {options.repetitions}`: how often the verdict on a known generator is right, of {options.repetitions} draws of patients, {EACH} slices
of each, level 1 %. {machine()}.

{table(found, counts)}
""",
    )


if __name__ == "__main__":
    main()
