"""The skeleton: spine, ribs, shoulders and hips."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from anatogen.phantoms.ct_organ.body import BONE, GRID, Frame, profile
from anatogen.phantoms.shapes import Canvas, Mask, Point, capsule, ellipsoid


def draw_bones(canvas: Canvas, frame: Frame) -> None:
    """Draw the skeleton, with denser bone around the marrow."""
    bone = np.zeros(GRID, bool)
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


def _spine(canvas: Canvas, frame: Frame, bone: Mask) -> None:
    x, y, z = canvas.x - frame.spine_x, canvas.y - frame.spine_y, canvas.z
    wide = profile(
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
    deep = profile(canvas, [(-290, 6), (-250, 9), (-180, 20), (-160, 18), (-60, 18), (20, 15), (130, 13), (285, 10)])
    height = profile(canvas, [(-160, 33), (-20, 29), (120, 24), (285, 20)])  # of a vertebra with its disc
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


def _ribs(canvas: Canvas, frame: Frame, bone: Mask) -> None:
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
