"""Control: does the image follow an edited map, does the rest stay, and is a class free in a region only?

Example: python benchmarks/control.py --run RUN --data DATASET --class anterior --maps 12

Three tables for a run with classes left free in training, on label maps of test patients:

- Growing: the class of five sizes, from the same noise. The volume that a segmenter finds in the images against the
  volume asked for: correlation and slope of a line through all maps and sizes, and the slope of each map. Beside them
  what it finds in real images that were warped so that the class is of that size (`anatogen.judges.warping`): the
  most that right images could reach. The segmenter learnt such images, of held-out patients; beside it the usual one.
- Counterfactual pairs: the image outside the edit and its margin against the real image, the Dice to the edited map
  against that of images made from unedited maps, and the mean difference of neighbouring pixels across the border of
  what is kept, relative to that in images made from the edited maps as a whole and in the real ones (1: no seam).
- A class free in a half of the image: how much it varies between seeds there, against the same class free everywhere,
  and the Dice in the other half against that with everything given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.conditioning.counterfactual import DEFAULT_MARGIN, kept_outside
from anatogen.conditioning.edit import enlarge
from anatogen.conditioning.regions import Box, Region
from anatogen.data.placement import item_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.generation.edited_maps import limits_of
from anatogen.generation.engine import Generator
from anatogen.generation.plan import DatasetMaps, Plan
from anatogen.judges.of_dataset import segmenter_for
from anatogen.judges.segmenter import SegmenterSettings, default_segmenter
from anatogen.judges.warping import warp_class
from anatogen.labels import ClassStates
from anatogen.model import Known, Query
from anatogen.reporting import figures
from anatogen.seeds import derive_seed
from common import ROOT, machine, parser_of, write_section

SEEDS = 4
Maps = NDArray[np.int64]
Images = NDArray[np.float32]


class Control:
    """A run, its data set's segmenters and test maps that show the class."""

    growth = 2.0  # of counterfactual pairs
    sizes: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0, 3.0)  # pixels that the border moves outward

    def __init__(self, run: Path, data: Path, name: str, maps: int, guidance: float, judge: SegmenterSettings) -> None:
        self.dataset = PreparedDataset.open(data)
        self.schema, self.index, self.name = self.dataset.schema, self.dataset.schema.index_of(name), name
        model = Generator.load(run)
        self.model = model.sampling_with(model.with_settings(guidance=guidance))
        self.usual = segmenter_for(self.dataset, judge)
        self.segment = segmenter_for(self.dataset, judge.for_edited_maps())
        showing = [row for row in self.dataset.split("test") if self._area(row) >= 30]
        self.rows = [showing[(2 * i + 1) * len(showing) // (2 * maps)] for i in range(min(maps, len(showing)))]
        batch = self.dataset.load(self.rows)
        self.labels, self.real = batch.labels.numpy(), batch.images.numpy()

    def _area(self, row: Row) -> int:
        return int((self.dataset.load([row]).labels == self.index).sum())

    def made(self, queries: Sequence[Query]) -> Images:
        return np.stack([image for _, image in self.model.generate(queries)])

    def grown(self, labels: Maps, pixels: float) -> Maps:
        return enlarge(labels, labels == self.index, pixels, into_background=True)

    def growing(self) -> list[str]:
        """Asked against found, in the images and in warped real ones."""
        pairs = [
            warp_class(real, labels, self.index, pixels)
            for real, labels in zip(self.real, self.labels, strict=True)
            for pixels in self.sizes
        ]
        real, maps = (np.stack(each) for each in zip(*pairs, strict=True))
        seeds = [derive_seed("growing", place // len(self.sizes)) for place in range(len(maps))]
        made = self.made([Query(one, self.schema.states(), seed) for one, seed in zip(maps, seeds, strict=True)])
        limits = limits_of(self.dataset)
        odd = [bool(limits.faults(one, item_spacing(self.dataset, self.rows[0]))) for one in maps]
        odd_of_size = np.reshape(odd, (-1, len(self.sizes))).sum(axis=0).tolist()
        lines = [
            "| images | segmenter of | correlation | slope | slope of each map, median (quarters) | Dice | found, pixels |",
            "| --- | --- | ---: | ---: | --- | ---: | --- |",
        ]
        asked = self._sizes(maps)
        for what, images in (("generated", made), ("real, warped", real)):
            for of, segment in (("real and warped images", self.segment), ("real images", self.usual)):
                maps_found = segment(images)
                found = self._sizes(maps_found)
                slope = float(np.polyfit(asked.ravel(), found.ravel(), 1)[0])
                each = [float(np.polyfit(a, f, 1)[0]) for a, f in zip(asked, found, strict=True)]
                dice = np.mean([self.dice(a, b) for a, b in zip(maps_found, maps, strict=True)])
                lines.append(
                    f"| {what} | {of} | {np.corrcoef(asked.ravel(), found.ravel())[0, 1]:.3f} | {slope:.3f} "
                    f"| {np.median(each):.2f} ({np.quantile(each, 0.25):.2f} to {np.quantile(each, 0.75):.2f}) "
                    f"| {dice:.3f} | {', '.join(f'{v:.0f}' for v in found.mean(axis=0))} |"
                )
        said = f"{len(self.rows)} maps, their border moved by {', '.join(f'{v:g}' for v in self.sizes)} pixels: "
        said += f"{', '.join(f'{v:.0f}' for v in asked.mean(axis=0))} pixels asked for, {odd_of_size} maps implausible."
        return [said, "", *lines]

    def _sizes(self, maps: Maps) -> NDArray[np.float64]:
        """Pixels of the class, (maps, sizes)."""
        return (maps == self.index).reshape(len(maps), -1).sum(axis=1).astype(np.float64).reshape(-1, len(self.sizes))

    def counterfactual(self) -> list[str]:
        """The pairs, with the picture of some."""
        edited = np.stack([self.grown(labels, self.growth) for labels in self.labels])
        kept = np.stack([kept_outside(a, b, DEFAULT_MARGIN) for a, b in zip(self.labels, edited, strict=True)])
        seeds = [derive_seed("counterfactual", place) for place in range(len(self.rows))]
        states = self.schema.states()
        made = self.made(
            [
                Query(labels, states, seed, start=Known(real, share))
                for labels, seed, real, share in zip(edited, seeds, self.real, kept, strict=True)
            ]
        )
        free = self.made([Query(labels, states, seed) for labels, seed in zip(self.labels, seeds, strict=True)])
        whole = self.made([Query(labels, states, seed) for labels, seed in zip(edited, seeds, strict=True)])
        found, unedited = self.segment(made), self.segment(free)
        outside = np.broadcast_to((kept == 1)[:, None], made.shape)
        dice = np.array([self.dice(a, b) for a, b in zip(found, edited, strict=True)])
        beside = np.array([self.dice(a, b) for a, b in zip(unedited, self.labels, strict=True)])
        self.picture(edited, made)
        return [
            "| pairs | largest difference outside | changed pixels | Dice to the edited map | of samples of it "
            "| of samples of unedited maps | border of the image, relative to samples, to real | border of the edit |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
            f"| {len(made)} | {np.abs(made - self.real)[outside].max():.1e} | {1 - (kept == 1).mean():.1%} "
            f"| {dice.mean():.3f} | {self.mean_dice(whole, edited):.3f} | {beside.mean():.3f} "
            f"| {seam(made, whole, kept == 1):.2f}, {seam(made, self.real, kept == 1):.2f} "
            f"| {seam(made, whole, kept > 0):.2f}, {seam(made, self.real, kept > 0):.2f} |",
        ]

    def regional(self) -> list[str]:
        """The class free on one side of its own middle, for each map.

        Last with the given images' own pixels in the other half: what their Dice loses there is lost by what lies
        inside, which the segmenter sees across the border.
        """
        every, free = self.schema.states(), self.schema.states(free=[self.name])
        lines = [
            "| the class is | varies in the region | Dice there | Dice in the other half | from 3 pixels beyond the region on "
            "| other classes |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        regions = np.stack([self._half(labels).inside(labels) for labels in self.labels])
        given, wholly, within = (
            self._of_every_map(states, regional) for states, regional in ((every, False), (free, False), (free, True))
        )
        pasted = np.where(regions[:, None, None], within, given)
        for how, images in (
            ("given", given),
            ("free", wholly),
            ("free in the region", within),
            ("free in the region, given pixels elsewhere", pasted),
        ):
            found = self.segment(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], *regions.shape[1:])
            lines.append(f"| {how} | " + " | ".join(self._of_region(found, regions)) + " |")
        return lines

    def _of_every_map(self, states: ClassStates, regional: bool) -> Images:
        """Images (maps, seeds, C, *spatial); the same seeds whatever the states."""
        made = []
        for row, labels in zip(self.rows, self.labels, strict=True):
            plan = Plan(states, within=self._half(labels) if regional else None, per_mask=SEEDS)
            made.append(self.made(list(plan.requests(DatasetMaps(self.dataset, [row])))))
        return np.stack(made)

    def _half(self, labels: Maps) -> Region:
        """All rows from the class's middle on."""
        middle = int(np.argwhere(labels == self.index)[:, 0].mean())
        return Box((middle, *(0,) * (labels.ndim - 1)), tuple(side - 1 for side in labels.shape))

    def _of_region(self, found: Maps, region: NDArray[np.bool_]) -> list[str]:
        asked = np.broadcast_to(self.labels[:, None], found.shape)
        where = np.broadcast_to(region[:, None], found.shape)
        beyond = [ndimage.distance_transform_edt(~each) > 3 for each in region]
        near = np.broadcast_to(~np.stack(beyond)[:, None], found.shape)
        here, true = found == self.index, asked == self.index
        share = here.mean(axis=1)  # of the seeds
        varying = (share * (1 - share) * region).sum() / max(1, (here.any(axis=1) & region).sum()) * 4
        others = [overlap(found == c, asked == c) for c in range(1, self.schema.count) if c != self.index]
        values = [
            varying,
            overlap(here & where, true & where),
            overlap(here & ~where, true & ~where),
            overlap(here & ~near, true & ~near),
            float(np.mean(others)) if others else float("nan"),
        ]
        return [f"{value:.3f}" for value in values]

    def dice(self, found: Maps, asked: Maps) -> float:
        """The mean over the classes of a map."""
        return float(
            np.mean([overlap(found == c, asked == c) for c in range(1, self.schema.count) if (asked == c).any()])
        )

    def mean_dice(self, images: Images, asked: Maps) -> float:
        """The mean over images."""
        return float(np.mean([self.dice(a, b) for a, b in zip(self.segment(images), asked, strict=True)]))

    def picture(self, edited: Maps, made: Images) -> None:
        lines = []
        for place in range(0, len(made), max(1, len(made) // 4)):
            view = figures.view_of(edited[place])
            difference = np.abs(made[place] - self.real[place]) - 1
            lines.append(
                [
                    ("label map", figures.coloured(self.labels[place], self.schema, view)),
                    ("edited", figures.coloured(edited[place], self.schema, view)),
                    ("real", figures.gray(self.real[place], view)),
                    ("counterfactual", figures.gray(made[place], view)),
                    ("difference", figures.gray(difference, view)),
                ]
            )
        (ROOT / "figures" / f"counterfactual-{self.name}.png").write_bytes(figures.grid(lines))


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of all pixels together."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def seam(made: Images, beside: Images, kept: NDArray[np.bool_]) -> float:
    """The mean difference of neighbours of which one is kept and the other is not, relative to that in other images."""
    found = []
    for images in (made, beside):
        across = []
        for axis in range(1, kept.ndim):
            steps = np.abs(np.diff(images, axis=axis + 1))
            border = np.diff(kept.astype(np.int8), axis=axis) != 0
            across.append(steps[np.broadcast_to(border[:, None], steps.shape)])
        found.append(np.concatenate(across).mean())
    return float(found[0] / found[1])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--class", dest="name", required=True)
    parser.add_argument("--maps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sizes", type=float, nargs="+", default=Control.sizes, help="of growing, in pixels")
    parser.add_argument("--growth", type=float, default=2.0, help="of counterfactual pairs, in pixels")
    parser.add_argument("--judge-steps", type=int, help="of the segmenter; by default the usual training")
    parser.add_argument("--only", choices=("growing", "counterfactual", "regional"), nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    judge = default_segmenter(PreparedDataset.open(options.data).size)
    if options.judge_steps is not None:
        judge = replace(judge, steps=options.judge_steps)
    control = Control(options.run, options.data, options.name, options.maps, options.guidance, judge)
    control.growth, control.sizes = options.growth, tuple(options.sizes)
    parts = {"growing": "Growing", "counterfactual": "Counterfactual pairs", "regional": "Free in a region"}
    text = []
    for name, title in parts.items():
        if options.only is None or name in options.only:
            found = getattr(control, name)()
            text += [f"**{title}**", "", *found, ""]
            print("\n".join(found), flush=True)
    if options.only is not None:
        return
    guided = "" if options.guidance == 1 else f", guidance {options.guidance:g}"
    write_section(
        f"Control, {control.name}{guided}",
        f"""
`python benchmarks/control.py --run RUN --data {options.data.name} --class {options.name} --maps {options.maps} --guidance {options.guidance:g}`; {machine()}.
[Counterfactual pairs](figures/counterfactual-{options.name}.png).

{chr(10).join(text)}
""",
    )


if __name__ == "__main__":
    main()
