"""What a comparison of systems measures beyond their reports: paired differences, marks, floors and cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anatogen.metrics.intervals import mean_interval
from anatogen.model import HasDenoiser, HasNetwork, ImageModel, Query
from anatogen.reporting.comparison import Compared, Cost, Difference, Mark, really_better
from anatogen.reporting.results import Score

if TYPE_CHECKING:
    import torch

MEASURES = ("dice_gen_map", "dice_gen_real", "synthetic")
"""The measures that are known by patient."""
_IMAGES, _BATCH = 32, 16


def difference(ours: Score | None, theirs: Score | None) -> Difference | None:
    """`ours` less `theirs`, paired by patient and class; None where one of them has no scores of patients."""
    if ours is None or theirs is None or not ours.per_patient or not theirs.per_patient:
        return None
    patients = [name for name in ours.per_patient if name in theirs.per_patient]
    classes = [name for name in ours.per_class if name in theirs.per_class]
    if not patients or not classes:
        return None
    scores = [np.array([[_number(s, p, c) for c in classes] for p in patients]) for s in (ours, theirs)]
    apart = mean_interval(scores[0] - scores[1], (-1, 1))
    return Difference(mean=apart.value, ci95=apart.ci95)


def _number(score: Score, patient: str, name: str) -> float:
    value = (score.per_patient or {})[patient].get(name)
    return float("nan") if value is None else value


def with_differences(systems: Sequence[Compared], reference: str) -> tuple[Compared, ...]:
    """The systems with their differences to `reference`, and marked where they are really best or second best."""
    first = next(system for system in systems if system.name == reference)
    marks = {measure: marks_of(systems, measure) for measure in MEASURES}
    found = []
    for system in systems:
        apart = {
            measure: each
            for measure in MEASURES
            if system is not first
            and (each := difference(getattr(system, measure), getattr(first, measure))) is not None
        }
        own = {measure: of[system.name] for measure, of in marks.items() if system.name in of}
        found.append(system.model_copy(update={"differences": apart, "marks": own}))
    return tuple(found)


def marks_of(systems: Sequence[Compared], measure: str) -> Mapping[str, Mark]:
    """By name, which system is really better than all others ("best"), and which than all but that ("second").

    Really: the 95 % interval of the difference, paired by patient, is above zero.
    """
    scored = [
        system for system in systems if (score := getattr(system, measure)) is not None and score.mean is not None
    ]
    ranked = sorted(scored, key=lambda system: -getattr(system, measure).mean)
    found: dict[str, Mark] = {}
    places: tuple[Mark, ...] = ("best", "second")
    for place, mark in enumerate(places):
        if len(ranked) < place + 2:
            break
        above, below = ranked[place], ranked[place + 1 :]
        if not all(really_better(difference(getattr(above, measure), getattr(each, measure))) for each in below):
            break
        found[above.name] = mark
    return found


def with_floors(systems: Sequence[Compared], retrieval: str | None, painting: str | None) -> tuple[Compared, ...]:
    """The systems, each that learns with what it does not beat: retrieval in Dice(m_gen, m), painting in realism.

    retrieval, painting: the names of those systems, None where they were not run.
    """
    by_name = {system.name: system for system in systems}
    found = []
    for system in systems:
        sentences = []
        if system.name not in (retrieval, painting) and system.not_run is None:
            nearest, painted = (by_name.get(name) if name else None for name in (retrieval, painting))
            if nearest is not None:
                sentences += below_retrieval(system.name, system.dice_gen_map, nearest.dice_gen_map)
            if painted is not None:
                fids = (each.realism.fid if each.realism is not None else None for each in (system, painted))
                sentences += below_painting(system.name, *fids)
        found.append(system.model_copy(update={"floors": tuple(sentences)}))
    return tuple(found)


def below_retrieval(name: str, ours: Score | None, nearest: Score | None) -> list[str]:
    """A sentence where a model does not follow label maps better than nearest-map retrieval does."""
    apart = difference(ours, nearest)
    if apart is None or apart.mean is None or really_better(apart):
        return []
    if not really_better(difference(nearest, ours)):
        return [
            f"{name} follows the label maps no better than the nearest training image does, as far as these patients "
            f"can tell (Dice {apart.mean:+.3f})."
        ]
    return [f"{name} follows the label maps less than the nearest training image does (Dice {apart.mean:+.3f})."]


def below_painting(name: str, ours: float | None, painted: float | None) -> list[str]:
    """A sentence where images look no more real than painted classes, by FID."""
    if ours is None or painted is None or not np.isfinite([ours, painted]).all() or ours < painted:
        return []
    return [
        f"{name} looks no more real than classes painted with their intensity and texture (FID {ours:.3g}, painted "
        f"{painted:.3g})."
    ]


def cost_of(model: ImageModel, labels: Sequence[np.ndarray]) -> Cost:
    """What `model` took to train, and takes to generate images of `labels`, 32 of them after a batch to warm up."""
    from torch.utils.flop_counter import FlopCounterMode

    from anatogen.labels import ClassStates

    about, states = model.describe(), ClassStates.all_given(model.spec.schema)
    asked = [Query(labels[i % len(labels)].astype(np.int64), states, seed=i) for i in range(_IMAGES)]
    with FlopCounterMode(display=False) as counter:
        next(iter(model.generate(asked[:1])))
    for _ in model.generate(asked[:_BATCH], batch_size=_BATCH):
        pass
    device = _device(model)
    _begin_peak(device)
    start = time.perf_counter()
    for _ in model.generate(asked, batch_size=_BATCH):
        pass
    seconds = time.perf_counter() - start
    return Cost(
        parameters=parameters_of(model),
        training_seconds=about.seconds,
        training_images=about.images,
        gflops=counter.get_total_flops() / 1e9,
        images_per_second=len(asked) / seconds,
        peak_mb=_peak_mb(device),
        device=_named(device),
    )


def parameters_of(model: ImageModel) -> int | None:
    """The parameters of what makes a model's images; 0 where nothing is learned, None where that is not known."""
    if isinstance(model, HasDenoiser):
        return sum(p.numel() for p in model.denoiser.parameters())
    if isinstance(model, HasNetwork):
        return sum(p.numel() for p in model.network.parameters())
    return 0 if model.describe().steps == 0 else None


def _device(model: ImageModel) -> torch.device:
    import torch

    found = getattr(model, "device", None)
    return found if isinstance(found, torch.device) else torch.device("cpu")


def _named(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _begin_peak(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mb(device: torch.device) -> float | None:
    """The device memory in use at most since `_begin_peak`; None on a CPU, where a process gives little back."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def scores_of(report: Any) -> dict[str, Any]:
    """The fields of `Compared` that a report has."""
    faithful, useful = report.faithfulness, report.utility
    return {
        "dice_gen_map": faithful.dice_gen_map if faithful else None,
        "dice_gen_real": faithful.dice_gen_real if faithful else None,
        "synthetic": useful.synthetic if useful else None,
        "both": useful.both if useful else None,
        "reconstruction": report.reconstruction or None,
        "realism": report.realism or None,
        "privacy": report.privacy or None,
        "steps": report.sampling.steps if report.sampling is not None else None,
        "mask_ablation": report.model.mask_ablation if report.model is not None else None,
    }
