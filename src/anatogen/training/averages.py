"""Averages of the weights whose length is chosen after the training (Karras et al. 2024, section 3 and appendix C).

An average with a power-function profile weights step tau of t in proportion to tau^gamma. Its length is the standard
deviation of that profile relative to t. From snapshots of a few such averages any other one can be approximated: its
profile is the least-squares combination of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from anatogen.errors import ModelError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.training.hooks import Hook, Moment

FOLDER = "averages"
_SNAPSHOTS = 8  # at equal shares of a training


def exponent_of(length: float) -> float:
    """gamma of the profile of a relative `length` in (0, 0.28): that of its standard deviation."""

    def too_long(gamma: float) -> float:
        return (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5) - length

    return float(optimize.brentq(too_long, 0.0, 1e6))


class PowerAverages:
    """Averages of a module's weights in float32, one for each of `lengths`."""

    def __init__(self, module: nn.Module, lengths: Sequence[float]) -> None:
        self.lengths, self.updates = tuple(lengths), 0
        self.weights = {
            length: {name: value.detach().clone() for name, value in module.state_dict().items()} for length in lengths
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the averages with the weights of `module`: step t keeps (1 - 1/t)^(gamma + 1) of them."""
        self.updates += 1
        targets = list(module.state_dict().values())
        for length, weights in self.weights.items():
            kept = (1 - 1 / self.updates) ** (exponent_of(length) + 1)
            torch._foreach_lerp_(list(weights.values()), targets, 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """The weights by length, and the number of updates."""
        return {"updates": self.updates, "weights": {f"{length:g}": w for length, w in self.weights.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state`, in place."""
        self.updates = state["updates"]
        for length, weights in self.weights.items():
            for name, tensor in weights.items():
                tensor.copy_(state["weights"][f"{length:g}"][name])


def snapshots(run: Path, averages: PowerAverages) -> Hook:
    """A hook that writes `averages` to run/averages at equal shares of the training and at its end, in float16."""

    def call(moment: Moment) -> None:
        due = int(moment.share * _SNAPSHOTS)
        if due <= moment.memory.get("written", 0):
            return
        for length, weights in averages.weights.items():
            with writing(run / FOLDER / f"{averages.updates:09d}-{length:g}.safetensors") as path:
                write_tensors(path, {name: value.half() for name, value in weights.items()})
        moment.memory["written"] = due

    return Hook("averages", 1, call, last=True)


def averaged(run: Path, length: float) -> dict[str, Tensor]:
    """The average of a relative `length` at the end of the training of `run`, from its snapshots.

    Raises:
        ModelError: There are none, or their average would be mostly extrapolated.
    """
    files = sorted((run / FOLDER).glob("[0-9]*-*.safetensors"))
    if not files:
        hint = "Train with --set training.average_lengths=[0.05,0.1]"
        raise ModelError("holds no snapshots of averages", path=run, hint=hint)
    ends = np.array([int(file.stem.partition("-")[0]) for file in files], dtype=float)
    lengths = np.array([float(file.stem.partition("-")[2]) for file in files])
    if not lengths.min() / 2 <= length <= 2 * lengths.max():
        asked = f"the snapshots are of lengths {lengths.min():g} to {lengths.max():g}"
        raise ModelError(f"{asked}, too far from {length:g}", path=run, hint="Choose a length near these")
    shares = combination(ends, lengths, ends.max(), length)
    found: dict[str, Tensor] = {}
    for file, share in zip(files, shares, strict=True):
        for name, value in read_tensors(file).items():
            found[name] = found.get(name, torch.zeros_like(value, dtype=torch.float32)) + float(share) * value.float()
    return found


def combination(
    ends: NDArray[np.float64], lengths: NDArray[np.float64], end: float, length: float
) -> NDArray[np.float64]:
    """The weight of each profile (its last step and length) in the one of `length` that ends at step `end`: the
    least-squares combination of the profiles.
    """
    gammas = np.array([exponent_of(each) for each in lengths])
    of_pairs = _overlap(ends[:, None], gammas[:, None], ends[None, :], gammas[None, :])
    of_goal = _overlap(ends, gammas, np.array(end), np.array(exponent_of(length)))
    return np.asarray(np.linalg.lstsq(of_pairs, of_goal, rcond=1e-12)[0], dtype=np.float64)


def _overlap(
    end_a: NDArray[np.float64], gamma_a: NDArray[np.float64], end_b: NDArray[np.float64], gamma_b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The integral of the product of two profiles (gamma + 1) tau^gamma / end^(gamma + 1), each zero after its end."""
    last = np.minimum(end_a, end_b)
    powers = (last / end_a) ** gamma_a * (last / end_b) ** gamma_b * last / (end_a * end_b)
    overlap: NDArray[np.float64] = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * powers
    return overlap
