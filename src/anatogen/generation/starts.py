"""Images that start from their map's real image: translations, and counterfactuals of edited maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.counterfactual import DEFAULT_MARGIN, kept_outside
from anatogen.errors import SettingsError
from anatogen.model import Known, Noised, Start, check_step


class FromReal(Protocol):
    """How the image of a map starts from the real image."""

    @property
    def described(self) -> Mapping[str, Any]:
        """What a manifest's line and the header of a sample set say of it: fields of `Origin` and of `Asked`."""
        ...

    def start(self, real: NDArray[np.float32], labels: NDArray[np.int64], unedited: NDArray[np.int64] | None) -> Start:
        """The start of an image.

        Args:
            real: (C, *spatial) in [-1, 1].
            labels: Of the image to make (*spatial).
            unedited: The map that the real image was annotated with; None where `labels` are.
        """
        ...


@dataclass(frozen=True)
class Translation:
    """From the real image, noised: its coarse structure stays, the rest follows label map and attributes.

    Attributes:
        step: Of 1000 timesteps; with more of them, less of the real image stays.

    Raises:
        SettingsError: A step outside 1 to 999.
    """

    step: int

    def __post_init__(self) -> None:
        check_step(self.step)

    @property
    def described(self) -> Mapping[str, Any]:
        """See `FromReal`."""
        return {"noised_to": self.step}

    def start(
        self,
        real: NDArray[np.float32],
        labels: NDArray[np.int64],  # noqa: ARG002
        unedited: NDArray[np.int64] | None,  # noqa: ARG002
    ) -> Start:
        """See `FromReal`."""
        return Noised(real, self.step)


@dataclass(frozen=True)
class Counterfactual:
    """The real image as it would be with the edited map: kept but for the edit and its margin.

    Attributes:
        margin: See `kept_outside`.
        spacing_mm: Of the pixels; None: the margin is in pixels.

    Raises:
        SettingsError: A margin below 0.
    """

    margin: float = DEFAULT_MARGIN
    spacing_mm: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise SettingsError(f"the margin must be at least 0, got {self.margin:g}", hint="Choose for instance 6px")

    @property
    def described(self) -> Mapping[str, Any]:
        """See `FromReal`."""
        return {"margin": f"{self.margin:g}{'px' if self.spacing_mm is None else 'mm'}"}

    def start(self, real: NDArray[np.float32], labels: NDArray[np.int64], unedited: NDArray[np.int64] | None) -> Start:
        """See `FromReal`."""
        before = labels if unedited is None else unedited
        return Known(real, kept_outside(before, labels, self.margin, self.spacing_mm))
