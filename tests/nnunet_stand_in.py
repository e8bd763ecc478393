"""An executable that stands in for nnU-Net's commands: it segments by the nearest mean of each class, and says how it
was called.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

STAND_IN = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
homes = {{k: v for k, v in os.environ.items() if k.startswith("nnUNet_")}}
with open({log!r}, "a") as log:
    log.write(json.dumps([name, arguments, homes]) + "\\n")
print("this is", name)
if name == {failing!r}:
    sys.exit(3)
if name == {hanging!r}:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path({log!r}).with_name("workers").write_text(f"{{os.getpid()}} {{worker.pid}}\\n")
    time.sleep(600)
if name != "nnUNetv2_plan_and_preprocess":
    import nibabel, numpy as np
    read = lambda path: np.asarray(nibabel.load(path).dataobj)
    learnt = Path(homes["nnUNet_results"]) / "means.json"
if name == "nnUNetv2_train":
    raw = Path(homes["nnUNet_raw"]) / "Dataset001_anatogen"
    labels = [read(p) for p in sorted((raw / "labelsTr").iterdir())]
    images = [read(p) for p in sorted((raw / "imagesTr").glob("*_0000.nii.gz"))]
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (images, labels)]
    learnt.write_text(json.dumps([float(flat[0][flat[1] == c].mean()) for c in range(int(flat[1].max()) + 1)]))
if name == "nnUNetv2_predict":
    option = dict(zip(arguments, arguments[1:]))
    out = Path(option["-o"])
    out.mkdir(parents=True)
    means = np.array(json.loads(learnt.read_text()))
    for path in Path(option["-i"]).glob("*_0000.nii.gz"):
        image = nibabel.load(path)
        nearest = np.abs(np.asarray(image.dataobj)[..., None] - means).argmin(-1).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(nearest, image.affine), out / path.name.replace("_0000.nii", ".nii"))
"""
COMMANDS = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")


class Installed:
    """A stand-in nnU-Net on PATH, and what it was called with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder, folder / "calls.jsonl"
        (folder / "nnunetv2").mkdir(parents=True)
        (folder / "nnunetv2" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc"):
            monkeypatch.delenv(name, raising=False)
        self.write()

    def write(self, failing: str = "", hanging: str = "") -> None:
        text = STAND_IN.format(python=sys.executable, log=str(self.log), failing=failing, hanging=hanging)
        for name in COMMANDS:
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    @property
    def calls(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
