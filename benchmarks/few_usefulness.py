"""Does a segmenter of few patients gain from edited synthetic images? From ten and twenty, with everything seeing those.

Example: python benchmarks/few_usefulness.py --patients 10 20 --time 5m --work /path/for/intermediate/files

For each number of real patients the generator is trained on them alone (with the settings that `train` plans), the
limits of plausible edits are learned from them, their label maps are edited (--edit, implausible ones refused) and
sampled. A segmenter is then trained with equal steps on the real images, on real images and synthetic ones 1 : 1, and
on real images and stronger augmented copies of them 1 : 1; it augments all of them lightly. Selected on validation
patients, tested on real test patients, three seeds; differences are paired by patient. With --rare CLASS the class is
kept in the label maps of --rare-patients of the patients only: the images of the others that show it are left out of
every training, and the synthetic set shows it in half of its images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.augment import Augment, AugmentSettings
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.balanced_maps import BalancedMaps
from anatogen.generation.edited_maps import EditedMaps, Editing, limits_of
from anatogen.generation.kinds import load_model
from anatogen.generation.plan import DatasetMaps, MapSource, Plan
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.judges.utility import MixtureUtility, Parts, UtilityData, UtilitySettings, utility_of_mixtures
from anatogen.progress import parse_duration, stage
from anatogen.training import train as train_module
from anatogen.training.config import build_settings
from common import SETS, is_trained, machine, parser_of, with_few_patients, write_section

AUGMENTED = AugmentSettings(rotation_degrees=15, scale=0.15, shift=0.05, gain=0.2, offset=0.1, noise=0.05)
SHARES = (1.0, 0.5)


@dataclass(frozen=True)
class Study:
    """What is the same for every number of patients."""

    edits: tuple[str, ...]
    count: int
    seconds: float
    segmenter: SegmenterSettings
    seeds: tuple[int, ...]
    work: Path


def parts_of(dataset: PreparedDataset, rows: list[Row]) -> Parts:
    """The real images of some rows."""
    batch = dataset.load(rows)
    return Parts(batch.images, batch.truth, batch.annotated, np.array([row.patient for row in rows]))


def generator_of(dataset: PreparedDataset, run: Path, seconds: float) -> Path:
    """The run, trained on the training patients first if it is missing."""
    if not is_trained(run):
        settings = build_settings(values=["live.previews=false"], training={"max_time_s": seconds})
        with stage(run.name, 1.0, "s") as bar:
            train_module.train(
                dataset, run, settings, resume=True, progress=lambda share, text: bar.update(share, text or bar.text)
            )
    return run


def synthetic(dataset: PreparedDataset, run: Path, study: Study, rare: str | None) -> tuple[Parts, int]:
    """Images of edited label maps, and how many edits were refused."""
    rows = dataset.split("train")
    editing = Editing(
        parse_edits(study.edits), -(-study.count // len(rows)), study.count, 0, limits_of(dataset), "refuse"
    )
    maps: MapSource
    if rare is None:
        maps = edited = EditedMaps(DatasetMaps(dataset, rows), editing)
        refused = edited.refused
    else:
        maps, refused = BalancedMaps(dataset, rows, rare, 0.5, count=study.count, editing=editing), 0
    requests = Plan(dataset.schema.states()).requests(maps)
    images, labels, patients = [], [], []
    with stage("sampling", len(requests), "images") as bar:
        for request, image in load_model(run).generate(requests):
            images.append(image)
            labels.append(request.labels)
            patients.append(request.origin.patient or "")
            bar.advance()
    annotated = torch.ones(len(images), len(dataset.schema.names), dtype=torch.bool)
    return Parts(
        torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), annotated, np.array(patients)
    ), refused


def augmented(dataset: PreparedDataset, count: int) -> Parts:
    """As many augmented copies of the real images."""
    rows = dataset.split("train")
    chosen = [rows[i % len(rows)] for i in range(count)]
    batch = Augment(AUGMENTED)(dataset.load(chosen), 0)
    return Parts(batch.images, batch.truth, batch.annotated, np.array([row.patient for row in chosen]))


def with_rare_class(dataset: PreparedDataset, out: Path, name: str, patients: int) -> PreparedDataset:
    """A copy in which all but some training patients have no image that shows a class."""
    if not out.exists():
        index = dataset.schema.index_of(name)
        rows = dataset.split("train")
        keep = set(list(dict.fromkeys(row.patient for row in rows))[:patients])
        shown = (dataset.load(rows).labels == index).flatten(1).any(dim=1).tolist()
        left_out = {row.id for row, there in zip(rows, shown, strict=True) if there and row.patient not in keep}
        with_few_patients(dataset, out, len({row.patient for row in rows}))
        text = (out / "index.csv").read_text().splitlines()
        for place, row in enumerate(dataset.rows, start=1):
            if row.id in left_out:
                text[place] = text[place].replace(",train,", ",spare,")
        (out / "index.csv").write_text("\n".join(text) + "\n")
    return PreparedDataset.open(out)


def rows_of(dataset: PreparedDataset, run: Path, study: Study, rare: str | None) -> list[str]:
    """The lines of a table."""
    real = parts_of(dataset, dataset.split("train"))
    validation, test = (parts_of(dataset, dataset.split(name)) for name in ("val", "test"))
    settings = UtilitySettings(SHARES, segmenter=study.segmenter, seeds=study.seeds)
    made, refused = synthetic(dataset, run, study, rare)
    patients = len(np.unique(real.groups))
    lines = []
    for what, others in (("edited synthetic", made), ("augmented copies", augmented(dataset, study.count))):
        data = UtilityData(real, others, validation, test)
        with stage(what, len(SHARES) * len(study.seeds) * study.segmenter.steps, "steps") as bar:
            found = utility_of_mixtures(
                data, settings, cache=study.work / "segmenters", progress=lambda done, _, text: bar.update(done, text)
            )
        for result in found if not lines else found[1:]:
            name = "real" if result.real_share == 1 else f"real and {what}, 1 : 1"
            lines.append(f"| {patients} | {len(real)} | {name} | {cells(result)} |")
            print(lines[-1], flush=True)
    lines[1] = lines[1].replace("edited synthetic,", f"{len(made)} edited synthetic ({refused} edits refused),")
    return lines


def cells(found: MixtureUtility) -> str:
    interval = f" [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]" if found.ci95 else ""
    other = f" [{found.difference_ci95[0]:+.3f}, {found.difference_ci95[1]:+.3f}]" if found.difference_ci95 else ""
    difference = "" if found.real_share == 1 else f"{found.difference:+.3f}{other}"
    by_class, by_seed = (", ".join(f"{v:.3f}" for v in each) for each in (found.per_class, found.mean_of_each_seed))
    return f"{found.mean:.3f}{interval} | {difference} | {by_class} | {by_seed}"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--time", default="5m", help="of each generator, processor time of one thread")
    parser.add_argument("--edit", nargs="+", default=["deform 0.2..0.4", "grow anterior 0..1px; deform 0.2..0.4"])
    parser.add_argument("--count", type=int, default=600, help="synthetic images, and augmented copies")
    parser.add_argument("--steps", type=int, default=300, help="of each segmenter")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", action="append", default=[], metavar="PATIENTS=RUN", help="a run that exists already")
    parser.add_argument("--rare", metavar="CLASS")
    parser.add_argument("--rare-patients", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    whole = SETS[options.set](options.work, None)
    study = Study(
        tuple(options.edit),
        options.count,
        parse_duration(options.time),
        replace(SegmenterSettings(), steps=options.steps),
        tuple(range(options.seeds)),
        options.work,
    )
    runs = dict(text.split("=", 1) for text in options.run)
    lines = [
        "| real patients | images | a segmenter trained on | Dice, real test patients | difference to real | by class | by seed |",
        "| ---: | ---: | --- | --- | --- | --- | --- |",
    ]
    for patients in options.patients:
        few = with_few_patients(whole, options.work / f"{options.set}-{patients}-patients", patients)
        name = f"useful-{options.set}-{patients}"
        if options.rare:
            name += f"-{options.rare}-{options.rare_patients}"
            few = with_rare_class(few, options.work / name, options.rare, options.rare_patients)
        few.hold()
        run = Path(runs.get(str(patients)) or generator_of(few, options.work / "runs" / name, study.seconds))
        lines += rows_of(few, run, study, options.rare)
    rare = f" --rare {options.rare} --rare-patients {options.rare_patients}" if options.rare else ""
    title = f"Few patients and edited synthetic images, {options.set}" + (
        f", {options.rare} rare" if options.rare else ""
    )
    write_section(
        title,
        f"""
`python benchmarks/few_usefulness.py --set {options.set} --patients {" ".join(map(str, options.patients))} --time {options.time} --count {options.count} --steps {options.steps} --seeds {options.seeds}{rare}`;
edits {", ".join(f'"{e}"' for e in options.edit)}. {machine()}.

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
