"""Figures of the report, by matplotlib: functions from arrays to PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anatogen.io.pictures import as_png, resized
from anatogen.labels import LabelSchema
from anatogen.reporting.results import SimilarityRow

Picture = tuple[str, NDArray[Any]]
_DOTS = 160  # pixels an inch, of pictures
_LETTERS = 16  # of 7 points, an inch
_ALIKE = 1.1  # sides of a pixel that differ by less are drawn as equal


@dataclass(frozen=True)
class View:
    """How label maps and images of one item are drawn.

    Attributes:
        at: The voxel (d, h, w) that the three planes of a volume go through; None for the middle.
        spacing_mm: Of the item's pixels, whose proportions the picture keeps; None for square pixels.
    """

    at: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, ...] | None = None

    def flat(self, values: NDArray[Any], dim: int, *, fill: float = 0) -> NDArray[Any]:
        """Values (..., *spatial) of `dim` spatial axes as a picture (..., h, w), long pixels repeated.

        Of a volume the axial, coronal and sagittal plane side by side, the head up; `fill` is below a plane that is
        lower than the others.
        """
        if dim == 2:
            return self.proportioned(values, (0, 1))
        d, h, w = self.at or tuple(side // 2 for side in values.shape[-3:])
        planes = [
            self.proportioned(values[..., d, :, :], (1, 2)),  # D runs from head to feet
            self.proportioned(values[..., :, h, :], (0, 2)),
            self.proportioned(values[..., :, :, w], (0, 1)),
        ]
        height = max(plane.shape[-2] for plane in planes)
        below = [[*[(0, 0)] * (plane.ndim - 2), (0, height - plane.shape[-2]), (0, 0)] for plane in planes]
        padded = [np.pad(plane, pad, constant_values=fill) for plane, pad in zip(planes, below, strict=True)]
        return np.concatenate(padded, axis=-1)

    def proportioned(self, plane: NDArray[Any], axes: tuple[int, int]) -> NDArray[Any]:
        """A plane (..., h, w) with its pixels repeated in proportion to their sides along `axes` of the item."""
        if self.spacing_mm is None or max(self.spacing_mm) < _ALIKE * min(self.spacing_mm):
            return plane
        for place, axis in zip((-2, -1), axes, strict=True):
            times, side = self.spacing_mm[axis] / min(self.spacing_mm), plane.shape[place]
            index = ((np.arange(round(side * times)) + 0.5) / times).astype(int)
            plane = plane.take(index.clip(max=side - 1), axis=place)
        return plane


MIDDLE = View()


def view_of(labels: NDArray[Any], spacing_mm: tuple[float, ...] | None = None) -> View:
    """The view of an item with this label map: of a volume the planes with most labelled voxels, the middle where
    there are none.
    """
    if labels.ndim != 3:
        return View(spacing_mm=spacing_mm)
    found = []
    for axis, side in enumerate(labels.shape):
        counts = (labels > 0).sum(axis=tuple(other for other in range(3) if other != axis))
        found.append(int(counts.argmax()) if counts.any() else side // 2)
    return View((found[0], found[1], found[2]), spacing_mm)


def coloured(labels: NDArray[np.integer], schema: LabelSchema, view: View = MIDDLE) -> NDArray[np.float64]:
    """Label map (H, W) as RGB (H, W, 3) in the classes' colours, the background black; of a volume three planes."""
    palette = np.array([(0.0, 0.0, 0.0), *(to_rgb(c.colour) for c in schema.classes)])
    return palette[np.clip(view.flat(labels, labels.ndim), 0, schema.count - 1)]


def gray(image: NDArray[Any], view: View = MIDDLE) -> NDArray[Any]:
    """Image (C, H, W) in [-1, 1] as RGB (H, W, 3) in [0, 1]; of two or more than three channels all, side by side (H, C
    W, 3); of a volume three planes.
    """
    image = view.flat(image, image.ndim - 1, fill=-1)
    unit = (np.clip(np.asarray(image, dtype=np.float64), -1, 1) + 1) / 2
    if len(unit) == 3:
        return unit.transpose(1, 2, 0)
    return np.repeat(np.concatenate(list(unit), axis=1)[..., None], 3, axis=2)


def outlined(
    image: NDArray[Any], labels: NDArray[np.integer], schema: LabelSchema, view: View = MIDDLE
) -> NDArray[np.float64]:
    """`image` enlarged threefold, with the contour of every class drawn around it in its colour, in each channel's
    picture; of a volume three planes.
    """
    image, labels = view.flat(image, labels.ndim, fill=-1), view.flat(labels, labels.ndim)
    big = np.kron(gray(image), np.ones((3, 3, 1)))
    classes = np.kron(np.tile(labels, (1, big.shape[1] // (3 * labels.shape[1]))), np.ones((3, 3), dtype=np.int64))
    edge = np.zeros_like(classes, dtype=bool)
    edge[:-1] |= classes[:-1] != classes[1:]
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    padded = np.pad(classes, ((0, 1), (0, 1)), mode="edge")
    owner = np.maximum(np.maximum(classes, padded[1:, :-1]), padded[:-1, 1:])
    big[edge] = coloured(owner, schema)[edge]
    return big


def grid(rows: Sequence[Sequence[Picture]], *, cell: float = 1.5, title: str = "") -> bytes:
    """Pictures, RGB (H, W, 3) or one value (H, W) in [0, 1], with a title each, a line a row; above all `title`, in as
    many lines as it needs.

    cell: Side of a picture in inches, at 160 pixels each.
    """
    height, breadth = np.shape(rows[0][0][1])[:2]
    across = cell * max(1.0, min(3.0, breadth / height))  # three planes are wide
    band, gap = round(0.18 * _DOTS), 3  # pixels
    high, wide = round(cell * _DOTS) + band, round(across * _DOTS)
    columns = max(map(len, rows))
    above = textwrap.wrap(title, max(12, int(_LETTERS * across * columns)))
    top = band * len(above)
    shape = (top + high * len(rows), wide * columns)
    texts = [(part, shape[1] / 2, band * (line + 1) - 4, 7.0) for line, part in enumerate(above)]
    pictures = list[tuple[int, int, NDArray[np.uint8]]]()
    for line, row in enumerate(rows):
        for column, (name, picture) in enumerate(row):
            x, y = wide * column, top + high * line + band
            texts.append((name, x + wide / 2, y - 4, min(7, 7 * _LETTERS * across / max(1, len(name)))))
            room = (high - band - gap, wide - 2 * gap)
            made = _enlarged(picture, room)
            pictures.append((y + (room[0] - made.shape[0]) // 2, x + (wide - made.shape[1]) // 2, made))
    sheet = _written(texts, shape)
    for y, x, made in pictures:
        sheet[y : y + made.shape[0], x : x + made.shape[1]] = made
    return as_png(sheet)


def _written(texts: Sequence[tuple[str, float, float, float]], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A white sheet (height, width, 3) with texts: what, the middle and the foot in pixels, the size in points.

    Only the texts are drawn by matplotlib: a picture in axes of its own takes twenty times as long.
    """
    figure = Figure(figsize=(shape[1] / _DOTS, shape[0] / _DOTS), dpi=_DOTS)
    canvas = FigureCanvasAgg(figure)
    for text, x, y, size in texts:
        figure.text(x / shape[1], 1 - y / shape[0], text, ha="center", va="bottom", fontsize=size)
    canvas.draw()
    sheet = np.full((*shape, 3), 255, dtype=np.uint8)
    drawn = np.asarray(canvas.buffer_rgba())[: shape[0], : shape[1], :3]
    sheet[: drawn.shape[0], : drawn.shape[1]] = drawn
    return sheet


def _enlarged(picture: NDArray[Any], room: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as RGB of 8 bits, as large as its aspect allows in `room` (height, width) of pixels."""
    colours = colormaps["viridis"](picture)[..., :3] if np.ndim(picture) == 2 else picture
    scale = min(room[0] / colours.shape[0], room[1] / colours.shape[1])
    size = (max(1, round(colours.shape[0] * scale)), max(1, round(colours.shape[1] * scale)))
    stored = np.round(255 * np.clip(np.asarray(colours, dtype=np.float64), 0, 1)).astype(np.uint8)
    return resized(stored, size)


def legend(schema: LabelSchema) -> list[tuple[str, str]]:
    """(name, colour) of each class."""
    return [(c.name, c.colour) for c in schema.classes]


def dice_against_steps(steps: Sequence[int], dice: Sequence[float], ceiling: float) -> bytes:
    """Dice(m_gen, m) against the number of solver steps, with the ceiling that real images set."""
    figure, axis = _subplots(figsize=(5, 3))
    axis.axhline(ceiling, color="0.5", linestyle="--", label="real images (ceiling)")
    axis.plot(steps, dice, "o-", color="#0072B2", label="generated")
    axis.set_xscale("log", base=2)
    axis.set_xticks(steps, [str(s) for s in steps])
    axis.set(xlabel="solver steps", ylabel="Dice")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return _png(figure)


def similarity(rows: Sequence[SimilarityRow]) -> bytes:
    """Correlation with the real image and Dice on given classes, with its interval where it has one, against
    similarity.
    """
    figure, axis = _subplots(figsize=(5, 3))
    x = [row.similarity for row in rows]
    axis.plot(x, [row.correlation for row in rows], "o-", color="#0072B2", label="correlation with the real image")
    dice = [row.dice_given.mean for row in rows]
    if None not in dice:
        ends = [row.dice_given.ci95 or (None, None) for row in rows]
        axis.fill_between(
            x, *np.array(ends, dtype=float).T, color="#D55E00", alpha=0.2, linewidth=0
        )  # a gap where None
        axis.plot(x, dice, "s-", color="#D55E00", label="Dice on given classes")
    axis.set(xlabel="similarity (1 - lambda)", ylim=(0, 1))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return _png(figure)


def distributions(values: dict[str, NDArray[np.float64]], line: float | None = None) -> bytes:
    """Cumulative distributions, and a dashed line at a threshold."""
    figure, axis = _subplots(figsize=(5, 3))
    for name, of_images in values.items():
        if len(of_images):
            axis.step(np.sort(of_images), (np.arange(len(of_images)) + 1) / len(of_images), where="post", label=name)
    if line is not None:
        axis.axvline(line, color="0.3", linestyle="--")
    axis.set(xlim=(0, None), ylim=(0, 1), ylabel="share of the images below")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return _png(figure)


def bars(values: dict[str, tuple[float, tuple[float, float] | None]], label: str) -> bytes:
    """Means with their intervals, a line each; where there is no interval, the figure says so."""
    figure, axis = _subplots(figsize=(5, 0.6 + 0.4 * len(values)))
    for place, (mean, ends) in enumerate(values.values()):
        if ends is not None:
            axis.plot(ends, [place, place], color="#0072B2", linewidth=2)
        axis.plot(mean, place, "o", color="#0072B2")
        text = f"{mean:.3f}" + ("" if ends else ", no interval")
        axis.annotate(
            text, (ends[1] if ends else mean, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(values)), list(values))
    axis.invert_yaxis()
    axis.margins(x=0.2, y=0.3)
    axis.set(xlabel=label)
    axis.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    return _png(figure)


def points(values: dict[str, dict[str, NDArray[np.float64]]], label: str) -> bytes:
    """Every value and the mean, in a column for each side of each class. values: by side, then by class;

    NaN is left out.
    """
    classes = list(next(iter(values.values())))
    figure, axis = _subplots(figsize=(max(5, 1.1 * len(classes) + 1), 3))
    for number, (side, colour) in enumerate(zip(values, ("#0072B2", "#999999", "#D55E00"), strict=False)):
        for place, name in enumerate(classes):
            of_class = np.sort(values[side][name][np.isfinite(values[side][name])])
            middle = place + 0.36 * (number - (len(values) - 1) / 2)
            # Spread by a fixed sequence, so that dots do not hide one another and the same values give the same figure.
            x = middle + 0.24 * (np.arange(len(of_class)) * 0.618 % 1 - 0.5)
            axis.plot(x, of_class, "o", markersize=3, alpha=0.6, color=colour, label=side if not place else None)
            if len(of_class):
                axis.plot([middle - 0.15, middle + 0.15], [of_class.mean()] * 2, color=colour, linewidth=2)
    axis.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 4 else 0, fontsize=8)
    axis.set(ylabel=label, xlim=(-0.6, len(classes) - 0.4))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3, axis="y")
    figure.tight_layout()
    return _png(figure)


def curves(
    values: dict[str, list[tuple[int, float]]], label: str, *, ceiling: float | None = None, logarithmic: bool = False
) -> bytes:
    """Curves of (step, value) pairs against the training's steps, and a dashed line at `ceiling`."""
    figure, axis = _subplots(figsize=(6, 3))
    if ceiling is not None:
        axis.axhline(ceiling, color="0.5", linestyle="--", label="real images (ceiling)")
    for name, pairs in values.items():
        axis.plot(
            [step for step, _ in pairs],
            [value for _, value in pairs],
            linewidth=2 if name in ("mean", label) else 1,
            marker="o" if len(pairs) < 3 else "",
            label=name,
        )
    if logarithmic and any(value > 0 for pairs in values.values() for _, value in pairs):
        axis.set_yscale("log")
    axis.set(xlabel="step", ylabel=label)
    if len(values) > 1 or ceiling is not None:
        axis.legend(fontsize=8)
    axis.grid(alpha=0.3, which="both")
    figure.subplots_adjust(left=0.14, right=0.98, bottom=0.16, top=0.95)  # a tight layout takes as long as the drawing
    return _png(figure)


def power_against_frequency(curves: dict[str, NDArray[np.float64]]) -> bytes:
    """Power of generated over real images in rings of spatial frequency; 1 is right."""
    figure, axis = _subplots(figsize=(5, 3))
    axis.axhline(1, color="0.5", linestyle="--")
    for name, ratio in curves.items():
        axis.plot((np.arange(len(ratio)) + 0.5) / len(ratio), ratio, "o-", markersize=3, label=name)
    axis.set(xlabel="spatial frequency (1 = Nyquist)", ylabel="power, generated / real", yscale="log")
    axis.set_yticks([0.25, 0.5, 1, 2], ["1/4", "1/2", "1", "2"])
    axis.set_ylim(0.2, 3)
    axis.minorticks_off()
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return _png(figure)


def reliability(curves: dict[str, NDArray[np.float64]]) -> bytes:
    """The share of pixels that show a class against its predicted frequency; the diagonal is right.

    curves: by name, points (frequency, share, low, high); low to high is the interval of the share.
    """
    figure, axis = _subplots(figsize=(4.5, 4))
    axis.plot([0, 1], [0, 1], color="0.5", linewidth=1)
    for name, points in curves.items():
        x, y, low, high = points.T
        axis.errorbar(x, y, (np.maximum(y - low, 0), np.maximum(high - y, 0)), fmt="o-", markersize=3, label=name)
    axis.set(xlabel="frequency in the samples", ylabel="share of pixels that show the class", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return _png(figure)


def _subplots(*grid: int, figsize: tuple[float, float], **more: Any) -> tuple[Figure, Any]:
    """A figure of its own with its axes; pyplot would keep it in global state."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(*grid, **more)


def _png(figure: Any, dpi: int = 110) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
