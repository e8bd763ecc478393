"""The parameters that vary between CT patients, the position of structures in each, and skin, fat and muscle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from anatogen.phantoms.shapes import Array, Canvas, Mask, ellipsoid, smooth_field

LIVER, BLADDER, LUNGS, KIDNEYS, BONE = 1, 2, 3, 4, 5

GRID = (128, 128, 80)
SPACING = (3.2, 3.2, 7.0)
AIR, FAT, MUSCLE, WATER = -1000.0, -100.0, 52.0, 5.0

# Half-widths and half-depths of the muscular wall (outside) and of the cage or cavity (inside), by height.
_WALL = (
    (-290, 150, 86), (-240, 158, 96), (-190, 150, 94), (-140, 138, 88), (-80, 126, 82), (-20, 132, 87), (40, 141, 95),
    (100, 147, 99), (160, 146, 92), (205, 150, 79), (235, 163, 68), (260, 160, 58), (285, 140, 50),
)  # fmt: skip
_CAGE = (
    (-290, 44, 42), (-250, 52, 50), (-215, 66, 58), (-175, 98, 64), (-130, 119, 70), (-80, 116, 72), (-30, 123, 78),
    (20, 131, 86), (70, 135, 91), (115, 134, 89), (160, 126, 83), (200, 111, 74), (230, 92, 64), (252, 70, 52), (285, 46, 38),  # noqa: E501
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """The parameters that vary between patients.

    Attributes:
        contrast: Contrast medium, 0 (none) to 1 (portal venous).
        kidneys: Which of left and right are present.
    """

    size: float
    width: float
    depth: float
    fat: float
    female: bool
    curve: float
    curve_phase: float
    contrast: float
    dome: float
    liver: float
    kidneys: tuple[bool, bool]
    bladder: float
    bone_density: float
    noise: float
    kernel: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """A random patient."""
        absent = int(rng.choice(3, p=[0.93, 0.04, 0.03]))  # 0: both kidneys present
        return cls(
            size=float(np.clip(rng.normal(1, 0.06), 0.86, 1.15)),
            width=float(np.clip(rng.normal(1, 0.035), 0.92, 1.06)),
            depth=float(np.clip(rng.normal(1, 0.05), 0.9, 1.12)),
            fat=float(np.clip(rng.lognormal(0, 0.45), 0.35, 2.0)),
            female=bool(rng.random() < 0.5),
            curve=float(rng.normal(0, 5) + (rng.random() < 0.15) * rng.normal(0, 14)),
            curve_phase=float(rng.uniform(-0.6, 0.6)),
            contrast=float(rng.uniform(0.6, 1) if rng.random() < 0.65 else 0),
            dome=float(rng.normal(0, 10)),
            liver=float(np.clip(rng.normal(1, 0.09), 0.8, 1.25)),
            kidneys=(absent != 1, absent != 2),
            bladder=float(rng.uniform(18, 44)),
            bone_density=float(np.clip(rng.normal(1, 0.15), 0.65, 1.3)),
            noise=float(rng.uniform(7, 18)),
            kernel=float(rng.uniform(0.5, 0.9)),
        )

    def blood(self, strength: float = 1.0) -> float:
        """HU of blood in a vessel with this relative contrast uptake."""
        return 42 + 115 * strength * self.contrast

    def tissue(self, plain: float, uptake: float) -> float:
        """HU of a tissue with and without contrast medium."""
        return plain + uptake * self.contrast


@dataclass(frozen=True)
class Frame:
    """The position of structures in one patient.

    Attributes:
        spine_x, spine_y: Centre of the vertebral bodies by height (1, 1, Z).
        wall, cage: Depth in mm below the outer surface of the muscular wall and of the rib cage.
        diaphragm: Height at (x, y).
    """

    patient: Patient
    spine_x: Array
    spine_y: Array
    wall: Array
    cage: Array
    diaphragm: Array

    def spine(self, canvas: Canvas, z: float) -> tuple[float, float]:
        """x and y of the spine at height `z`."""
        heights = canvas.axes[2]
        return (
            float(np.interp(z, heights, self.spine_x[0, 0])),
            float(np.interp(z, heights, self.spine_y[0, 0])),
        )


def profile(canvas: Canvas, points: Sequence[tuple[float, float]]) -> Array:
    """A smooth curve through (height, value) for every slice, (1, 1, Z)."""
    heights, values = zip(*points, strict=True)
    curve = PchipInterpolator(heights, values)(np.clip(canvas.axes[2], heights[0], heights[-1]))
    result: Array = curve.astype(np.float32)[None, None, :]
    return result


def frame_of(canvas: Canvas, patient: Patient) -> Frame:
    """The position of structures in `patient`."""
    heights = canvas.axes[2][None, None, :]
    sway = patient.curve * np.sin(heights / 95 + patient.curve_phase) * np.exp(-((heights / 260) ** 4))
    spine_x: Array = sway.astype(np.float32)
    spine_y = profile(canvas, [(-290, 70), (-250, 78), (-205, 74), (-165, 48), (-100, 32), (-40, 34), (40, 46), (120, 54), (200, 40), (285, 18)])  # noqa: E501  # fmt: skip
    spine_y = (spine_y * patient.depth).astype(np.float32)
    back = profile(canvas, [(-290, -6), (-160, -8), (-80, -8), (0, -2), (285, -2)])
    wall = _depth_below(canvas, _WALL, patient, canvas.x, canvas.y)
    cage = _depth_below(canvas, _CAGE, patient, canvas.x - 0.5 * spine_x, canvas.y - back)
    x, y = canvas.x, canvas.y
    right = np.exp(-(((x + 68) / 58) ** 2) - ((y + 8) / 62) ** 2)
    left = np.exp(-(((x - 72) / 52) ** 2) - ((y + 4) / 58) ** 2)
    heart = np.exp(-(((x - 18) / 50) ** 2) - ((y + 35) / 40) ** 2)
    diaphragm = (6 - 0.22 * y + patient.dome + 86 * right + 64 * left + 26 * heart).astype(np.float32)
    return Frame(patient, spine_x, spine_y, wall, cage, diaphragm)


def _depth_below(
    canvas: Canvas, table: Sequence[tuple[float, float, float]], patient: Patient, x: Array, y: Array
) -> Array:
    half_width = profile(canvas, [(z, a) for z, a, _ in table]) * patient.width
    half_depth = profile(canvas, [(z, b) for z, _, b in table]) * patient.depth
    u, v = (x / half_width) ** 2, (y / half_depth) ** 2
    rho = np.sqrt(u + v - 0.3 * u * v / (1 + 0.1 * (u + v) ** 2)) + 1e-4  # an ellipse with fuller corners
    result: Array = np.sqrt(x * x + y * y) * (1 / rho - 1)
    return result


def draw_body(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> Mask:
    """Draw skin, fat and muscle; returns the mask of the body."""
    patient, y = frame.patient, canvas.y
    fat = patient.fat * profile(
        canvas, [(-290, 20), (-220, 22), (-140, 19), (-60, 15), (40, 10), (120, 8), (200, 8), (285, 7)]
    )
    fat = fat * (1 + 0.5 * patient.fat * np.exp(-(((canvas.z + 90) / 90) ** 2)) * np.clip(-y / 100, 0, 1))
    if patient.female:
        size = rng.uniform(0.7, 1.2)
        for side in (-1, 1):
            breast = ellipsoid(canvas, (side * 72.0, -92.0, 130.0), (56 * size, 42 * size, 46 * size))
            fat = fat + 26 * size * np.clip(1.2 - breast, 0, 1)
    surface = frame.wall + fat
    body: Mask = surface > 0
    canvas.paint(body, 0)
    canvas.paint(surface > 3, FAT)
    canvas.paint(frame.wall > 0, MUSCLE)
    seams = smooth_field(rng, GRID, SPACING, (30, 30, 90))  # fat between the muscles
    canvas.paint((np.abs(seams) < 0.05 + 0.05 * patient.fat) & (frame.wall > 4) & (frame.cage < -4), FAT + 40)
    canvas.paint(frame.cage > 0, FAT + 5)
    return body
