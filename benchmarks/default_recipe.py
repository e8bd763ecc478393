"""What does the default recipe reach on the hippocampus set? Dice against the ceiling, texture, and classes left free.

Example: python benchmarks/default_recipe.py --steps 1500 --work /path/for/intermediate/files

One model with the default settings. Texture: see `solvers.py`. Classes left free: Dice on the class that stays given,
and how much a class differs between seeds (1 - Dice) where it is free and where it is given. An existing run under
--work is used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anatogen.evaluation.sections.generator import variation
from anatogen.generation.plan import requests_from_dataset
from common import hippocampus, machine, parser_of, spread_rows, trained, write_section
from paper_tables import dice_with_freed, mean
from solvers import Judge


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=160, help="test slices")
    parser.add_argument("--maps", type=int, default=12, help="label maps a class for the difference between seeds")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    generator = trained(dataset, options.work / "runs" / f"default-{options.steps}", [], {"steps": options.steps})
    judge = Judge(dataset, spread_rows(dataset, options.count))
    requests = requests_from_dataset(dataset, judge.rows, dataset.schema.states())
    found = judge(np.stack([image for _, image in generator.generate(requests, batch_size=32)]))
    ceiling = judge(judge.real.images.numpy())["dice"]
    apart = variation(dataset, judge.rows, judge.segmenter, generator, maps=options.maps, seeds=options.seeds).result
    lines = []
    for name in dataset.schema.names:
        others = mean(dice_with_freed(dataset, judge.rows, judge.segmenter, generator, [name]))
        lines.append(f"| {name} | {others:.3f} | {apart.free[name]:.2f} | {apart.given[name]:.2f} |")
    about = generator.about
    write_section(
        f"The default recipe after {about.images:,} images, hippocampus",
        f"""
`python benchmarks/default_recipe.py --steps {options.steps} --count {options.count}`: {len(judge.rows)} test slices by patient, 16 steps of the
default solver. {about.steps} steps of 16 images. {machine()}.

| | generated | real images |
| --- | --- | --- |
| Dice(m_gen, m), everything given | {found["dice"]:.3f} | {ceiling:.3f} |
| power spectrum off by, octaves | {found["power"]:.3f} | 0 |
| noise relative to real images | {found["noise"]:.3f} | 1 |

| class left free | Dice on the other class | between seeds, free | between seeds, given |
| --- | --- | --- | --- |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
