"""Snapshots of power-function averages in a run, and the average of any length that they give."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anatogen.errors import ModelError, OutputError, SettingsError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.training.hooks import Hook, Moment
from anatogen.training.power_average import LONGEST, PowerAverages, Profile, combination, exponent_of

_log = logging.getLogger(__name__)
AVERAGES = "averages"  # the folder of the snapshots
MOST = 16  # snapshots at a time; at least half as many, except at the beginning
_FIRST = 16  # steps between the first snapshots
_FARTHEST = 0.25  # of the profile from the wanted one


def interval_at(step: int) -> int:
    """The steps between the snapshots that are kept at `step`: it doubles when there would be more than MOST."""
    interval = _FIRST
    while step > MOST * interval:
        interval *= 2
    return interval


def snapshot_hook(averages: PowerAverages, run: Path) -> Hook:
    """Keeps snapshots of `averages` in the folder `run`. A full disk does not end the training."""

    def call(moment: Moment) -> None:
        if moment.share >= 1 or moment.step % interval_at(moment.step) == 0:
            try:
                save_snapshot(run, moment.step, averages)
            except OutputError as error:
                _log.warning("the snapshot of the averages at step %d was not saved: %s", moment.step, error)

    return Hook("averages", _FIRST, call, remembered=False, last=True)


def save_snapshot(run: Path, step: int, averages: PowerAverages) -> None:
    """Write the averages at `step` in half precision, then remove snapshots that are no longer kept.

    Which ones are kept depends on the step only, so a resumed training keeps the same.
    """
    tensors = {
        f"{length}/{name}": value.half()
        for length, weights in averages.weights.items()
        for name, value in weights.items()
    }
    with writing(run / AVERAGES / f"{step:09d}.safetensors") as path:
        write_tensors(path, tensors)
    for other, file in _snapshots(run).items():
        if other > step or (other < step and other % interval_at(step)):
            with suppress(OSError):
                file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Averaged:
    """An average of the weights of a training.

    Attributes:
        weights: In float32.
        step: The last step that counts.
        error: The L2 distance between the profile and that of the wanted length, relative to its norm.
        snapshots: Number of files that it was made from.
    """

    weights: Mapping[str, Tensor]
    step: int
    error: float
    snapshots: int


def average_of(run: Path, length: float) -> Averaged:
    """The power-function average of `length`, up to the last snapshot in the folder `run`.

    Args:
        run: The folder of a run with snapshots.
        length: The standard deviation of the profile, as a share of the training up to there (sigma_rel).

    Raises:
        SettingsError: There is no such length, or the snapshots do not give it.
        ModelError: There are no snapshots, or one is damaged.
    """
    if not 0 < length < LONGEST:
        raise SettingsError(f"the length must be above 0 and below {LONGEST:.3f}, got {length:g}")
    files = _snapshots(run)
    if not files:
        hint = "Train with --set training.power_averages=true"
        raise ModelError("holds no snapshots of power-function averages", path=run, hint=hint)
    profiles = {}
    for step, file in files.items():
        for tracked in {float(name.split("/")[0]) for name in _read(file)}:
            profiles[step, tracked] = Profile(step, exponent_of(tracked))
    last = max(files)
    factors, error = combination(list(profiles.values()), Profile(last, exponent_of(length)))
    if error > _FARTHEST:
        raise SettingsError(
            f"the snapshots do not give an average of length {length:g} (the profile would be off by {error:.0%})",
            path=run,
            hint="Choose a length nearer to 0.05 to 0.1",
        )
    total: dict[str, Tensor] = {}
    share = dict(zip(profiles, factors.tolist(), strict=True))
    for step, file in files.items():
        for name, value in _read(file).items():
            of_length, weight = name.split("/", 1)
            part = value.double() * share[step, float(of_length)]
            total[weight] = total[weight] + part if weight in total else part
    return Averaged({name: value.to(torch.float32) for name, value in total.items()}, last, error, len(files))


def _snapshots(run: Path) -> dict[int, Path]:
    """The snapshots in `run`, by step."""
    files = sorted((run / AVERAGES).glob("*.safetensors"))
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"is damaged ({error})", path=file, hint="Remove it: the other snapshots remain") from error
