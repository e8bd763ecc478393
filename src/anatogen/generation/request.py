"""Requests: one image to make each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement
from anatogen.distributed import WHOLE, Shard
from anatogen.generation.header import Asked
from anatogen.generation.manifest import Origin
from anatogen.model import Query


@dataclass(frozen=True)
class Request(Query):
    """A query with its place in a sample set.

    Attributes:
        id: Unique in the sample set, whose files are named after it.
        origin: Where the label map is from.
        place: The grid and units of the scan that the map was annotated on, where there is one.
        partner: The real image (C, *spatial) that the sample set keeps beside the generated one.
    """

    id: str = field(kw_only=True)
    origin: Origin = field(default=Origin(), kw_only=True)
    place: Placement | None = field(default=None, kw_only=True)
    partner: NDArray[np.float32] | None = field(default=None, kw_only=True)


class Requests(Sequence[Request]):
    """Requests that are made when they are asked for, so that a hundred thousand of them take no memory.

    Args:
        count: How many there are.
        make: The request of a number, 0 to count - 1.
        asked: What they have in common, which a sample set keeps in its header.
        name: The id of the request of a number, found without reading its label map.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Request],
        asked: Asked = Asked(),
        *,
        name: Callable[[int], str] | None = None,
    ) -> None:
        self._count, self._make, self.asked, self.shard = count, make, asked, WHOLE
        self._name = name if name is not None else lambda number: make(number).id

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Requests: ...
    def __getitem__(self, index: int | slice) -> Request | Requests:
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            return Requests(len(chosen), lambda i: self[chosen[i]], self.asked, name=lambda i: self._name(chosen[i]))
        return self._make(chosen)

    def only(self, shard: Shard) -> Requests:
        """The same requests, of which `write_sample_set` makes the images of `shard` only."""
        same = Requests(self._count, self._make, self.asked, name=self._name)
        same.shard = shard
        return same

    def id_of(self, number: int) -> str:
        """The id of request `number`."""
        return self._name(number)


def shard_of(requests: Sequence[Request]) -> Shard:
    """The part of `requests` that is to be made."""
    return requests.shard if isinstance(requests, Requests) else WHOLE


def asked_of(requests: Sequence[Request]) -> Asked:
    """What `requests` have in common, as far as they say."""
    return requests.asked if isinstance(requests, Requests) else Asked()
