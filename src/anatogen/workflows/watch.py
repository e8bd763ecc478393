"""Looking at a training from outside: what it has written so far, read again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anatogen.errors import ModelError

Status = Literal["training", "stopped", "finished"]


@dataclass(frozen=True)
class TrainingView:
    """A training at one moment. None: not known (yet).

    Attributes:
        status: "stopped": no process is training, and the training is not finished.
        step: Steps done.
        share: Of the training, in [0, 1].
        seconds: Of training so far.
        left: Seconds that are left at the present pace.
        images_per_s: Of the last line of metrics.jsonl.
        loss: (step, loss) pairs.
        dice: (step, mean Dice of the previews) pairs.
        dice_of_classes: The last Dice of each class.
        ceiling: The Dice that real images reach.
        preview: The last preview.
    """

    run: Path
    status: Status
    step: int
    share: float | None
    seconds: float | None
    left: float | None
    images_per_s: float | None
    loss: tuple[tuple[int, float], ...]
    dice: tuple[tuple[int, float], ...]
    dice_of_classes: dict[str, float]
    ceiling: float | None
    preview: Path | None


def view_of(run: Path) -> TrainingView:
    """The training in the folder `run` now. Raises ModelError where there is none."""
    from anatogen.files import is_locked
    from anatogen.reporting.training_page import read_metrics, series

    if not (run / "config.yaml").is_file():
        raise ModelError(
            "is not a run" if run.exists() else "does not exist",
            path=run,
            hint="Name the folder that anatogen train writes to",
        )
    lines = read_metrics(run)
    last = lines[-1] if lines else {}
    share = next((line["share"] for line in reversed(lines) if line.get("share") is not None), None)
    seconds = next((line["seconds"] for line in reversed(lines) if line.get("seconds") is not None), None)
    with_dice: dict[str, Any] = next((line for line in reversed(lines) if "dice" in line), {})
    previews = sorted((run / "previews").glob("*.png"))
    return TrainingView(
        run,
        "training" if is_locked(run) else "finished" if _finished(run) else "stopped",
        int(last.get("step", 0)),
        share,
        seconds,
        seconds * (1 - share) / share if share and seconds is not None else None,
        next((line["images_per_s"] for line in reversed(lines) if line.get("images_per_s")), None),
        tuple(series(lines, "loss")),
        tuple(series(lines, "dice")),
        {name.removeprefix("dice/"): value for name, value in with_dice.items() if name.startswith("dice/")},
        with_dice.get("dice_ceiling"),
        previews[-1] if previews else None,
    )


def watch(run: Path, *, every: float = 2.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[TrainingView]:
    """Views of a training, one every `every` seconds, until no process trains any more; at least one."""
    while True:
        view = view_of(run)
        yield view
        if view.status != "training":
            return
        sleep(every)


def _finished(run: Path) -> bool:
    from anatogen.model import read_about

    try:
        return read_about(run).finished and not any((run / "checkpoints").glob("[0-9]*.json"))
    except ModelError:
        return False
