"""A virtual patient's CT of thorax, abdomen and pelvis, with the five organs of CT-ORG.

Lengths are in millimetres of a standard body (x to the patient's left, y to posterior, z to superior, z = 0 at the
upper lumbar spine); the patient's size determines the voxel spacing, as a scanner fits its field of view.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anatogen.phantoms.ct_organ.body import AIR, GRID, SPACING, Patient, draw_body, frame_of
from anatogen.phantoms.ct_organ.bones import draw_bones
from anatogen.phantoms.ct_organ.organs import draw_abdomen, draw_chest, draw_pelvis, draw_vessels
from anatogen.phantoms.shapes import Canvas, Mask, smooth_field
from anatogen.volume import Volume

__all__ = ["CHANNELS", "CLASSES", "Patient", "draw"]

CLASSES = ("liver", "bladder", "lungs", "kidneys", "bone")
CHANNELS = ("CT",)

_CENTRE = (0.0, 5.0, -5.0)


def draw(rng: np.random.Generator) -> tuple[Volume, Volume]:
    """(image in HU, int16; labels, uint8), each (128, 128, 80) with axes to left, posterior, superior."""
    patient = Patient.draw(rng)
    warp = [size * smooth_field(rng, GRID, SPACING, 110) for size in (3.0, 3.0, 4.0)]
    canvas = Canvas.blank(GRID, SPACING, _CENTRE, AIR, warp)
    frame = frame_of(canvas, patient)
    body = draw_body(canvas, frame, rng)
    draw_abdomen(canvas, frame, rng)
    draw_chest(canvas, frame, rng)
    draw_vessels(canvas, frame)
    draw_pelvis(canvas, frame, rng)
    draw_bones(canvas, frame)
    _table(canvas, body)
    spacing = tuple(round(patient.size * step, 4) for step in SPACING)
    return canvas.volumes(_scan(canvas, body, patient, rng), (spacing[0], spacing[1], spacing[2]))


def _table(canvas: Canvas, body: Mask) -> None:
    """The scanner's table, 8 mm under the patient's back."""
    lowest = canvas.axes[1][np.flatnonzero(body.any(axis=(0, 2)))[-1]]
    x, y = canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    surface = lowest + 8 - 22 * (x / 170) ** 2
    depth = np.broadcast_to((y - surface) * (np.abs(x) < 185), GRID)
    canvas.paint((depth > 0) & (depth < 24) & ~body, -930)
    canvas.paint((((depth > 0) & (depth < 4)) | ((depth > 20) & (depth < 24))) & ~body, -90)


def _scan(canvas: Canvas, body: Mask, patient: Patient, rng: np.random.Generator) -> NDArray[np.int16]:
    """Texture, blur, and noise with the grain of a reconstruction kernel that increases with body thickness."""
    texture = smooth_field(rng, GRID, SPACING, 9) * np.where((canvas.values > -20) & (canvas.values < 400), 4, 0)
    sharp = ndimage.gaussian_filter(canvas.values + texture.astype(np.float32), (0.45, 0.45, 0.3), mode="nearest")
    white = rng.standard_normal(GRID, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, (patient.kernel, patient.kernel, 0), mode="wrap")
    grain = fine - ndimage.gaussian_filter(fine, (2.2, 2.2, 0), mode="wrap")
    thickness = body.sum(axis=(0, 1)) / max(1, body.sum(axis=(0, 1)).mean())
    local = ndimage.gaussian_filter(body.mean(axis=2, dtype=np.float32), 12)  # least noise at the rim
    level = patient.noise * thickness * (0.4 + local / local.max())[:, :, None]
    hounsfield = sharp + grain / grain.std() * level
    return np.clip(np.rint(hounsfield), -1024, 3071).astype(np.int16)
