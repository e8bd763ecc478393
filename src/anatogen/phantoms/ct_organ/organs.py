"""The soft organs of abdomen, chest and pelvis, and the great vessels and airways."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from anatogen.phantoms.ct_organ.body import AIR, BLADDER, FAT, GRID, KIDNEYS, LIVER, LUNGS, SPACING, WATER, Frame
from anatogen.phantoms.shapes import (
    Array,
    Branching,
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


def draw_abdomen(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Bowel, stomach, spleen, pancreas, kidneys and liver."""
    patient = frame.patient
    cavity = (frame.cage > 8) & (canvas.z < frame.diaphragm - 3)
    peritoneum = cavity & (canvas.y < frame.spine_y - 12)
    loops = smooth_field(rng, GRID, SPACING, 20)
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
        stomach & (ellipsoid(part, (52 + shift[0, 0], -22, 32), (39, 31, 37), (0, 0.5, 0)) < 1) & (part.y < level), AIR
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
    course: list[Point] = [(-88, 22, -160), (-96, 16, -62), (-70, -40, -58), (0, -58, -78 + sag), (66, -44, -38), (100, 26, -20), (98, 28, -130), (62, 12, -175), (8, 20, -185), (0, 42, -215)]  # fmt: skip  # noqa: E501
    for start, end in pairwise(course):
        middle = tuple((a + b) / 2 for a, b in zip(start, end, strict=True))
        reach = tuple(abs(a - b) / 2 + 24 for a, b in zip(start, end, strict=True))
        part, inside = _Parts(canvas, cavity)((middle[0], middle[1], middle[2]), (reach[0], reach[1], reach[2]))
        distance = capsule(part, start, end) + 3 * np.sin((part.x + part.z) / 7)  # haustra
        radius = rng.uniform(14, 20)
        part.paint((distance < radius) & inside, 40)
        part.paint((distance < radius - 4) & inside, rng.uniform(-120, 20))
        part.paint((distance < radius - 4) & inside & (part.y < middle[1] - 4), -880)


def _kidneys(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
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
        part.paint(fat & inside, FAT)
        shape = ellipsoid(part, centre, radii, turn)
        sinus = ellipsoid(part, hilum, (18 * scale, 14 * scale, 24 * scale)) < 1
        kidney = (shape < 1) & ~sinus & inside
        part.paint(kidney, patient.tissue(33, 145), KIDNEYS)
        part.paint(kidney & (shape < 0.5), patient.tissue(30, 105), KIDNEYS)
        if has_cyst:
            part.paint(kidney & (ellipsoid(part, cyst, (cyst_radius,) * 3) < 1), 8, KIDNEYS)
        vessel = capsule(part, hilum, (spine_x + side * 12, spine_y - 28, hilum[2] + 8)) < 5
        part.paint(vessel & (part.labels == 0), patient.blood())


def _liver(canvas: Canvas, frame: Frame, cavity: Mask, rng: np.random.Generator) -> None:
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
    portal = grow_tree(rng, (-18, 4, 4), (-1, -0.1, 0.35), Branching(length=44, radius=6.5, generations=5, spread=0.55))
    hepatic = grow_tree(
        rng, (-14, 14, 62), (-0.8, -0.3, -0.5), Branching(length=44, radius=5.5, generations=5, spread=0.6)
    )
    vessels = coverage(rng, part, [portal, hepatic]) * (part.labels == LIVER)
    part.values[...] += vessels * (patient.blood(1.05) - patient.tissue(58, 52) - (1 - patient.contrast) * 4)
    for _ in range(int(rng.integers(1, 6)) if rng.random() < 0.35 else 0):  # metastases, as in CT-ORG's patients
        at = (rng.uniform(-110, -20), rng.uniform(-50, 50), rng.uniform(-30, 70))
        lesion = ellipsoid(part, at, tuple(rng.uniform(6, 20, 3))) < 1  # type: ignore[arg-type]
        part.paint(lesion & (part.labels == LIVER), patient.tissue(38, 22), LIVER)


def draw_chest(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Lungs with their vessels, and the heart. Requires the liver to be drawn."""
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
    canvas.paint(pleura & ~lungs, FAT + 15)
    gravity = np.float32(0.55) * np.clip(y, -90, 90)  # the dependent lung holds less air
    canvas.paint(lungs, (-865 + gravity + 18 * smooth_field(rng, GRID, SPACING, 45)).astype(np.float32), LUNGS)
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
                grow_tree(
                    rng,
                    (side * 30, 4, 135),
                    way,
                    Branching(length=36, radius=5.0, generations=6, spread=0.5, taper=0.8),
                )
            )
    canvas.values[...] += coverage(rng, canvas, trees) * lungs * np.float32(patient.blood(0.6) + 860)

    part = canvas.around(heart_at, (68, 68, 68))
    shape = ellipsoid(part, heart_at, (62 * heart_size, 47 * heart_size, 52 * heart_size), turn)
    here = (shape < 1) & (part.z > frame.diaphragm[canvas.window(heart_at, (68, 68, 68))] - 2) & (part.labels != LIVER)
    part.paint(here, FAT + 30)
    part.paint(here & (shape < 0.88), patient.tissue(48, 45))
    for at, radii in (
        ((18, 10, -6), (24, 17, 20)),
        ((-24, -8, 0), (25, 19, 27)),
        ((4, 14, 18), (24, 15, 16)),
        ((10, -18, -8), (22, 15, 22)),
    ):
        chamber = ellipsoid(part, (heart_at[0] + at[0], heart_at[1] + at[1], heart_at[2] + at[2]), radii, turn)
        part.paint(here & (chamber < 1), patient.blood())


def draw_vessels(canvas: Canvas, frame: Frame) -> None:
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
        ((0, 2, 172), (0, -14, 285), 7.8, AIR),
        ((0, 2, 172), (-38, 8, 146), 5.8, AIR),
        ((0, 2, 172), (42, 10, 142), 5.5, AIR),
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


def draw_pelvis(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Psoas, rectum, prostate or uterus, and the bladder."""
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
    part.paint(shape < 1, WATER + (60 if rng.random() < 0.15 else 0) + rng.uniform(-4, 6), BLADDER)
