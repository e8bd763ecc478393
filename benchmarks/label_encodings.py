"""Does the learned embedding of label maps cost quality? It against planes, after equal steps.

Example: python benchmarks/label_encodings.py --steps 1000 --work /path/for/intermediate/files

Both trainings have the same seed, batches and noise. Measures are those of `solvers.py`.
"""

from __future__ import annotations

import numpy as np

from anatogen.generation.plan import requests_from_dataset
from common import SETS, machine, parser_of, spread_rows, trained, write_section
from solvers import Judge

ENCODINGS = ("onehot", "embedding")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=SETS, default="hippocampus")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--count", type=int, default=96, help="test slices")
    options = parser.parse_args()
    dataset = SETS[options.set](options.work, None)
    dataset.hold()
    judge = Judge(dataset, spread_rows(dataset, options.count))
    requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
    lines = []
    for seed in range(options.seeds):
        for encoding in ENCODINGS:
            values = [f"network.width={options.width}", f"conditioning.encoding={encoding}", f"training.seed={seed}"]
            run = options.work / "runs" / f"{options.set}-{encoding}-{options.width}-{options.steps}-{seed}"
            generator = trained(dataset, run, values, {"steps": options.steps})
            found = judge(np.stack([image for _, image in generator.generate(requests, batch_size=32)]))
            lines.append(
                f"| {encoding} | {seed} | {found['dice']:.4f} | {found['power']:.3f} | {found['noise']:.2f} | {found['kid']:.0f} |"
            )
            print(lines[-1], flush=True)
    real = judge(judge.real.images.numpy())
    table = [
        f"`python benchmarks/label_encodings.py --set {options.set} --steps {options.steps} --width {options.width}`: {len(judge.rows)} test "
        f"slices; real images: Dice {real['dice']:.4f}. {machine()}.",
        "",
        "| encoding | seed | Dice(m_gen, m) | power off by (octaves) | noise, gen / real | KID x 1000 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *lines,
    ]
    write_section(f"Label maps as planes and as an embedding, {options.set}", "\n".join(table))


if __name__ == "__main__":
    main()
