"""Adjustable similarity: real images and their label maps in, a sample set of images more or less similar to them
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from anatogen.diffusion.interpolate import Mixing
from anatogen.distributed import WHOLE, Shard, share_and_device
from anatogen.errors import SettingsError, nearest
from anatogen.progress import Monitor, watched_by
from anatogen.workflows.sample import MapChoice, SampleResult, SolverChoice, result_of, write_set


@dataclass(frozen=True)
class InterpolateRequest:
    """What `anatogen interpolate` is asked for.

    Args:
        similarities: each in [0, 1): 1 - lambda of Konz et al. 2024, section 3.2.2.
        step: timestep of 1000 at which sampling is paused and the real image mixed in.
        mixing: "variance_preserving", or "literal" (the paper's formula).
        command: as it was typed, for the record.
        shard: the part of the images to make, as of `SampleRequest`.
    """

    run: Path
    out: Path
    maps: MapChoice
    similarities: tuple[float, ...] = (0.25, 0.5, 0.75)
    step: int = 240
    mixing: Mixing = "variance_preserving"
    solver: SolverChoice = SolverChoice()
    format: str = "auto"
    device: str = "auto"
    command: str = ""
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if self.mixing not in get_args(Mixing):
            raise SettingsError(f"there is no mixing '{self.mixing}'", hint=nearest(self.mixing, get_args(Mixing)))


def interpolate(request: InterpolateRequest, *, monitor: Monitor | None = None) -> SampleResult:
    """Make the images of `request`; an incomplete sample set in its folder is resumed.

    Raises SettingsError, DataError, ModelError, OutputError or Interrupted, as `write_sample_set` does.
    """
    from anatogen.conditioning.attributes import parse_attributes
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.kinds import load_model, require_ability
    from anatogen.generation.plan import DatasetMaps, Plan, check_same_anatomy
    from anatogen.model import HasSimilarity

    maps = request.maps
    share, device = share_and_device(request.device)
    shard = request.shard.split(share)
    model = load_model(request.run, device=device)
    require_ability(model, HasSimilarity, "similarity to a real image", request.run)  # type: ignore[type-abstract]
    model = request.solver.applied(model, request.run)
    attributes = parse_attributes(maps.attributes, model.spec.attributes)
    dataset = PreparedDataset.open(maps.masks)
    check_same_anatomy(model, dataset)
    plan = Plan(
        model.spec.schema.states(given=maps.given, free=maps.free),
        similarities=request.similarities,
        step=request.step,
        mixing=request.mixing,
        seed=maps.seed,
        count=maps.count,
        attributes=attributes,
    )
    requests = plan.requests(DatasetMaps(dataset, dataset.split(maps.split))).only(shard)

    with watched_by(monitor):
        samples, made = write_set(
            model, requests, request.out, "interpolating", image_format=request.format, command=request.command
        )
    return result_of(samples, shard, made, dataset=dataset)
