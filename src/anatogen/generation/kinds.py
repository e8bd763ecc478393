"""The kinds of models, and the one function that loads a run of any kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from anatogen.baselines.controlnet.model import CONTROLNET, ControlnetModel
from anatogen.baselines.controlnet.task import CONTROLNET_SYSTEM
from anatogen.baselines.latent.model import LATENT, LatentModel
from anatogen.baselines.latent.task import LATENT_SYSTEM
from anatogen.baselines.painting import PAINTING, Painting, make_painting
from anatogen.baselines.retrieval import RETRIEVAL, NearestMap, make_retrieval
from anatogen.baselines.spade.model import SPADE, SpadeModel
from anatogen.baselines.spade.task import SPADE_SYSTEM
from anatogen.data.store import PreparedDataset
from anatogen.errors import ModelError, SettingsError, nearest
from anatogen.generation.engine import Generator
from anatogen.generation.stacked import STACKED, StackedSlices, make_stacked
from anatogen.model import DENOISER, AboutModel, Denoiser, ImageModel, read_run
from anatogen.training.config import RunSettings
from anatogen.training.task import System
from anatogen.training.train import OUR_DENOISER


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        load: The model in a run: (run, device=...).
        system: How it is trained; None where nothing is learned.
        make: Where nothing is learned, writes the model: (data set, folder of the run).
        make_from: Where it is made of another run, too: (data set, folder of the run, the other run).
        generator: The model around a network of its task, while it is trained: (network, settings, device).
    """

    load: Callable[..., ImageModel]
    system: System | None = None
    generator: Callable[[Any, Any, str], ImageModel] | None = None
    make: Callable[[PreparedDataset, Path], AboutModel] | None = None
    make_from: Callable[[PreparedDataset, Path, Path | None], AboutModel] | None = None


def _denoiser(network: Denoiser, settings: RunSettings, device: str) -> ImageModel:
    about = AboutModel(mask_ablation=settings.conditioning.mask_ablation)
    return Generator(network, settings.sampling, device=device, about=about)


KINDS: dict[str, Kind] = {
    DENOISER: Kind(Generator.load, OUR_DENOISER, _denoiser),
    SPADE: Kind(SpadeModel.load, SPADE_SYSTEM, SpadeModel.around),
    CONTROLNET: Kind(ControlnetModel.load, CONTROLNET_SYSTEM, ControlnetModel.around),
    LATENT: Kind(LatentModel.load, LATENT_SYSTEM, LatentModel.around),
    RETRIEVAL: Kind(NearestMap.load, make=make_retrieval),
    PAINTING: Kind(Painting.load, make=make_painting),
    STACKED: Kind(StackedSlices.load, make_from=make_stacked),
}
"""All kinds by name."""


def load_model(run: str | Path, *, device: str = "auto") -> ImageModel:
    """The model in a run folder, of whatever kind. Raises ModelError where there is none or its kind is not known."""
    run = Path(run)
    kind = read_run(run).kind
    if kind not in KINDS:
        raise ModelError(
            f"holds a model of the kind '{kind}', this version knows {', '.join(KINDS)}",
            path=run,
            hint="Upgrade anatogen",
        )
    return KINDS[kind].load(run, device=device)


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises SettingsError where there is none."""
    if name not in KINDS:
        raise SettingsError(f"there is no model '{name}'", hint=nearest(name, KINDS))
    return KINDS[name]


A = TypeVar("A")


def require_ability(model: ImageModel, ability: type[A], what: str, path: Path) -> A:
    """`model` as something that has `ability`.

    Raises SettingsError, saying that `what` is not applicable, where it lacks.
    """
    if not isinstance(model, ability):
        raise SettingsError(f"{what} is not applicable to this kind of model", path=path, hint="Leave it out")
    return model
