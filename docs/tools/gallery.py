"""Makes the pictures of the README's gallery by the commands that stand beside them there, on the brain template.

The data is the ICBM 2009a template (Fonov et al. 2011) that ships with nilearn, deformed: no single person's scan.

Example: python docs/tools/gallery.py --work /path/for/intermediate/files
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "images"
PREPARE = "prepare brain-template data/brains --size 64"
TRAIN = "train data/brains --out runs/brains --steps 2000 --set conditioning.ablated_share=0.5"
OTHER = "prepare brain-template data/other --size 96 --seed 7 --merge 'CSF=cerebrospinal fluid' --drop 'white matter'"
GALLERY = {
    "combinations": "sample runs/brains --masks data/brains --count 3 --combine all --out combinations",
    "seeds": "sample runs/brains --masks data/brains --count 18 --per-mask 6 --free 'cerebrospinal fluid,white matter' --out seeds",
    "absent": "sample runs/brains --masks data/brains --count 12 --per-mask 4 --absent 'cerebrospinal fluid' --out absent",
    "similarity": "interpolate runs/brains --masks data/brains --count 3 --given 'grey matter' "
    "--similarity 0,0.2,0.4,0.6,0.8,0.95 --out similarity",
    "pairs": "sample runs/brains --masks data/brains --count 12 --per-mask 4 --given 'grey matter' --paired --out pairs",
    "elsewhere": "sample runs/brains --masks data/other --count 12 --per-mask 4 --rename 'cerebrospinal fluid=CSF' --out elsewhere",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "anatogen-gallery")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    def call(command: str, made: str) -> None:
        if not (options.work / made).exists():
            print(f"anatogen {command}", flush=True)
            subprocess.run([sys.executable, "-m", "anatogen", *shlex.split(command)], cwd=options.work, check=True)

    call(PREPARE, "data/brains")
    call(TRAIN, "runs/brains")
    call(OTHER, "data/other")
    for name, command in GALLERY.items():
        call(command, name)
        (IMAGES / f"{name}.png").write_bytes((options.work / name / "overview.png").read_bytes())


if __name__ == "__main__":
    main()
