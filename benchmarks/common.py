"""Shared by the benchmarks: data, a description of the machine, and the results file."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from anatogen import __version__
from anatogen.data.intensity import IntensityRule
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.engine import Generator
from anatogen.model import read_about
from anatogen.progress import stage
from anatogen.training.config import build_settings
from anatogen.training.train import train

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "RESULTS.md"
SHARED = ROOT.parents[1] / "shared" / "data"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with --work, the folder for intermediate files."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "anatogen-benchmarks")
    return parser


def hippocampus(work: Path, raw: Path | None = None) -> PreparedDataset:
    """The standard small benchmark: sagittal slices of 64 x 64, prepared once under `work`."""
    out = work / "hippocampus"
    if out.exists():
        return PreparedDataset.open(out)
    source = open_source(str(raw or SHARED / "Dataset004_Hippocampus"))
    return prepare(source, out, PrepareSettings(size=(64, 64), axis="sagittal"), version=__version__)


def head_neck(work: Path, raw: Path | None = None) -> PreparedDataset:
    """Axial slices of head-and-neck CT at 4 mm, 64 x 64, its seven organs partly annotated, prepared once under
    `work`.
    """
    out = work / "head-neck"
    if out.exists():
        return PreparedDataset.open(out)
    settings = PrepareSettings(
        size=(64, 64),
        fit="crop",
        spacing_mm=(4, 4, 3),
        intensity=IntensityRule(window=(-200, 800)),
        shares={"train": 60, "heldout": 15, "val": 8, "test": 17},
    )
    return prepare(open_source(str(raw or SHARED / "Dataset101_HeadNeckCT")), out, settings, version=__version__)


def phantom(work: Path, raw: Path | None = None) -> PreparedDataset:  # noqa: ARG001
    """Axial slices of 40 virtual patients of the CT phantom, 128 x 128, prepared once under `work`."""
    out = work / "phantom"
    if out.exists():
        return PreparedDataset.open(out)
    settings = PrepareSettings(size=(128, 128), shares={"train": 55, "heldout": 15, "val": 10, "test": 20})
    return prepare(open_source("phantom:ct-organ?patients=40"), out, settings, version=__version__)


SETS: dict[str, Callable[[Path, Path | None], PreparedDataset]] = {
    "hippocampus": hippocampus,
    "head-neck": head_neck,
    "phantom": phantom,
}


def with_few_patients(
    dataset: PreparedDataset, out: Path, patients: int, *, middle_only: bool = False
) -> PreparedDataset:
    """A copy of `dataset` with `patients` of its training patients, spread over all; the others' images are in the
    split "spare". middle_only: with one image of each, of the middle slice.
    """
    if not out.exists():
        of_patient: dict[str, list[int]] = {}
        for number, row in enumerate(dataset.rows):
            if row.split == "train":
                of_patient.setdefault(row.patient, []).append(number)
        names = list(of_patient)
        chosen = [of_patient[names[i * len(names) // patients]] for i in range(patients)]
        kept = (
            {each[len(each) // 2] for each in chosen} if middle_only else {number for each in chosen for number in each}
        )
        out.mkdir()
        for name in ("dataset.json", "images.b2nd", "labels.b2nd"):
            shutil.copy(dataset.folder / name, out)
        with (dataset.folder / "index.csv").open(newline="") as old, (out / "index.csv").open("w", newline="") as new:
            lines = csv.DictReader(old)
            writer = csv.DictWriter(new, lines.fieldnames or ())
            writer.writeheader()
            for number, line in enumerate(lines):
                if line["split"] == "train" and number not in kept:
                    line["split"] = "spare"
                writer.writerow(line)
    return PreparedDataset.open(out)


def is_trained(run: Path) -> bool:
    """Whether a run is there and was trained to its end; one that was stopped is not."""
    return (run / "model.json").exists() and read_about(run).finished


def trained(dataset: PreparedDataset, run: Path, values: Sequence[str], length: dict[str, float]) -> Generator:
    """The generator in `run`, trained first if missing or not finished; length: {"steps": N} or {"max_time_s": S}."""
    if not is_trained(run):
        settings = build_settings(values=values, training={"steps": None, **length})
        with stage(f"training {run.name}", 1.0, "s") as bar:
            train(
                dataset,
                run,
                settings,
                resume=True,
                progress=lambda share, text: bar.update(share, text or bar.text),
            )
    return Generator.load(run)


def spread_rows(dataset: PreparedDataset, count: int, split: str = "test") -> list[Row]:
    """`count` rows of a split at equal distances, or all."""
    rows = dataset.split(split)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def machine() -> str:
    """Processor, cores, device and versions, on one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        name = found[1]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, {os.cpu_count()} cores, {device}, PyTorch {torch.__version__}, anatogen {__version__}"


def status_mb(name: str) -> float:
    """A line of /proc/self/status in MB: VmRSS, the resident memory of this process, or VmHWM, its peak (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def write_section(title: str, body: str) -> None:
    """Replace the section `title` of RESULTS.md by `body`."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.S | re.M)
    if pattern.search(text):
        text = pattern.sub(lambda _: section + "\n", text)
    else:
        text = text.rstrip() + "\n\n" + section
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(f"\n{title}\n\n{body.strip()}")
