"""Requests: one image to make each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement, typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.diffusion.interpolate import Mixing
from anatogen.errors import SettingsError
from anatogen.generation.header import Asked
from anatogen.generation.manifest import Origin
from anatogen.labels import ClassStates, LabelSchema


@dataclass(frozen=True)
class Likeness:
    """To what real image (C, *spatial) in [-1, 1] a generated one is to be alike, and how much.

    similarity: in [0, 1), 1 - lambda of Konz et al. 2024, section 3.2.2; more is more alike. step: of the 1000 of the
    `ddpm` path, whose noise the generation is halted at (240 in the paper); other paths halt at the same noise.
    """

    image: NDArray[np.float32]
    similarity: float
    step: int = 240
    mixing: Mixing = "variance_preserving"

    def __post_init__(self) -> None:
        check_likeness(self.similarity, self.step)


def check_likeness(similarity: float, step: int) -> None:
    """Raises SettingsError where a similarity is outside [0, 1) or a step outside 1 to 999."""
    if not 0 <= similarity < 1:
        raise SettingsError(f"similarity {similarity:g} is outside [0, 1)", hint="Choose for instance 0.5")
    if not 1 <= step <= 999:
        raise SettingsError(f"step {step} is outside 1 to 999", hint="The paper's is 240")


@dataclass(frozen=True)
class Request:
    """id: unique in its sample set, whose files are named after it. labels: int64 (*spatial). origin: where the label map is from.

    place: the grid and units of the scan that the map was drawn on, where there is one. likeness: to a real image.
    partner: the real image (C, *spatial) that the sample set is to hold beside the generated one.
    """

    id: str
    labels: NDArray[np.int64]
    states: ClassStates
    seed: int
    origin: Origin = Origin()
    place: Placement | None = None
    likeness: Likeness | None = None
    partner: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ModelGeometry:
    """What a model takes: its classes, (H, W) or (D, H, W), the slices' axis ("volume"; None unknown), mm a pixel.

    values: what stood for the classes 0..C-1 in the files that it was trained on, where those were other numbers.
    """

    schema: LabelSchema
    size: tuple[int, ...]
    axis: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    values: tuple[int, ...] | None = None

    def is_that_of(self, dataset: PreparedDataset) -> bool:
        """Whether the maps of `dataset` can be taken as they are: the same classes, size, axis and, to 15 %, pixels."""
        own = (self.schema.names, self.size, self.axis or dataset.info.axis)
        if own != (dataset.schema.names, dataset.size, dataset.info.axis):
            return False
        theirs = typical_spacing(dataset)
        if self.spacing_mm is None or theirs is None:
            return True
        return all(abs(a / b - 1) <= 0.15 for a, b in zip(self.spacing_mm, theirs, strict=True))


class Requests(Sequence[Request]):
    """Requests that are made when they are asked for, so that a hundred thousand of them take no memory.

    asked: what they have in common, which a sample set keeps in its header.
    """

    def __init__(self, count: int, make: Callable[[int], Request], asked: Asked = Asked()) -> None:
        self._count, self._make, self.asked = count, make, asked

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Requests: ...
    def __getitem__(self, index: int | slice) -> Request | Requests:
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            return Requests(len(chosen), lambda i: self[chosen[i]], self.asked)
        return self._make(chosen)


def asked_of(requests: Sequence[Request]) -> Asked:
    """What `requests` have in common, as far as they say."""
    return requests.asked if isinstance(requests, Requests) else Asked()
