"""Translation: real images, noised and denoised under another attribute, following their label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anatogen.distributed import WHOLE, Shard, share_and_device
from anatogen.errors import SettingsError
from anatogen.progress import Monitor, watched_by
from anatogen.workflows.sample import MapChoice, SampleResult, SolverChoice, result_of, write_set


@dataclass(frozen=True)
class TranslateRequest:
    """What `anatogen translate` is asked for.

    Args:
        images: a prepared data set, with label maps as the model was trained on.
        attributes: "name=value", at least one.
        strength: in (0, 1): the share of the timesteps to which the real images are noised.
        command: as it was typed, for the record.
        shard: the part of the images to make, as of `SampleRequest`.
    """

    run: Path
    out: Path
    images: Path
    attributes: tuple[str, ...]
    split: str = "test"
    strength: float = 0.6
    count: int | None = None
    seed: int = 0
    solver: SolverChoice = SolverChoice()
    format: str = "auto"
    device: str = "auto"
    command: str = ""
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if not 0.001 <= self.strength <= 0.999:
            raise SettingsError(f"--strength must be in (0, 1), got {self.strength:g}", hint="Choose for instance 0.6")
        if not self.attributes:
            raise SettingsError("no attribute is named", hint="Add for instance --attribute sequence=T2")

    @property
    def maps(self) -> MapChoice:
        """The same as a choice of label maps."""
        return MapChoice(self.images, split=self.split, count=self.count, seed=self.seed, attributes=self.attributes)


def translate(request: TranslateRequest, *, monitor: Monitor | None = None) -> SampleResult:
    """Make the images of `request`, each with its real one; an incomplete sample set in its folder is resumed.

    Raises SettingsError, DataError, ModelError, OutputError or Interrupted, as `write_sample_set` does.
    """
    from anatogen.conditioning.attributes import parse_attributes
    from anatogen.data.store import PreparedDataset
    from anatogen.generation.kinds import load_model, require_ability
    from anatogen.generation.plan import DatasetMaps, Plan, check_same_anatomy
    from anatogen.generation.starts import Translation
    from anatogen.model import HasRealStarts

    maps = request.maps
    share, device = share_and_device(request.device)
    shard = request.shard.split(share)
    model = load_model(request.run, device=device)
    require_ability(model, HasRealStarts, "translation", request.run)  # type: ignore[type-abstract]
    model = request.solver.applied(model, request.run)
    asked = parse_attributes(maps.attributes, model.spec.attributes)
    dataset = PreparedDataset.open(request.images)
    check_same_anatomy(model, dataset)
    plan = Plan(
        model.spec.schema.states(),
        real=Translation(round(1000 * request.strength)),
        paired=True,
        seed=maps.seed,
        count=maps.count,
        attributes=asked,
    )
    requests = plan.requests(DatasetMaps(dataset, dataset.split(maps.split))).only(shard)
    with watched_by(monitor):
        samples, made = write_set(
            model, requests, request.out, "translating", image_format=request.format, command=request.command
        )
    return result_of(samples, shard, made, dataset=dataset)
