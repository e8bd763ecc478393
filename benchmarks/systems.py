"""The systems of the paper side by side: ours, SPADE, latent diffusion with a control branch, and what learns nothing.

Example: python benchmarks/systems.py --set hippocampus --time 20m --count 120 --work /path/for/intermediate/files

Every system is trained for the same processor time on one thread (so that other processes do not matter), with full
label maps (STD), and then compared by `anatogen compare`.
SPADE and latent diffusion are scaled down to what a CPU can train: the settings are in `SYSTEMS`. ControlNet needs the
weights of Stable Diffusion (--weights FOLDER), and stands as not run without them. An existing run under --work is used.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

from anatogen.progress import parse_duration
from anatogen.reporting.comparison import floors_in_words, tables
from anatogen.training import train as train_module
from anatogen.workflows.compare import CompareRequest, Contender, compare
from anatogen.workflows.train import TrainRequest, settings_for, train
from common import ROOT, SETS, machine, parser_of, write_section

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


def trained(name: str, dataset: Path, run: Path, seconds: float, weights: str | None) -> Contender:
    """The system of that name, trained first if its run is missing."""
    kind, values = SYSTEMS[name]
    if kind == "controlnet":
        if weights is None:
            return Contender(name, not_run="no weights of Stable Diffusion 1.5 at hand")
        values = [*values, f"controlnet.weights={weights}"]
    if not (run / "model.json").exists():
        sections = {"training": {"max_time_s": seconds}, "conditioning": {"mask_ablation": False}}
        settings = settings_for(kind, values=values, sections=sections)
        train(TrainRequest(dataset, run, settings, "cpu", model=kind))
    return Contender(name, run)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--time", default="20m", help="of each training")
    parser.add_argument("--count", type=int, default=120, help="label maps of each split")
    parser.add_argument("--only", default="faithfulness,utility,realism,privacy")
    parser.add_argument("--utility-steps", type=int, default=600, help="of each segmenter trained to measure utility")
    parser.add_argument("--weights", help="folder of Stable Diffusion 1.5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_module.CLOCK = time.process_time
    dataset = SETS[options.set](options.work, None)
    folder = options.work / "systems" / f"{options.set}-{options.time}"
    contenders = [
        trained(name, dataset.folder, folder / name.replace(" ", "-"), parse_duration(options.time), options.weights)
        for name in SYSTEMS
    ]
    result = compare(
        CompareRequest(
            tuple(contenders),
            dataset.folder,
            folder / "comparison",
            only=tuple(options.only.split(",")),
            count=options.count,
        )
    )
    found = result.comparison
    parts = [
        f"`python benchmarks/systems.py --set {options.set} --time {options.time} --count {options.count} --only {options.only} "
        f"--utility-steps {options.utility_steps}`: "
        f"{found.n.images} label maps of {found.n.patients} test patients; each system trained for {options.time} of one "
        f"thread, with full label maps. {machine()}.",
        *(f"- {sentence}" for sentence in floors_in_words(found)),
    ]
    for table in tables(found):
        head = "| " + " | ".join(table.columns) + " |\n| --- |" + " --- |" * (len(table.columns) - 1)
        rows = [
            "| " + " | ".join((row.label + (f" ({row.detail})" if row.detail else ""), *row.cells)) + " |"
            for row in table.rows
        ]
        parts += [f"{table.caption}:", "\n".join([head, *rows])]
    figure = ROOT / "figures" / f"systems-{options.set}.png"
    figure.parent.mkdir(exist_ok=True)
    shutil.copy(result.folder / "figures" / "systems.png", figure)
    write_section(f"The systems side by side, {options.set}", "\n\n".join(parts))


if __name__ == "__main__":
    main()
