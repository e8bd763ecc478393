"""Do the images look like real ones?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.evaluation import figures
from anatogen.evaluation.realism import radial_power
from anatogen.evaluation.report import Figure
from anatogen.evaluation.sections.base import Block, Subject


class Texture:
    """The power spectrum of generated images over that of the real images of the same maps."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._generated: NDArray[np.float64] | float = 0.0
        self._real: NDArray[np.float64] | float = 0.0
        self.more_curves: dict[str, NDArray[np.float64]] = {}

    def add(self, block: Block) -> None:
        """Add the power of `block`."""
        if block.real is not None:
            self._generated = self._generated + radial_power(block.generated) * len(block.generated)
            self._real = self._real + radial_power(block.real.images.numpy()) * len(block.generated)

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """The ratio in each ring, and its plot with the curves that other sections put into `more_curves`."""
        if isinstance(self._real, float):
            return {}, []
        ratio = np.asarray(self._generated / self._real)
        curves = {f"{self.subject.samples.header['sampling']['steps']} steps": ratio, **self.more_curves}
        caption = (
            "Power of generated over real images in rings of spatial frequency. 1 is right, below is too smooth, above too "
            "noisy. Dice does not see it."
        )
        figure = Figure("power", "Is the texture right?", figures.power_against_frequency(curves), caption)
        return {"power_ratio": ratio.round(4).tolist()}, [figure]
