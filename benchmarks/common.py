"""What the benchmarks share: the data, the machine's description, and the results file."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from anatogen import __version__
from anatogen.data.prepare import PrepareSettings, prepare
from anatogen.data.sources import open_source
from anatogen.data.store import PreparedDataset

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "RESULTS.md"
SHARED = ROOT.parents[1] / "shared" / "data"


def hippocampus(work: Path, raw: Path | None = None) -> PreparedDataset:
    """The standard small benchmark: sagittal slices of 64 x 64, prepared once under `work`."""
    out = work / "hippocampus"
    if out.exists():
        return PreparedDataset.open(out)
    source = open_source(str(raw or SHARED / "Dataset004_Hippocampus"))
    return prepare(source, out, PrepareSettings(size=(64, 64), axis="sagittal"), version=__version__)


def machine() -> str:
    """Processor, cores, device and versions, in one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        name = found[1]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, {os.cpu_count()} cores, {device}, PyTorch {torch.__version__}, anatogen {__version__}"


def write_section(title: str, body: str) -> None:
    """Put `body` under the heading `title` in RESULTS.md, in the place of what stood there."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.S | re.M)
    if pattern.search(text):
        text = pattern.sub(lambda _: section + "\n", text)
    else:
        text = text.rstrip() + "\n\n" + section
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(f"\n{title}\n\n{body.strip()}")
