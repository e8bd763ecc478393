"""Makes the pictures of the README by the commands that stand beside them there, on real patients.

The hippocampus of the Medical Segmentation Decathlon (T1 MRI, CC-BY-SA 4.0) and the head-and-neck CT of OpenKBP (MIT),
both in nnU-Net's raw layout. Intermediate files that exist already are taken as they are, so that a stopped run can go
on.

Example: python docs/tools/gallery.py Dataset004_Hippocampus Dataset101_HeadNeckCT --work /path/for/intermediate/files
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from anatogen.data.store import PreparedDataset
from anatogen.evaluation.counterfactual import grown_class
from anatogen.generation.engine import Generator
from anatogen.judges.of_dataset import segmenter_for

IMAGES = Path(__file__).resolve().parents[1] / "images"
DATA = {
    "data/hippocampus": "prepare {hippocampus} data/hippocampus --size 64 --axis sagittal",
    "runs/hippocampus": "train data/hippocampus --out runs/hippocampus --steps 1500",
    "data/head-neck": "prepare {head_neck} data/head-neck --size 64 --fit crop --spacing 4,4,3 --window -200 800 "
    "--split train=60,heldout=15,val=8,test=17",
    "runs/head-neck": "train data/head-neck --out runs/head-neck --max-time 1h",
    "data/axial": "prepare hippocampus data/axial --size 48 --axis axial",
    "data/other": "prepare hippocampus data/other --size 96 --axis sagittal --merge head=anterior --drop posterior",
}
SAMPLE = "sample runs/hippocampus --masks data/hippocampus"
GALLERY = {
    "combinations": f"{SAMPLE} --count 4 --combine all --out combinations",
    "seeds": f"{SAMPLE} --count 18 --per-mask 6 --free posterior --out seeds",
    "absent": f"{SAMPLE} --count 12 --per-mask 4 --absent posterior --out absent",
    "similarity": "interpolate runs/hippocampus --masks data/hippocampus --count 3 --given anterior "
    "--similarity 0,0.2,0.4,0.6,0.8,0.95 --out similarity",
    "pairs": f"{SAMPLE} --count 12 --per-mask 4 --given anterior --paired --out pairs",
    "edits": "edit data/axial edits --per-map 8 --count 8 --edit 'grow anterior 2mm' --edit 'shrink anterior 2mm' "
    "--edit 'move posterior 5mm left' --edit 'remove posterior' --edit mirror --edit 'deform 0.6 16mm' "
    "--edit 'paste anterior' --edit 'interpolate 0.5'",
    "counterfactual": f"{SAMPLE} --count 5 --edit 'grow anterior 2mm' --counterfactual 6px --out counterfactual",
    "head-neck": "sample runs/head-neck --masks data/head-neck --count 15 --per-mask 3 --out head-neck",
    "elsewhere": "sample runs/hippocampus --masks data/other --count 12 --per-mask 4 --rename anterior=head "
    "--out elsewhere",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hippocampus", type=Path, help="Dataset004_Hippocampus")
    parser.add_argument("head_neck", type=Path, help="Dataset101_HeadNeckCT")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "anatogen-gallery")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sources = {name: shlex.quote(str(getattr(options, name).resolve())) for name in ("hippocampus", "head_neck")}

    for made, command in (DATA | GALLERY).items():
        if not (options.work / made).exists():
            command = command.format(**sources)
            print(f"anatogen {command}", flush=True)
            subprocess.run([sys.executable, "-m", "anatogen", *shlex.split(command)], cwd=options.work, check=True)
    for name in GALLERY:
        (IMAGES / f"{name}.png").write_bytes((options.work / name / "overview.png").read_bytes())
    (IMAGES / "edit.png").write_bytes(edited(options.work))


def edited(work: Path) -> bytes:
    """PNG: a test patient's label map with the anterior hippocampus grown step by step, and the image that follows each
    map.
    """
    dataset = PreparedDataset.open(work / "data/hippocampus")
    generator = Generator.load(work / "runs/hippocampus")
    return grown_class(dataset, generator, dataset.split("test"), "anterior", segmenter_for(dataset)).png


if __name__ == "__main__":
    main()
