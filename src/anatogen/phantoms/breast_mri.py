"""A virtual patient's breast MRI with the classes of the Duke data set: T1-weighted, fat-saturated, pre-contrast, or
T2-weighted.

Lengths are in millimetres of a standard body: x to the patient's left, y to posterior, z to superior. The patient is
prone in the scanner, so the breasts hang to anterior; displayed, as usual, with anterior up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.phantoms.shapes import (
    Array,
    Branching,
    Canvas,
    Mask,
    Point,
    Tubes,
    coverage,
    ellipsoid,
    grow_tree,
    smooth_field,
)
from anatogen.volume import Volume

CLASSES = ("breast", "blood vessels", "fibroglandular tissue")
CHANNELS = ("T1 MRI",)
BREAST, VESSELS, GLAND = 1, 2, 3

_GRID = (128, 128, 48)
_SPACING = (2.8, 2.8, 3.5)
_CENTRE = (0.0, 25.0, 0.0)

_AIR = 0.0


@dataclass(frozen=True)
class Contrast:
    """The relative brightness of tissues in a sequence, before the patient's gain and the coil's bias.

    Attributes:
        gland_range: Limits of the brightness of fibroglandular tissue, which varies within a patient.
    """

    lung: float
    fat: float
    skin: float
    muscle: float
    gland: float
    gland_range: tuple[float, float]
    cyst: float
    vessel: float
    bone: float
    blood: float
    liver: float
    heart: float

    @property
    def of_classes(self) -> tuple[float, float, float]:
        """The brightness of each class of `CLASSES`."""
        return self.fat, self.vessel, self.gland


T1 = Contrast(0.05, 0.27, 0.5, 0.5, 0.62, (0.4, 0.8), 0.36, 0.88, 0.2, 0.42, 0.47, 0.46)
# Without fat saturation: bright fat, dark vessels (flow voids), bright cysts. The order of the classes is not T1's.
T2 = Contrast(0.05, 0.8, 0.45, 0.22, 0.45, (0.3, 0.6), 1.0, 0.1, 0.6, 0.15, 0.3, 0.28)
CONTRASTS = {"T1": T1, "T2": T2}


@dataclass(frozen=True)
class Patient:
    """The parameters that vary between patients.

    Attributes:
        density: Share of the breast that is fibroglandular tissue, 0 to 1.
        gain: Intensity scale.
    """

    size: float
    breast_radius: float
    breast_height: float
    asymmetry: float
    density: float
    clumping_mm: float
    trees: float
    gain: float
    noise: float
    bias: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """A random patient; density follows the four BI-RADS categories."""
        low, high = ((0.015, 0.06), (0.06, 0.17), (0.17, 0.34), (0.34, 0.58))[
            int(rng.choice(4, p=[0.15, 0.4, 0.35, 0.1]))
        ]
        return cls(
            size=float(np.clip(rng.normal(1, 0.05), 0.88, 1.12)),
            breast_radius=float(np.clip(rng.normal(66, 6), 52, 76)),
            breast_height=float(np.clip(rng.normal(72, 16), 38, 100)),
            asymmetry=float(rng.normal(0, 0.05)),
            density=float(rng.uniform(low, high)),
            clumping_mm=float(rng.uniform(7, 14)),
            trees=float(rng.uniform(3, 9)),
            gain=float(np.exp(rng.normal(6.2, 0.8))),
            noise=float(rng.uniform(0.012, 0.035)),
            bias=float(rng.uniform(0.08, 0.2)),
        )


@dataclass(frozen=True)
class _Breast:
    """One breast: its centre on the chest wall and its nipple, in mm; height: its extent (X, Y, Z), 0 outside."""

    centre: tuple[float, float]
    nipple: Point
    height: Array


def draw(rng: np.random.Generator, contrast: Contrast = T1) -> tuple[Volume, Volume]:
    """(image in arbitrary units, int16; labels, uint8), each (128, 128, 48) with axes to left, posterior, superior.

    The same random numbers give the same anatomy, texture and noise in any contrast.
    """
    patient = Patient.draw(rng)
    warp = [size * smooth_field(rng, _GRID, _SPACING, 80) for size in (3.0, 2.5, 3.0)]
    canvas = Canvas.blank(_GRID, _SPACING, _CENTRE, _AIR, warp)
    wall = _wall(canvas)
    _trunk(canvas, wall, rng, contrast)
    breasts = [_breast(canvas, patient, side, rng) for side in (-1, 1)]
    front = wall - np.maximum(np.maximum(breasts[0].height, breasts[1].height), 9)
    _skin_and_fat(canvas, front, wall, contrast)
    hanging = np.maximum(breasts[0].height, breasts[1].height) > 12
    breast: Mask = (canvas.y > front + 2) & (canvas.y < wall) & hanging
    canvas.paint(breast & (canvas.y > front + 5), contrast.fat, BREAST)
    np.copyto(canvas.labels, np.uint8(BREAST), where=breast)
    for each in breasts:
        _gland(canvas, patient, each, (front, wall), rng, contrast)
    _draw_vessels(canvas, patient, breasts, (front, wall), rng, contrast)
    spacing = tuple(round(patient.size * step, 4) for step in _SPACING)
    return canvas.volumes(_scan(canvas, patient, rng), (spacing[0], spacing[1], spacing[2]))


def _wall(canvas: Canvas) -> Array:
    """y of the front of the pectoral muscles at each voxel: the curve of the chest, concave over the breastbone."""
    x, z = canvas.x, canvas.z
    hollow = 7 * np.exp(-((x / 16) ** 2))
    result: Array = (8 + hollow + 0.08 * z + 62 * (x / 150) ** 2 + 45 * (np.abs(x) / 165) ** 6).astype(np.float32)
    return result


def _trunk(canvas: Canvas, wall: Array, rng: np.random.Generator, contrast: Contrast) -> None:
    x, y, z = canvas.x, canvas.y, canvas.z
    outline = (x / 168) ** 2 + ((y - 105) / 118) ** 2
    trunk = (y > wall) & (outline < 1.12)
    canvas.paint(trunk, contrast.skin)
    canvas.paint(trunk & (outline < 1.09), contrast.fat)
    canvas.paint(trunk & (outline < 0.99), contrast.muscle)
    depth = y - wall
    angle = np.arctan2(x, 130 - y)
    cage = (x / 132) ** 2 + ((y - 112) / 88) ** 2  # the rib cage: below 1 inside
    canvas.paint(trunk & (np.abs(depth - 12) < 1.6), contrast.fat)  # between the pectoral muscles
    ribs = (np.abs(cage - 1.09) < 0.07) & (np.cos((z + 26 * np.abs(angle) ** 1.5) / 24 * 2 * np.pi) > 0.25)
    canvas.paint(trunk & ribs, contrast.bone)
    canvas.paint((np.abs(x) < 15) & (np.abs(cage - 1.06) < 0.09) & (y < 80), contrast.bone + 0.08)
    inside = cage < 0.98
    dome = -62 + 40 * np.exp(-(((x + 60) / 55) ** 2) - ((y - 95) / 60) ** 2) + rng.normal(0, 8)
    canvas.paint(inside, contrast.lung)
    canvas.paint(inside & (z < dome), contrast.liver)  # liver
    canvas.paint(inside & (np.abs(x) < 8 + 24 * np.exp(-(((y - 95) / 40) ** 2))), contrast.fat + 0.05)
    heart = ellipsoid(canvas, (26.0, 74.0, -22 + rng.normal(0, 6)), (58, 40, 50), (0.2, 0.3, -0.6))
    canvas.paint(inside & (heart < 1), contrast.heart)
    canvas.paint(inside & (heart < 0.35), contrast.blood - 0.1)
    for side in (-1, 1):  # internal mammary vessels, behind the ribs, are not part of the breast
        vessel = (x - side * 20) ** 2 + (y - (32 + 0.08 * z)) ** 2 < 5
        canvas.paint(vessel & trunk, contrast.vessel)


def _breast(canvas: Canvas, patient: Patient, side: int, rng: np.random.Generator) -> _Breast:
    size = 1 + side * patient.asymmetry
    radius, height = patient.breast_radius * size, patient.breast_height * size
    centre = (side * (10 + radius + rng.normal(0, 2)), rng.normal(-6, 4))
    lean = rng.normal(4, 3), rng.normal(-7, 4)  # the nipple is lateral to and below the centre
    x, z = canvas.x - centre[0], canvas.z - centre[1]
    along = np.clip((38 - canvas.y) / (height + 20), 0, 1)  # 0 at the chest wall, 1 at the nipple's level
    u, v = (x - side * lean[0] * along) / radius, (z - lean[1] * along) / (1.12 * radius)
    distance = np.clip(1 - (u * u + v * v), 0, None)
    tilt = 1 + 0.1 * side * u  # fuller laterally
    shape = (height + 14) * np.clip(distance, 0, 1) ** rng.uniform(0.55, 0.8) * tilt
    at_x, at_z = centre[0] + side * lean[0], centre[1] + lean[1]
    tip = 8 + 62 * (centre[0] / 150) ** 2 - height - 10
    nipple = (at_x, tip, at_z)
    bump = np.clip(1 - ((canvas.x - at_x) ** 2 + (canvas.z - at_z) ** 2) / 5.5**2, 0, 1)
    return _Breast(centre, nipple, (shape + 6 * np.sqrt(bump)).astype(np.float32))


def _skin_and_fat(canvas: Canvas, front: Array, wall: Array, contrast: Contrast) -> None:
    outside = (canvas.x / 172) ** 2 + ((canvas.y - 105) / 122) ** 2 > 1.2
    flesh = (canvas.y > front) & ~((canvas.y > wall) & outside)
    canvas.paint(flesh & (canvas.values == 0), contrast.fat)
    depth = canvas.y - front
    canvas.paint((depth > 0) & (depth < 3.2) & (canvas.y < wall), contrast.skin)


def _gland(
    canvas: Canvas,
    patient: Patient,
    breast: _Breast,
    between: tuple[Array, Array],
    rng: np.random.Generator,
    contrast: Contrast,
) -> None:
    """Lobes that converge on the nipple: the brightest share, `density`, of a field stretched along the ducts.

    between: The y of the skin and of the chest wall.
    """
    front, wall = between
    reach = (patient.breast_radius * 1.2, 75.0, patient.breast_radius * 1.2)
    middle = (breast.centre[0], breast.nipple[1] + 55, breast.centre[1])
    window = canvas.window(middle, reach)
    part = canvas.around(middle, reach)
    x, y, z = (c - at for c, at in zip((part.x, part.y, part.z), breast.nipple, strict=True))
    radius = np.sqrt(x * x + y * y + z * z) + 1
    # Direction from the nipple and distance, as coordinates of a random field: lobes are longer than they are wide.
    knots = 26
    lobes = rng.standard_normal((knots, knots, knots), dtype=np.float32)
    where = np.stack([x / radius * 7 + knots / 2, z / radius * 7 + knots / 2, radius / 20 + 2])
    radial = ndimage.map_coordinates(lobes, where, order=1, mode="nearest") * 1.8
    clumps = smooth_field(rng, part.values.shape, _SPACING, patient.clumping_mm)
    broad = smooth_field(rng, part.values.shape, _SPACING, 34)
    depth = part.y - front[window]
    height = np.maximum(breast.height[window], 1)
    inward = depth / height  # 0 at the skin, 1 at the chest wall
    axis_x, axis_z = part.x - breast.centre[0], part.z - breast.centre[1]
    off_axis = np.sqrt(axis_x**2 + axis_z**2) / patient.breast_radius
    cone = 2.4 - 2.6 * off_axis**1.5 - 2.2 * np.clip(inward - 0.75, 0, 1) * 4 - 2.0 * np.clip(0.13 - inward, 0, 1) * 8
    field = cone + 1.1 * radial + 0.6 * clumps + 0.7 * broad + 1.2 * np.exp(-radius / 10)
    room = (part.labels == BREAST) & (depth > 5.5) & (wall[window] - part.y > 5)
    room |= (radius < 9) & (depth > 3) & (part.labels == BREAST)
    room &= np.sign(part.x) == np.sign(breast.centre[0])
    if not room.any():
        return
    threshold = np.quantile(field[room], 1 - patient.density)
    gland = room & (field > threshold)
    shade = np.clip(contrast.gland + 0.05 * clumps - 0.06 * (patient.density < 0.06), *contrast.gland_range).astype(
        np.float32
    )
    part.paint(gland, shade, GLAND)
    if rng.random() < 0.4:  # cysts, dark in T1, bright in T2
        at = (
            breast.nipple[0] + rng.normal(0, 18),
            breast.nipple[1] + rng.uniform(20, 50),
            breast.nipple[2] + rng.normal(0, 16),
        )
        part.paint((ellipsoid(part, at, (rng.uniform(3, 7),) * 3) < 1) & gland, contrast.cyst, GLAND)


def _draw_vessels(
    canvas: Canvas,
    patient: Patient,
    breasts: list[_Breast],
    between: tuple[Array, Array],
    rng: np.random.Generator,
    contrast: Contrast,
) -> None:
    """Vessel trees from the breastbone and from the armpit, which branch on their way to the nipple."""
    front, wall = between
    trees: list[Tubes] = []
    for breast in breasts:
        side = np.sign(breast.centre[0])
        for _ in range(max(1, int(rng.poisson(patient.trees)))):
            medial = rng.random() < 0.5
            edge = breast.centre[0] + side * patient.breast_radius * (-0.55 if medial else 0.6)
            height = breast.centre[1] + rng.uniform(-0.4, 0.65) * patient.breast_radius
            start = np.array([edge, 6 + 62 * (edge / 150) ** 2 - 8, height])
            target = np.array(breast.nipple) + rng.normal(0, 14, 3) + [0, 20, 0]
            trees.append(
                grow_tree(
                    rng,
                    start.tolist(),
                    (target - start).tolist(),
                    Branching(
                        length=float(rng.uniform(0.4, 0.65) * np.linalg.norm(target - start)),
                        radius=float(rng.uniform(2.0, 3.4)),
                        generations=int(rng.integers(3, 6)),
                        spread=0.45,
                        wander=0.2,
                        taper=0.84,
                    ),
                )
            )
    share = coverage(rng, canvas, trees)
    share *= (canvas.labels > 0) & (canvas.y > front + 3) & (canvas.y < wall - 2)
    canvas.values[...] += np.minimum(1.6 * share, 1) * (contrast.vessel - canvas.values)
    np.copyto(canvas.labels, np.uint8(VESSELS), where=share > 0.2)


def _scan(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> NDArray[np.int16]:
    """Texture, blur, the coil's bias field and Rician noise, in the patient's units."""
    tissue = canvas.values * (1 + 0.05 * smooth_field(rng, _GRID, _SPACING, 6))
    tissue += 0.02 * (canvas.values > 0.1) * smooth_field(rng, _GRID, _SPACING, 14)
    blurred = ndimage.gaussian_filter(tissue.astype(np.float32), (0.4, 0.4, 0.35), mode="nearest")
    near_coil = np.exp(-np.clip(canvas.y + 20, 0, None) / 190)  # the coil surrounds the breasts
    bias = np.exp(patient.bias * smooth_field(rng, _GRID, _SPACING, 130)) * near_coil
    real, imaginary = (patient.noise * rng.standard_normal(_GRID, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(blurred * bias + real, imaginary)
    return np.clip(np.rint(magnitude * patient.gain), 0, 32767).astype(np.int16)
