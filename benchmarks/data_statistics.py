"""Should the target `edm` use the images' mean and standard deviation, or assume 0 and 0.5?

Example: python benchmarks/data_statistics.py --steps 1500 --width 64 --work /path/for/intermediate/files

Trains two models of the hippocampus set that differ only in `diffusion.data_statistics`, then generates images of every
test slice with all classes given. Dice, spectrum and noise are measured as in `solvers.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anatogen.generation.plan import requests_from_dataset
from common import hippocampus, machine, parser_of, spread_rows, trained, write_section
from solvers import Judge


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000, help="test slices at most")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    lines, judge, about = [], None, ""
    for name in ("fixed", "measured"):
        run = options.work / "runs" / f"statistics-{name}-{options.width}-{options.steps}-{options.seed}"
        values = [
            f"diffusion.data_statistics={name}",
            f"network.width={options.width}",
            f"training.seed={options.seed}",
        ]
        generator = trained(dataset, run, values, {"steps": options.steps})
        judge = judge or Judge(dataset, spread_rows(dataset, options.count))
        requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
        found = judge(np.stack([image for _, image in generator.generate(requests, batch_size=32)]))
        config = generator.denoiser.config
        about = f"mean {config.data_mean[0]:.3f}, deviation {config.data_std[0]:.3f}"
        lines.append(
            f"| {name} | {about} | {found['dice']:.4f} | {found['power']:.3f} | {found['noise']:.3f} | "
            f"{found['kid']:.1f} |"
        )
    assert judge is not None
    real = judge(judge.real.images.numpy())["dice"]
    write_section(
        "Mean and deviation in the edm target, hippocampus",
        f"""
`python benchmarks/data_statistics.py --steps {options.steps} --width {options.width} --seed {options.seed}`: {len(judge.rows)} test slices, everything given,
16 steps of the default solver; models of {options.steps} steps of 16 images. Real images: Dice {real:.3f}. {machine()}.

| data_statistics | reckons with | Dice | power off by (octaves) | noise, gen / real | KID x 1000 |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
