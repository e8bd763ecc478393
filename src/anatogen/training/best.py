"""The best averaged weights so far by a measure of the validation images, kept beside a training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from anatogen.errors import AnatogenError
from anatogen.files import writing
from anatogen.io.tensors import read_tensors, write_tensors
from anatogen.model import read_about
from anatogen.settings import Document

_NAME = "best.json"


class Best(Document):
    """best.json: the step of the weights in best-STEP.safetensors, and their mean validation Dice."""

    HINT: ClassVar[str] = "Remove it"

    step: int
    dice: float

    @classmethod
    def of(cls, run: Path) -> Best | None:
        """That of a run; None if there is none, or its file is damaged."""
        try:
            found = cls.read(run / _NAME)
        except (AnatogenError, OSError):
            return None
        return found if (run / found.file).is_file() else None

    @property
    def file(self) -> str:
        """The name of the file of the weights."""
        return f"best-{self.step:09d}.safetensors"

    def keep(self, run: Path, weights: Mapping[str, Tensor]) -> None:
        """Write `weights` and this document to the run, then remove what was best before."""
        with writing(run / self.file) as path:
            write_tensors(path, weights)
        self.write(run / _NAME)
        for old in run.glob("best-*.safetensors"):
            if old.name != self.file:
                old.unlink(missing_ok=True)

    def weights(self, run: Path) -> dict[str, Tensor]:
        """The weights, on the CPU."""
        return read_tensors(run / self.file)


def forget_best(run: Path) -> None:
    """Remove what `Best.keep` wrote."""
    for file in (run / _NAME, *run.glob("best-*.safetensors")):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def recall_best(run: Path) -> None:
    """Take the best weights back from the model that they became, for a training that goes on after it was finished."""
    if Best.of(run) is not None or not (run / "model.json").is_file():
        return
    about = read_about(run)
    if about.selected_step is None or about.selected_dice is None:
        return
    Best(step=about.selected_step, dice=about.selected_dice).keep(run, read_tensors(run / "model.safetensors"))
