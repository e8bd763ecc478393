"""Which generated images are kept, and how often a rejected one is made again with another seed.

What makes an image good is for a `Gate` to say (see `gates.py`); here are only verdicts and second tries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import SettingsError
from anatogen.generation.header import GateSettings
from anatogen.generation.manifest import Measures, RejectedTry
from anatogen.generation.request import Request
from anatogen.model import ImageModel
from anatogen.seeds import derive_seed


@dataclass(frozen=True)
class Verdict:
    """Whether an image is kept. measures: what was found, as the manifest is to hold it. reason: why it was
    rejected.
    """

    accepted: bool
    measures: Measures = Measures()
    reason: str = ""


class Gate(Protocol):
    """Judges images, each by itself: what else is in the batch must not matter."""

    @property
    def settings(self) -> GateSettings:
        """Settings recorded in samples.json; they must match for a sample set to be resumed."""

    def __call__(self, requests: Sequence[Request], images: NDArray[np.float32]) -> list[Verdict]:
        """A verdict on each of `images` (B, C, *spatial) in [-1, 1], made for `requests`."""


@dataclass(frozen=True)
class Try:
    """One image that was made and judged, by the seed it was made with."""

    seed: int
    verdict: Verdict

    def as_rejected(self) -> RejectedTry:
        """As the manifest holds it."""
        return RejectedTry(**dict(self.verdict.measures), seed=self.seed, reason=self.verdict.reason)


@dataclass(frozen=True)
class Outcome:
    """What became of a request. request: with the seed of its last try. image: None where every try was rejected."""

    request: Request
    image: NDArray[np.float32] | None
    tries: tuple[Try, ...]

    @property
    def measures(self) -> Measures:
        """What the gates found in the last try."""
        return self.tries[-1].verdict.measures

    @property
    def rejected(self) -> list[Try]:
        """The tries that were rejected, in their order."""
        return [each for each in self.tries if not each.verdict.accepted]


@dataclass(frozen=True)
class Gating:
    """What decides which images of a sample set are kept.

    Attributes:
        gates: An image that one of them rejects is made again with another seed.
        retries: Up to so many times.
        judged: Called with each outcome.
    """

    gates: Sequence[Gate] = ()
    retries: int = 0
    judged: Callable[[Outcome], None] | None = None


def retry_seed(seed: int, number: int) -> int:
    """The seed of try `number` = 0, 1, ... of a request that asks for `seed`; the first is that one itself."""
    return derive_seed(seed, "retry", number) if number else seed


def generate_gated(
    model: ImageModel,
    requests: Iterable[Request],
    *,
    gates: Sequence[Gate] = (),
    retries: int = 0,
    batch_size: int = 16,
) -> Iterator[Outcome]:
    """The outcome of each request, in their order. An image that a gate rejects is made again, up to `retries` times.

    Images are made `batch_size` at a time, second tries and new requests together. As each seed comes from its request
    and the number of the try, an outcome depends on its request alone. At most (retries + 1) batches are in memory:
    those that wait for an earlier request. Raises SettingsError for fewer than 0 retries.
    """
    if retries < 0:
        raise SettingsError(f"--retries must be 0 or more, got {retries}")
    remaining = iter(requests)
    waiting: deque[_Job] = deque()
    while True:
        batch = [job for job in waiting if job.outcome is None][:batch_size]
        while len(batch) < batch_size and (request := next(remaining, None)) is not None:
            waiting.append(_Job(request))
            batch.append(waiting[-1])
        if not batch:
            return
        made = [replace(job.request, seed=retry_seed(job.request.seed, len(job.tries))) for job in batch]
        images = [image for _, image in model.generate(made, batch_size=batch_size)]
        verdicts = _judge(gates, made, images)
        for job, request, image, verdict in zip(batch, made, images, verdicts, strict=True):
            job.take(request, image, verdict, retries)
        while waiting and waiting[0].outcome is not None:
            yield waiting.popleft().outcome  # type: ignore[misc]  # looked at above


@dataclass
class _Job:
    """A request on its way to its outcome."""

    request: Request
    tries: list[Try] = field(default_factory=list)
    outcome: Outcome | None = None

    def take(self, made: Request, image: NDArray[np.float32], verdict: Verdict, retries: int) -> None:
        self.tries.append(Try(made.seed, verdict))
        if verdict.accepted:
            self.outcome = Outcome(made, image, tuple(self.tries))
        elif len(self.tries) > retries:
            self.outcome = Outcome(made, None, tuple(self.tries))


def _judge(gates: Sequence[Gate], requests: list[Request], images: list[NDArray[np.float32]]) -> list[Verdict]:
    """The gates' joint verdicts; a gate is only shown what those before it accepted."""
    verdicts = [Verdict(True) for _ in requests]
    for gate in gates:
        there = [i for i, verdict in enumerate(verdicts) if verdict.accepted]
        if not there:
            break
        found = gate([requests[i] for i in there], np.stack([images[i] for i in there]))
        for i, verdict in zip(there, found, strict=True):
            verdicts[i] = replace(verdict, measures=verdicts[i].measures.joined(verdict.measures))
    return verdicts
