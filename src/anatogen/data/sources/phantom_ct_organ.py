"""A virtual patient's CT of thorax, abdomen and pelvis, with the five organs of CT-ORG.

Lengths are in millimetres of a standard body (x to the patient's left, y to posterior, z to superior, z = 0 at the
upper lumbar spine); a patient's size enters at the end as the voxel spacing, as a scanner fits its field of view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from anatogen.data.sources.phantom_shapes import (
    Array,
    Canvas,
    Mask,
    Point,
    Tubes,
    capsule,
    coverage,
    ellipsoid,
    grow_tree,
    smooth_field,
)
from anatogen.volume import Volume

CLASSES = ("liver", "bladder", "lungs", "kidneys", "bone")
CHANNELS = ("CT",)
LIVER, BLADDER, LUNGS, KIDNEYS, BONE = 1, 2, 3, 4, 5

_GRID = (128, 128, 80)
_SPACING = (3.2, 3.2, 7.0)
_CENTRE = (0.0, 5.0, -5.0)
_AIR, _FAT, _MUSCLE, _WATER = -1000.0, -100.0, 52.0, 5.0

# Half-widths and half-depths of the muscular wall (outside) and of the cage or cavity (inside), by height.
_WALL = (
    (-290, 150, 86), (-240, 158, 96), (-190, 150, 94), (-140, 138, 88), (-80, 126, 82), (-20, 132, 87), (40, 141, 95),
    (100, 147, 99), (160, 146, 92), (205, 150, 79), (235, 163, 68), (260, 160, 58), (285, 140, 50),
)  # fmt: skip
_CAGE = (
    (-290, 44, 42), (-250, 52, 50), (-215, 66, 58), (-175, 98, 64), (-130, 119, 70), (-80, 116, 72), (-30, 123, 78),
    (20, 131, 86), (70, 135, 91), (115, 134, 89), (160, 126, 83), (200, 111, 74), (230, 92, 64), (252, 70, 52), (285, 46, 38),
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """What differs between patients. Contrast 0 (none) to 1 (portal venous). Kidneys: which of left and right are there."""

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
        """A patient at random."""
        absent = int(rng.choice(3, p=[0.93, 0.04, 0.03]))  # 0: both kidneys are there
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
        """HU of blood in a vessel that takes up contrast with this strength."""
        return 42 + 115 * strength * self.contrast

    def tissue(self, plain: float, uptake: float) -> float:
        """HU of a tissue with and without contrast medium."""
        return plain + uptake * self.contrast


@dataclass(frozen=True)
class _Frame:
    """Where things are in one patient. spine_x, spine_y: the vertebral bodies' centre by height (1, 1, Z).

    wall, cage: depth in mm below the muscular wall's and the cage's outer surface. diaphragm: height at (x, y).
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


def draw(rng: np.random.Generator) -> tuple[Volume, Volume]:
    """(image in HU, int16; labels, uint8), each (128, 128, 80) with axes to left, posterior, superior."""
    patient = Patient.draw(rng)
    warp = [size * smooth_field(rng, _GRID, _SPACING, 110) for size in (3.0, 3.0, 4.0)]
    canvas = Canvas.blank(_GRID, _SPACING, _CENTRE, _AIR, warp)
    frame = _frame(canvas, patient)
    body = _body(canvas, frame, rng)
    _abdomen(canvas, frame, rng)
    _chest(canvas, frame, rng)
    _vessels(canvas, frame)
    _pelvis_soft(canvas, frame, rng)
    _bones(canvas, frame)
    _table(canvas, body)
    spacing = tuple(round(patient.size * step, 4) for step in _SPACING)
    return canvas.volumes(_scan(canvas, body, patient, rng), (spacing[0], spacing[1], spacing[2]))


def _profile(canvas: Canvas, points: Sequence[tuple[float, float]]) -> Array:
    """A smooth curve through (height, value) for every slice, (1, 1, Z)."""
    heights, values = zip(*points, strict=True)
    curve = PchipInterpolator(heights, values)(np.clip(canvas.axes[2], heights[0], heights[-1]))
    result: Array = curve.astype(np.float32)[None, None, :]
    return result


def _depth_below(
    canvas: Canvas, table: Sequence[tuple[float, float, float]], patient: Patient, x: Array, y: Array
) -> Array:
    half_width = _profile(canvas, [(z, a) for z, a, _ in table]) * patient.width
    half_depth = _profile(canvas, [(z, b) for z, _, b in table]) * patient.depth
    u, v = (x / half_width) ** 2, (y / half_depth) ** 2
    rho = np.sqrt(u + v - 0.3 * u * v / (1 + 0.1 * (u + v) ** 2)) + 1e-4  # an ellipse with fuller corners
    result: Array = np.sqrt(x * x + y * y) * (1 / rho - 1)
    return result


def _frame(canvas: Canvas, patient: Patient) -> _Frame:
    heights = canvas.axes[2][None, None, :]
    sway = patient.curve * np.sin(heights / 95 + patient.curve_phase) * np.exp(-((heights / 260) ** 4))
    spine_x: Array = sway.astype(np.float32)
    spine_y = _profile(canvas, [(-290, 70), (-250, 78), (-205, 74), (-165, 48), (-100, 32), (-40, 34), (40, 46), (120, 54), (200, 40), (285, 18)])  # fmt: skip
    spine_y = (spine_y * patient.depth).astype(np.float32)
    back = _profile(canvas, [(-290, -6), (-160, -8), (-80, -8), (0, -2), (285, -2)])
    wall = _depth_below(canvas, _WALL, patient, canvas.x, canvas.y)
    cage = _depth_below(canvas, _CAGE, patient, canvas.x - 0.5 * spine_x, canvas.y - back)
    x, y = canvas.x, canvas.y
    right = np.exp(-(((x + 68) / 58) ** 2) - ((y + 8) / 62) ** 2)
    left = np.exp(-(((x - 72) / 52) ** 2) - ((y + 4) / 58) ** 2)
    heart = np.exp(-(((x - 18) / 50) ** 2) - ((y + 35) / 40) ** 2)
    diaphragm = (6 - 0.22 * y + patient.dome + 86 * right + 64 * left + 26 * heart).astype(np.float32)
    return _Frame(patient, spine_x, spine_y, wall, cage, diaphragm)


def _body(canvas: Canvas, frame: _Frame, rng: np.random.Generator) -> Mask:
    """Skin, fat and muscle; returns what is not air."""
    patient, y = frame.patient, canvas.y
    fat = patient.fat * _profile(
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
    canvas.paint(surface > 3, _FAT)
    canvas.paint(frame.wall > 0, _MUSCLE)
    seams = smooth_field(rng, _GRID, _SPACING, (30, 30, 90))  # fat between the muscles
    canvas.paint((np.abs(seams) < 0.05 + 0.05 * patient.fat) & (frame.wall > 4) & (frame.cage < -4), _FAT + 40)
    canvas.paint(frame.cage > 0, _FAT + 5)
    return body


def _abdomen(canvas: Canvas, frame: _Frame, rng: np.random.Generator) -> None:
    patient = frame.patient
    cavity = (frame.cage > 8) & (canvas.z < frame.diaphragm - 3)
    peritoneum = cavity & (canvas.y < frame.spine_y - 12)
    loops = smooth_field(rng, _GRID, _SPACING, 20)
    low = (canvas.z < -35) & (canvas.z > -205) & (canvas.y < 18)
    canvas.paint(peritoneum & low & (loops > -0.25 + 0.25 * patient.fat), 28)
    canvas.paint(peritoneum & low & (loops > 1.1), 46)
    canvas.paint(peritoneum & low & (loops > 1.75), -650)
    _colon(canvas, cavity, rng)
    shift = rng.normal(0, 5, (4, 3))
    part_of = _Parts(canvas, cavity)

    part, inside = part_of((52, -22, 32), (52, 46, 48))  # stomach, with its air above the fluid
    stomach = (ellipsoid(part, (52 + shift[0, 0], -22, 32), (44, 36, 42), (0, 0.5, 0)) < 1) & inside
    part.paint(stomach, 46)
    part.paint(stomach & (ellipsoid(part, (52 + shift[0, 0], -22, 32), (39, 31, 37), (0, 0.5, 0)) < 1), 18)
    level = -22 - rng.uniform(0, 24)
    part.paint(
        stomach & (ellipsoid(part, (52 + shift[0, 0], -22, 32), (39, 31, 37), (0, 0.5, 0)) < 1) & (part.y < level), _AIR
    )

    part, inside = part_of((92, 34, 28), (40, 50, 55))
    spleen = ellipsoid(part, (92 + shift[1, 0], 34 + shift[1, 1], 26), (27, 40, 44 + 2 * shift[1, 2]), (0.3, 0.3, 0.4))
    part.paint((spleen < 1) & inside, patient.tissue(50, 65))

    part, inside = part_of((0, -8, -32), (75, 20, 24))  # pancreas and duodenum
    pancreas = capsule(part, (-38, -6, -48), (12, -14, -28)) < 13
    pancreas |= capsule(part, (12, -14, -28), (70, 14, -2)) < 9
    part.paint(pancreas & inside, patient.tissue(40, 50))

    _kidneys(canvas, frame, rng)
    _liver(canvas, frame, cavity, rng)


class _Parts:
    """Crops a mask together with the canvas."""

    def __init__(self, canvas: Canvas, mask: Mask) -> None:
        self.canvas, self.mask = canvas, mask

    def __call__(self, centre: Point, reach: Point) -> tuple[Canvas, Mask]:
        return self.canvas.around(centre, reach), self.mask[self.canvas.window(centre, reach)]


def _colon(canvas: Canvas, cavity: Mask, rng: np.random.Generator) -> None:
    sag = rng.uniform(-30, 10)
    course: list[Point] = [(-88, 22, -160), (-96, 16, -62), (-70, -40, -58), (0, -58, -78 + sag), (66, -44, -38), (100, 26, -20), (98, 28, -130), (62, 12, -175), (8, 20, -185), (0, 42, -215)]  # fmt: skip
    for start, end in pairwise(course):
        middle = tuple((a + b) / 2 for a, b in zip(start, end, strict=True))
        reach = tuple(abs(a - b) / 2 + 24 for a, b in zip(start, end, strict=True))
        part, inside = _Parts(canvas, cavity)((middle[0], middle[1], middle[2]), (reach[0], reach[1], reach[2]))
        distance = capsule(part, start, end) + 3 * np.sin((part.x + part.z) / 7)  # haustra
        radius = rng.uniform(14, 20)
        part.paint((distance < radius) & inside, 40)
        part.paint((distance < radius - 4) & inside, rng.uniform(-120, 20))
        part.paint((distance < radius - 4) & inside & (part.y < middle[1] - 4), -880)


def _kidneys(canvas: Canvas, frame: _Frame, rng: np.random.Generator) -> None:
    patient = frame.patient
    for side, there, height in ((1, patient.kidneys[0], -32.0), (-1, patient.kidneys[1], -46.0)):
        z = height + rng.normal(0, 8)
        spine_x, spine_y = frame.spine(canvas, z)
        centre = (spine_x + side * rng.normal(57, 3), spine_y + rng.normal(2, 3), z)
        scale = rng.normal(1, 0.07) * (1 if all(patient.kidneys) else 1.12)  # a single kidney grows
        radii = (27 * scale, 29 * scale, 54 * scale)
        turn = (-0.25, side * -0.28, side * -0.5)
        hilum = (centre[0] - side * 25.0, centre[1] - 13.0, centre[2])
        cyst = (centre[0] + side * 16.0, centre[1] + rng.uniform(-14, 14), centre[2] + rng.uniform(-30, 30))
        has_cyst, cyst_radius = rng.random() < 0.25, rng.uniform(7, 15)
        if not there:
            continue
        part, inside = _Parts(canvas, frame.cage > 4)(centre, (70, 70, 75))
        fat = ellipsoid(part, centre, (radii[0] + 11, radii[1] + 11, radii[2] + 12), turn) < 1
        part.paint(fat & inside, _FAT)
        shape = ellipsoid(part, centre, radii, turn)
        sinus = ellipsoid(part, hilum, (18 * scale, 14 * scale, 24 * scale)) < 1
        kidney = (shape < 1) & ~sinus & inside
        part.paint(kidney, patient.tissue(33, 145), KIDNEYS)
        part.paint(kidney & (shape < 0.5), patient.tissue(30, 105), KIDNEYS)
        if has_cyst:
            part.paint(kidney & (ellipsoid(part, cyst, (cyst_radius,) * 3) < 1), 8, KIDNEYS)
        vessel = capsule(part, hilum, (spine_x + side * 12, spine_y - 28, hilum[2] + 8)) < 5
        part.paint(vessel & (part.labels == 0), patient.blood())


def _liver(canvas: Canvas, frame: _Frame, cavity: Mask, rng: np.random.Generator) -> None:
    patient, size = frame.patient, frame.patient.liver
    part, inside = _Parts(canvas, cavity & (frame.cage > 10))((-40, -5, 15), (115, 95, 110))
    x, y, z = part.x, part.y, part.z
    right = ellipsoid(part, (-68, 4, 16), (74 * size, 90 * size, 98 * size), (0.1, 0.15, 0.0))
    left = ellipsoid(part, (4, -38, 38), (74 * size, 36 * size, 36 * size), (0.0, -0.25, 0.1))
    tilt = rng.normal(0, 6)
    edge = z - (-88 * size + tilt + 0.6 * (x + 120) - 0.12 * y)  # the lower edge rises to the left
    around_spine = (x - 4) ** 2 + (y - 42) ** 2 > 40**2
    liver = ((right < 1) | (left < 1)) & (edge > 0) & inside & around_spine & (y < 78)
    liver &= ~((part.labels == KIDNEYS) | (ellipsoid(part, (-58, 34, -46), (30, 33, 57)) < 1))
    part.paint(liver, patient.tissue(58, 52), LIVER)
    gall = (-52 + rng.normal(0, 5), -48.0, -32 + rng.normal(0, 5))
    part.paint((ellipsoid(part, gall, (15, 17, 26), (0.4, 0.3, 0)) < 1) & inside, 10)
    portal = grow_tree(rng, (-18, 4, 4), (-1, -0.1, 0.35), length=44, radius=6.5, generations=5, spread=0.55)
    hepatic = grow_tree(rng, (-14, 14, 62), (-0.8, -0.3, -0.5), length=44, radius=5.5, generations=5, spread=0.6)
    vessels = coverage(rng, part, [portal, hepatic]) * (part.labels == LIVER)
    part.values[...] += vessels * (patient.blood(1.05) - patient.tissue(58, 52) - (1 - patient.contrast) * 4)
    for _ in range(int(rng.integers(1, 6)) if rng.random() < 0.35 else 0):  # metastases, as in CT-ORG's patients
        at = (rng.uniform(-110, -20), rng.uniform(-50, 50), rng.uniform(-30, 70))
        lesion = ellipsoid(part, at, tuple(rng.uniform(6, 20, 3))) < 1  # type: ignore[arg-type]
        part.paint(lesion & (part.labels == LIVER), patient.tissue(38, 22), LIVER)


def _chest(canvas: Canvas, frame: _Frame, rng: np.random.Generator) -> None:
    patient, x, y, z = frame.patient, canvas.x, canvas.y, canvas.z
    pleura = (frame.cage > 11) & (z > frame.diaphragm) & (z < 256)
    canvas.paint((frame.cage > 8) & (z > frame.diaphragm - 4) & (z <= frame.diaphragm) & (z > -20), 45, 0)
    half = 7 + 22 * np.exp(-(((y - 2) / 38) ** 2)) + 6 * (z > 175)
    beside_spine = (x - frame.spine_x) ** 2 + (y - frame.spine_y) ** 2 > 27**2
    heart_at = (24 + rng.normal(0, 4), -28 + rng.normal(0, 3), 88 + patient.dome + rng.normal(0, 4))
    heart_size = rng.normal(1, 0.06)
    turn = (0.35, 0.35, -0.6)
    heart = ellipsoid(canvas, heart_at, (62 * heart_size, 47 * heart_size, 52 * heart_size), turn)
    lungs = pleura & (np.abs(x - 0.5 * frame.spine_x) > half) & beside_spine & (heart > 1)
    canvas.paint(pleura & ~lungs, _FAT + 15)
    gravity = np.float32(0.55) * np.clip(y, -90, 90)  # the dependent lung holds less air
    canvas.paint(lungs, (-865 + gravity + 18 * smooth_field(rng, _GRID, _SPACING, 45)).astype(np.float32), LUNGS)
    trees: list[Tubes] = []
    for side in (-1, 1):
        for towards in (
            (0.5, 0.1, 1.0),
            (0.9, -0.7, 0.2),
            (0.5, 0.5, -1.0),
            (1.0, 0.5, 0.0),
            (0.6, -0.6, -0.9),
            (0.5, 0.7, 0.6),
        ):
            way = (side * towards[0], towards[1], towards[2])
            trees.append(
                grow_tree(rng, (side * 30, 4, 135), way, length=36, radius=5.0, generations=6, spread=0.5, taper=0.8)
            )
    canvas.values[...] += coverage(rng, canvas, trees) * lungs * np.float32(patient.blood(0.6) + 860)

    part = canvas.around(heart_at, (68, 68, 68))
    shape = ellipsoid(part, heart_at, (62 * heart_size, 47 * heart_size, 52 * heart_size), turn)
    here = (shape < 1) & (part.z > frame.diaphragm[canvas.window(heart_at, (68, 68, 68))] - 2) & (part.labels != LIVER)
    part.paint(here, _FAT + 30)
    part.paint(here & (shape < 0.88), patient.tissue(48, 45))
    for at, radii in (
        ((18, 10, -6), (24, 17, 20)),
        ((-24, -8, 0), (25, 19, 27)),
        ((4, 14, 18), (24, 15, 16)),
        ((10, -18, -8), (22, 15, 22)),
    ):
        chamber = ellipsoid(part, (heart_at[0] + at[0], heart_at[1] + at[1], heart_at[2] + at[2]), radii, turn)
        part.paint(here & (chamber < 1), patient.blood())


def _vessels(canvas: Canvas, frame: _Frame) -> None:
    """Great vessels and airways, along the spine where they run along it."""
    patient, z = frame.patient, canvas.z
    soft = (canvas.labels == 0) | (canvas.labels == LUNGS)
    courses: list[tuple[float, float, Array, Array, float, float]] = [
        (-112, 178, frame.spine_x + 15, frame.spine_y - 33, 11.5, 1.0),  # descending aorta
        (-120, 62, frame.spine_x - 20, frame.spine_y - 34, 12.0, 0.85),  # inferior vena cava
    ]
    for low, high, x, y, radius, strength in courses:
        tube = (canvas.x - x) ** 2 + (canvas.y - y) ** 2 < radius**2
        canvas.paint(tube & (z > low) & (z < high) & soft, patient.blood(strength))
    above = canvas.around((0, -10, 190), (70, 60, 90))
    free = (above.labels == 0) | (above.labels == LUNGS)
    lines: list[tuple[Point, Point, float, float]] = [
        ((14, 20, 180), (-8, -26, 182), 12, patient.blood()),  # arch
        ((-8, -26, 182), (2, -32, 132), 14, patient.blood()),  # ascending aorta
        ((-26, -20, 210), (-30, -14, 125), 8.5, patient.blood(1.2)),  # superior vena cava
        ((10, -34, 130), (8, -10, 158), 13, patient.blood()),  # pulmonary trunk
        ((-44, 2, 146), (44, 6, 154), 8.5, patient.blood()),  # pulmonary arteries
        ((-16, -8, 200), (-20, -12, 270), 5.5, patient.blood()),
        ((10, -4, 195), (24, -8, 270), 5.5, patient.blood()),
        ((2, 26, 110), (2, 16, 275), 6.5, 35.0),  # oesophagus
        ((0, 2, 172), (0, -14, 285), 9.5, 20.0),  # trachea: wall, then air
        ((0, 2, 172), (0, -14, 285), 7.8, _AIR),
        ((0, 2, 172), (-38, 8, 146), 5.8, _AIR),
        ((0, 2, 172), (42, 10, 142), 5.5, _AIR),
    ]
    for start, end, radius, value in lines:
        above.paint((capsule(above, start, end) < radius) & free, value)
    below = canvas.around((0, 0, -180), (110, 80, 110))
    free = below.labels == 0
    fork_x, fork_y = frame.spine(canvas, -110)
    for side in (-1, 1):
        sacral = (fork_x + side * 48, fork_y + 8.0, -175.0)
        for start, end in (((fork_x + side * 6, fork_y - 33, -108.0), sacral), (sacral, (side * 70.0, -52.0, -285.0))):
            below.paint((capsule(below, start, end) < 6.5) & free, patient.blood(0.9))


def _pelvis_soft(canvas: Canvas, frame: _Frame, rng: np.random.Generator) -> None:
    patient = frame.patient
    spine_x, spine_y = frame.spine(canvas, -60)
    part = canvas.around((0, 20, -120), (110, 75, 130))
    for side in (-1, 1):  # psoas, from the spine to the hip
        upper: Point = (spine_x + side * 26, spine_y + 4, -20)
        lower: Point = (spine_x + side * 48, spine_y + 2, -150)
        part.paint((capsule(part, upper, lower) < 10 + np.clip((-20 - part.z) / 11, 0, 12)) & (part.labels == 0), 58)
        part.paint((capsule(part, lower, (side * 78.0, -28.0, -240.0)) < 20) & (part.labels == 0), 56)

    part = canvas.around((0, 0, -225), (75, 75, 65))
    full = patient.bladder
    side_shift = rng.normal(0, 4)
    bladder_at = (side_shift, -30 + 0.25 * full, -246 + 0.72 * full)
    radii = (full * rng.uniform(1.0, 1.3), full * rng.uniform(0.8, 1.0), full * rng.uniform(0.75, 0.95))
    organ_at = (side_shift, -22.0, -262.0) if not patient.female else (rng.normal(0, 6), 22.0, bladder_at[2] + 12)
    organ_radii = (24.0, 20.0, 19.0) if not patient.female else (28.0, 20.0, 30.0)
    part.paint(ellipsoid(part, (0, 52, -225), (17, 16, 45)) < 1, 42)  # rectum
    part.paint(ellipsoid(part, (0, 50, -222), (11, 9, 34)) < 1, float(rng.choice([-850, 15, -20])))
    part.paint(ellipsoid(part, organ_at, organ_radii, (0.3, 0, 0)) < 1, patient.tissue(45, 40))  # prostate or uterus
    shape = ellipsoid(part, bladder_at, radii)
    wall = (1 + 4 / full) ** 2
    part.paint(shape < wall, 38)
    part.paint(shape < 1, _WATER + (60 if rng.random() < 0.15 else 0) + rng.uniform(-4, 6), BLADDER)


def _bones(canvas: Canvas, frame: _Frame) -> None:
    bone = np.zeros(_GRID, bool)
    _spine(canvas, frame, bone)
    _ribs(canvas, frame, bone)
    for side in (-1, 1):
        _shoulder(canvas, bone, side)
        _hip(canvas, bone, side)
    bone &= frame.wall > 4
    density = frame.patient.bone_density
    marrow = ndimage.binary_erosion(bone, ndimage.generate_binary_structure(3, 1))
    canvas.paint(bone, 620 * density, BONE)
    canvas.paint(marrow, 190 * density, BONE)


def _spine(canvas: Canvas, frame: _Frame, bone: Mask) -> None:
    x, y, z = canvas.x - frame.spine_x, canvas.y - frame.spine_y, canvas.z
    wide = _profile(
        canvas,
        [
            (-290, 8),
            (-262, 20),
            (-220, 42),
            (-180, 54),
            (-166, 30),
            (-160, 25),
            (-60, 23),
            (20, 18),
            (130, 15),
            (285, 12),
        ],
    )
    deep = _profile(canvas, [(-290, 6), (-250, 9), (-180, 20), (-160, 18), (-60, 18), (20, 15), (130, 13), (285, 10)])
    height = _profile(canvas, [(-160, 33), (-20, 29), (120, 24), (285, 20)])  # of a vertebra with its disc
    # The phase counts vertebrae: the integral of 1 / height along the spine.
    step = canvas.axes[2][1] - canvas.axes[2][0]
    count = np.cumsum(step / height, axis=2)
    level = count - np.interp(-165, canvas.axes[2], count[0, 0]) + (z - canvas.axes[2]) / height
    within = level - np.floor(level)  # 0 at the lower end plate
    waist = 1 - 0.10 * np.sin(np.pi * within) ** 2
    sacrum = z < -165
    body = (x / wide) ** 2 + (y / deep) ** 2 < np.where(sacrum, 1, waist) ** 2
    disc = body & ~sacrum & (within > 0.78)
    bone |= body & ~disc & (z > -278)
    canvas.paint(disc, 85)
    canal_y = y - deep - 8
    canal = (x / 11) ** 2 + (canal_y / 8) ** 2
    arch = (canal < 2.6) & (canal >= 1) & ~disc & ((within < 0.72) | (np.abs(x) > 6)) & ~sacrum & (y > 0.3 * deep)
    spinous = (np.abs(x) < 4) & (canal_y > 6) & (canal_y < 34) & (within < 0.55) & ~sacrum
    transverse = (np.abs(x) < wide + 20) & (np.abs(canal_y + 1) < 5) & (np.abs(within - 0.4) < 0.18) & ~sacrum
    posterior = (arch | spinous | transverse) & (canal >= 1)
    crest = sacrum & (np.abs(x) < 0.5 * wide) & (y > 0) & (y < deep + 8) & (z > -262)
    bone |= posterior | crest
    bone &= (canal >= 1) | (canal_y < -8)
    canvas.paint((canal < 1) & (z > -230), 30)


def _ribs(canvas: Canvas, frame: _Frame, bone: Mask) -> None:
    x, y, z = canvas.x - 0.5 * frame.spine_x, canvas.y, canvas.z
    angle = np.arctan2(np.abs(x), y - 4)  # 0 at the spine, pi at the sternum
    drop = 62 * np.clip(angle / 2.2, 0, 1.15) ** 1.25
    distance = 22.5
    number = (z + drop - 8) / distance  # 0 for the twelfth rib, 11 for the first
    nearest = np.rint(number)
    reach = np.where(nearest <= 1, 1.1 + 0.45 * nearest, np.clip(1.75 + 0.12 * nearest, 0, 2.6))
    shell = (frame.cage > 0) & (frame.cage < 9.5)
    rib = shell & (np.abs(number - nearest) * distance < 5.6) & (nearest >= 0) & (nearest <= 11) & (angle > 0.25)
    bone |= rib & (angle < reach)
    cartilage = rib & (angle >= reach) & (nearest >= 2) & (z > 40)
    canvas.paint(cartilage, 110)
    front = shell & (y < -20) & (z > 72) & (z < 212)
    bone |= front & (np.abs(x) < np.where(z > 175, 24, 15)) & (frame.cage > -3)


def _shoulder(canvas: Canvas, bone: Mask, side: int) -> None:
    at = (side * 100.0, 30.0, 210.0)
    part, target = canvas.around(at, (70, 75, 80)), bone[canvas.window(at, (70, 75, 80))]
    u = (part.x * side - 62) * 0.82 - (part.y - 82) * 0.57  # along the blade, to lateral and anterior
    v = (part.x * side - 62) * 0.57 + (part.y - 82) * 0.82
    blade = (np.abs(v - 3 + u * u / 700) < 4) & (u > 0) & (u < 20 + 0.55 * (part.z - 120)) & (u < 78)
    target |= blade & (part.z > 125) & (part.z < 246)
    target |= capsule(part, (side * 126.0, 22.0, 234.0), (side * 112.0, 36.0, 230.0)) < 12
    target |= ellipsoid(part, (side * 138, 8, 252), (22, 22, 24)) < 1  # the arm's head
    at = (side * 65.0, -30.0, 245.0)
    part, target = canvas.around(at, (70, 40, 25)), bone[canvas.window(at, (70, 40, 25))]
    target |= capsule(part, (side * 20.0, -62.0, 218.0), (side * 70.0, -48.0, 240.0)) < 6.5
    target |= capsule(part, (side * 70.0, -48.0, 240.0), (side * 122.0, -12.0, 258.0)) < 6.5


def _hip(canvas: Canvas, bone: Mask, side: int) -> None:
    at = (side * 85.0, 0.0, -195.0)
    part, target = canvas.around(at, (90, 95, 100)), bone[canvas.window(at, (90, 95, 100))]
    x, y, z = part.x * side, part.y, part.z
    head: Point = (side * 92.0, 2.0, -232.0)
    # The wing: a bowed plate from the sacrum outwards and forwards, under an arched crest, narrowing to the hip.
    u = (x - 42) * 0.66 - (y - 62) * 0.75
    v = (x - 42) * 0.75 + (y - 62) * 0.66
    low = np.clip((-128 - z) / 90, 0, 1)
    flare = 18 * (1 - low)
    bow = v - flare * np.sin(np.clip(u, 0, 110) / 110 * np.pi) + 4
    crest = -112 - 26 * ((u - 45) / 62) ** 2
    thickness = 5 + 5 * low + 3 * (z > crest - 12)
    wing = (np.abs(bow) < thickness) & (u > -4 + 26 * low) & (u < 112 - 42 * low) & (z < crest) & (z > -215)
    cup = np.sqrt(ellipsoid(part, head, (1, 1, 1)))
    socket = (cup < 37) & (cup > 26.5) & (x < 104) & (z > -252)
    pubis = capsule(part, (side * 76.0, -30.0, -240.0), (side * 10.0, -58.0, -256.0)) < 9
    ischium = capsule(part, (side * 82.0, 30.0, -240.0), (side * 62.0, 38.0, -285.0)) < 13
    ramus = capsule(part, (side * 60.0, 26.0, -290.0), (side * 14.0, -50.0, -268.0)) < 7
    target |= wing | socket | pubis | ischium | ramus
    target &= (cup >= 26.5) | (cup < 23.5)
    target |= cup < 23.5
    neck = capsule(part, (side * 100.0, 2.0, -238.0), (side * 142.0, 12.0, -262.0)) < 13
    target |= neck & (cup > 23)
    target |= ellipsoid(part, (side * 146, 14, -258), (17, 19, 24)) < 1
    target |= capsule(part, (side * 140.0, 12.0, -265.0), (side * 130.0, 8.0, -310.0)) < 16


def _table(canvas: Canvas, body: Mask) -> None:
    """The scanner's table, 8 mm under the patient's back."""
    lowest = canvas.axes[1][np.flatnonzero(body.any(axis=(0, 2)))[-1]]
    x, y = canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    surface = lowest + 8 - 22 * (x / 170) ** 2
    depth = np.broadcast_to((y - surface) * (np.abs(x) < 185), _GRID)
    canvas.paint((depth > 0) & (depth < 24) & ~body, -930)
    canvas.paint((((depth > 0) & (depth < 4)) | ((depth > 20) & (depth < 24))) & ~body, -90)


def _scan(canvas: Canvas, body: Mask, patient: Patient, rng: np.random.Generator) -> NDArray[np.int16]:
    """Texture, the scanner's blur, and noise with a reconstruction kernel's grain that grows with the body's thickness."""
    texture = smooth_field(rng, _GRID, _SPACING, 9) * np.where((canvas.values > -20) & (canvas.values < 400), 4, 0)
    sharp = ndimage.gaussian_filter(canvas.values + texture.astype(np.float32), (0.45, 0.45, 0.3), mode="nearest")
    white = rng.standard_normal(_GRID, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, (patient.kernel, patient.kernel, 0), mode="wrap")
    grain = fine - ndimage.gaussian_filter(fine, (2.2, 2.2, 0), mode="wrap")
    thickness = body.sum(axis=(0, 1)) / max(1, body.sum(axis=(0, 1)).mean())
    local = ndimage.gaussian_filter(body.mean(axis=2, dtype=np.float32), 12)  # least noise at the rim
    level = patient.noise * thickness * (0.4 + local / local.max())[:, :, None]
    hounsfield = sharp + grain / grain.std() * level
    return np.clip(np.rint(hounsfield), -1024, 3071).astype(np.int16)
