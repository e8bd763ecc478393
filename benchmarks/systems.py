"""The systems of the paper side by side: ours, SPADE, latent diffusion with a control branch, and what learns nothing.

Example: python benchmarks/systems.py --set hippocampus --time 20m --count 120 --work /path/for/intermediate/files

Every system is trained for the same time with full label maps (STD), and then compared by `anatogen compare`. On a CPU
the time is processor time of one thread, so that other processes do not matter; on a GPU (--device cuda) it is
wall-clock time, with the larger batches of `ON_GPU`. --train NAME only trains that system, so that several can train
side by side; existing runs under --work are used. --mask-ablation trains with classes left free instead, and measures
each system with every class left free in turn.
SPADE and latent diffusion are scaled down to what a CPU can train: the settings are in `SYSTEMS`. ControlNet needs the
weights of Stable Diffusion (--weights FOLDER), and stands as not run without them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.generation.kinds import load_model
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.metrics.intervals import mean_interval
from anatogen.model import read_about
from anatogen.progress import format_duration, parse_duration
from anatogen.reporting.comparison import floors_in_words, tables
from anatogen.training import train as train_module
from anatogen.workflows.compare import CompareRequest, Contender, compare
from anatogen.workflows.train import TrainRequest, settings_for, train
from common import ROOT, SETS, is_trained, machine, parser_of, spread_rows, write_section
from paper_tables import dice_with_freed, mean, same_without

SYSTEMS: dict[str, tuple[str, list[str]]] = {
    "ours": ("denoiser", []),
    "SPADE": (
        "spade",
        [
            "spade.width=16",
            "spade.hidden=32",
            "spade.discriminator_width=32",
            "training.batch_size=16",
            "training.learning_rate=2e-4",
            "training.ema_decay=0.99",
        ],
    ),
    "latent diffusion": ("latent", ["autoencoder.channels=[32,64]", "latent.channels=[32,64,64,96]"]),
    "ControlNet": ("controlnet", ["training.batch_size=16", "training.warmup_steps=50"]),
}
ON_GPU = {
    "ours": ["training.batch_size=32"],
    "SPADE": ["training.batch_size=64", "training.ema_decay=0.999"],
    "latent diffusion": ["training.batch_size=32"],
}


def trained(name: str, dataset: Path, run: Path, options: argparse.Namespace) -> Contender:
    """The system of that name, trained first if its run is missing."""
    kind, values = SYSTEMS[name]
    if kind == "controlnet":
        if options.weights is None:
            return Contender(name, not_run="no weights of Stable Diffusion 1.5 at hand")
        values = [*values, f"controlnet.weights={options.weights}"]
    if options.device != "cpu":
        values = [*values, *ON_GPU.get(name, [])]
    if not is_trained(run):
        sections: dict[str, dict[str, Any]] = {
            "training": {"max_time_s": parse_duration(options.time)},
            "conditioning": {"mask_ablation": options.mask_ablation},
        }
        settings = settings_for(kind, values=values, sections=sections)
        train(TrainRequest(dataset, run, settings, options.device, resume=run.exists(), model=kind))
    return Contender(name, run)


def lengths(contenders: list[Contender]) -> str:
    """How long each was trained, and its last Dice on validation maps."""
    said = []
    for each in contenders:
        if each.path is None:
            continue
        about = read_about(each.path)
        lines = [json.loads(line) for line in (each.path / "metrics.jsonl").read_text().splitlines()]
        dice = [f"{line['dice']:.3f} at step {line['step']:,}" for line in lines if "dice" in line]
        shown = ", ".join(dice[:: max(1, len(dice) // 5)])
        said.append(
            f"{each.name}: {about.images:,} images in {format_duration(about.seconds or 0)}"
            + (f" (Dice on eight validation maps {shown})" if dice else "")
        )
    return "; ".join(said)


def with_classes_free(dataset: PreparedDataset, contenders: list[Contender], options: argparse.Namespace) -> str:
    """A table: each system trained with mask ablation, given all classes and with each class free in turn."""
    segmenter, rows = segmenter_for(dataset, device=options.device), spread_rows(dataset, options.count)
    names = dataset.schema.names
    head = [
        "system",
        "everything given",
        *(f"{name} free" for name in names),
        "mean over the freed class, of as many given",
    ]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    for each in contenders:
        if each.path is None:
            continue
        model: Any = load_model(each.path, device=options.device)
        given = dice_with_freed(dataset, rows, segmenter, model, [])
        freed = {name: dice_with_freed(dataset, rows, segmenter, model, [name]) for name in names}
        cells = [f"{mean(freed[name]):.3f} ({same_without(name, names, given):.3f})" for name in names]
        both = [np.mean([mean(freed[n]) for n in names]), np.mean([same_without(n, names, given) for n in names])]
        value, ends, _ = mean_interval(given, within=(0, 1))
        shown = f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
        lines.append(f"| {each.name} | {shown} | " + " | ".join(cells) + f" | {both[0]:.3f} ({both[1]:.3f}) |")
    return "\n".join(lines)


def write_ablation(dataset: PreparedDataset, contenders: list[Contender], options: argparse.Namespace) -> None:
    """The section on mask ablation in RESULTS.md."""
    write_section(
        f"Every system with mask ablation, {options.set}, {options.time}",
        f"""
Dice(m_gen, m) on the classes that stay given while one is left free; in brackets the Dice on the same classes with everything given.

`python benchmarks/systems.py --mask-ablation --set {options.set} --time {options.time} --count {options.count} --device {options.device}`:
{options.count} test slices, 30 % of the training images ablated. {lengths(contenders)}. {machine()}.

{with_classes_free(dataset, contenders, options)}
""",
    )


def write_comparison(dataset: PreparedDataset, contenders: list[Contender], options: argparse.Namespace) -> None:
    """The comparison, its section in RESULTS.md and its picture."""
    folder = contenders[0].path.parent if contenders[0].path else options.work
    utility = SegmenterSettings(steps=options.utility_steps)
    result = compare(
        CompareRequest(
            tuple(contenders),
            dataset.folder,
            folder / "comparison",
            only=tuple(options.only.split(",")),
            count=options.count,
            settings=EvaluationSettings(utility=utility),
            device=options.judge or options.device,
        )
    )
    found = result.comparison
    clock = "of one thread" if options.device == "cpu" else f"on a GPU ({options.trained_on}), side by side"
    parts = [
        f"`python benchmarks/systems.py --set {options.set} --time {options.time} --count {options.count} --only {options.only} "
        f"--utility-steps {options.utility_steps} --device {options.device}`: "
        f"{found.n.images} label maps of {found.n.patients} test patients; each system trained for {options.time} {clock}, "
        f"with full label maps. {lengths(contenders)}. {machine()}.",
        *(f"- {sentence}" for sentence in floors_in_words(found)),
    ]
    for table in tables(found):
        head = "| " + " | ".join(table.columns) + " |\n| --- |" + " --- |" * (len(table.columns) - 1)
        rows = [
            "| " + " | ".join((row.label + (f" ({row.detail})" if row.detail else ""), *row.cells)) + " |"
            for row in table.rows
        ]
        parts += [f"{table.caption}:", "\n".join([head, *rows])]
    name = options.set if options.device == "cpu" else f"{options.set}-gpu"
    figure = ROOT / "figures" / f"systems-{name}.png"
    figure.parent.mkdir(exist_ok=True)
    shutil.copy(result.folder / "figures" / "systems.png", figure)
    where = "" if options.device == "cpu" else f", {options.time} on a GPU"
    write_section(f"The systems side by side, {options.set}{where}", "\n\n".join(parts))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--time", default="20m", help="of each training")
    parser.add_argument("--train", choices=SYSTEMS, nargs="+", help="only train these")
    parser.add_argument("--mask-ablation", action="store_true", help="train with classes left free, and measure that")
    parser.add_argument("--count", type=int, default=120, help="label maps of each split")
    parser.add_argument("--only", default="faithfulness,utility,realism,privacy")
    parser.add_argument("--utility-steps", type=int, default=600, help="of each segmenter trained to measure utility")
    parser.add_argument("--weights", help="folder of Stable Diffusion 1.5")
    parser.add_argument("--device", default="cpu", help="where to train, and to judge")
    parser.add_argument("--judge", help="where to judge instead, for runs that were trained elsewhere")
    parser.add_argument("--trained-on", default="of this machine", help="the name of the GPU, for the record")
    options = parser.parse_args()
    if "cpu" in (options.device, options.judge):
        torch.set_num_threads(1)
        train_module.CLOCK = time.process_time
    dataset = SETS[options.set](options.work, None)
    mat = "-mat" if options.mask_ablation else ""
    folder = options.work / "systems" / f"{options.set}-{options.time}{mat}"
    contenders = [
        trained(name, dataset.folder, folder / name.replace(" ", "-"), options) for name in options.train or SYSTEMS
    ]
    if options.train is None:
        dataset.hold()
        (write_ablation if options.mask_ablation else write_comparison)(dataset, contenders, options)


if __name__ == "__main__":
    main()
