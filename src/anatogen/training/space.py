"""The space on disk that a training will take."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from anatogen.errors import OutputError, SettingsError
from anatogen.training.snapshots import MOST
from anatogen.training.task import Phase

_log = logging.getLogger(__name__)
_MB, _GB = 2**20, 10**9


def checkpoint_bytes(phases: Sequence[Phase]) -> int:
    """The size of a checkpoint: weights, their moments, and their averages."""
    averages = sum(_weight_bytes(phase) for phase in phases if phase.average is not None)
    own = sum(_weight_bytes(phase) + _moment_bytes(phase) for phase in phases)
    return own + averages + _power_average_bytes(phases)


def snapshot_bytes(phases: Sequence[Phase]) -> int:
    """The size of the most snapshots of power-function averages that a run holds, in half precision."""
    return (MOST + 1) * _power_average_bytes(phases) // 2


def _weight_bytes(phase: Phase) -> int:
    return sum(p.numel() * p.element_size() for p in phase.module.parameters())


def _moment_bytes(phase: Phase) -> int:
    """Of the optimizer: one of each weight that Muon steps, two of the others, by Adam."""
    groups = phase.optimizer.param_groups
    return sum(
        (1 if group.get("matrices") else 2) * p.numel() * p.element_size() for group in groups for p in group["params"]
    )


def _power_average_bytes(phases: Sequence[Phase]) -> int:
    return sum(_weight_bytes(phase) * len(phase.power_averages.weights) for phase in phases if phase.power_averages)


def run_bytes(phases: Sequence[Phase], kept: int) -> int:
    """The most that a run takes with `kept` checkpoints.

    One more is written before the oldest is removed, one stays from before the decay, and then there are the model and
    snapshots of averages.
    """
    return (kept + 3) * checkpoint_bytes(phases) + snapshot_bytes(phases)


def kept_within(phases: Sequence[Phase], kept: int, gigabytes: float | None) -> int:
    """How many checkpoints can be kept, at most `kept`, with a run of at most so many GB.

    Raises:
        SettingsError: Not even one can be kept.
    """
    if gigabytes is None:
        return kept
    fitting = next((n for n in range(kept, 0, -1) if run_bytes(phases, n) <= gigabytes * _GB), None)
    if fitting is None:
        least = run_bytes(phases, 1) / _GB
        hint = "Give more, or use a smaller network"
        raise SettingsError(f"training.disk_gb is {gigabytes:g}, and a run takes up to {least:.2g} GB", hint=hint)
    return fitting


def check_space(out: Path, phases: Sequence[Phase], kept: int) -> None:
    """Compare what the training will write to `out` with what is free there; `kept` checkpoints are kept.

    Where only some fit, a warning is logged: later saves may fail, which ends nothing.

    Raises:
        OutputError: Not even one checkpoint fits.
    """
    folder = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    one, free = checkpoint_bytes(phases), shutil.disk_usage(folder).free
    if free < one:
        problem = f"a checkpoint takes {one / _MB:.0f} MB, and {free / _MB:.0f} MB are free"
        raise OutputError(problem, path=out, hint="Free space, or choose another folder")
    if free < (needed := run_bytes(phases, kept)):
        _log.warning(
            "%s: checkpoints and model take up to %.0f MB, and %.0f MB are free; lower training.checkpoints_kept (%d), "
            "or free space",
            out,
            needed / _MB,
            free / _MB,
            kept,
        )
