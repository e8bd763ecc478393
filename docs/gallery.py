"""Makes the pictures of the README's gallery by the commands that stand beside them there, on a phantom: nobody's scan.

Example: python docs/gallery.py --work /path/for/intermediate/files
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PREPARE = "prepare phantom:ct-organ data/ct --size 80 --window -200 500 --patients 60"
TRAIN = "train data/ct --out runs/ct --steps 1200"
OTHER = (
    "prepare phantom:ct-organ data/other --size 128 --spacing 3,3,5 --window -200 500 --patients 12 --seed 7 "
    "--drop bladder --merge skeleton=bone --split train=50,test=50"
)
GALLERY = {
    "combinations": "sample runs/ct --masks data/ct --count 3 --combine liver,kidneys,bone --out combinations",
    "seeds": "sample runs/ct --masks data/ct --count 3 --per-mask 6 --free liver,kidneys --out seeds",
    "absent": "sample runs/ct --masks data/ct --count 4 --absent kidneys --out absent",
    "similarity": "interpolate runs/ct --masks data/ct --count 3 --given bone --similarity 0,0.2,0.4,0.6,0.8,0.95 --out similarity",
    "pairs": "sample runs/ct --masks data/ct --count 4 --given bone --paired --out pairs",
    "elsewhere": "sample runs/ct --masks data/other --count 4 --rename bone=skeleton --per-mask 3 --out elsewhere",
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

    call(PREPARE, "data/ct")
    call(TRAIN, "runs/ct")
    call(OTHER, "data/other")
    for name, command in GALLERY.items():
        call(command, name)
        (DOCS / f"{name}.png").write_bytes((options.work / name / "overview.png").read_bytes())


if __name__ == "__main__":
    main()
