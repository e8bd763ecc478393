"""Does the model follow the label maps? Previews and Dice on fixed validation maps while it trains."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.device import give_back_memory
from anatogen.errors import AnatogenError, Interrupted, OutputError, SettingsError
from anatogen.files import append, writing
from anatogen.generation.kinds import kind_of, load_model
from anatogen.generation.plan import requests_from_dataset
from anatogen.metrics.overlap import class_means, dice_by_group
from anatogen.model import DENOISER
from anatogen.reporting import figures
from anatogen.reporting.training_page import write_training_page
from anatogen.training.best import Best
from anatogen.training.hooks import Answer, Hook, Moment
from anatogen.training.schedule import decay_from

if TYPE_CHECKING:
    from torch import nn

    from anatogen.judges.segmenter import Segmenter
    from anatogen.model import ImageModel
    from anatogen.training.config import LearnedSettings, TrainingSettings

_log = logging.getLogger(__name__)
_LOOK_EVERY = 5  # steps between two looks at the clock
_FIRST = 20.0  # seconds of training before the first preview
_GROWTH = 0.03  # of the time trained lies at least between two previews, so that days give a few hundred
_BETTER = 0.002  # Dice: a smaller gain is no reason to go on
_SHOWN = 4


class Live:
    """Samples fixed validation maps with fixed noise and the averaged weights now and then.

    Each time it writes `previews/STEP.png` and `training.html` to the run and returns `dice`, `dice/CLASS` and
    `dice_ceiling` (the same auxiliary segmenter on the real images) for metrics.jsonl. It takes no random numbers from
    the training, at most `live.share` of its time, and never ends it: after an error it says so and stays silent.

    Args:
        dataset: The data set that is trained on; its split "val" is shown.
        run: The run's folder.
        settings: Of the run.
        segmenter: Trained on the held-out patients; None leaves the Dice out.
        kind: Of the model that is trained.
        device: Where to sample.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        run: Path,
        settings: LearnedSettings,
        segmenter: Segmenter | None,
        *,
        kind: str = DENOISER,
        device: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind_of(kind)
        self.dataset, self.run, self.settings, self.segmenter, self.device = dataset, run, settings, segmenter, device
        self._clock, self._failed = clock, False
        rows = dataset.split("val")
        count = min(settings.live.maps, len(rows))
        chosen = [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]
        self._real = dataset.load(chosen)
        self._requests = requests_from_dataset(dataset, chosen, dataset.schema.states(), seed=settings.live.seed)
        self._patients = np.array([row.patient for row in chosen])
        self._ceiling = self._dice(self._real.images.numpy()) if segmenter is not None else {}
        self._began = clock()
        self._next = self._began + _FIRST

    def hook(self) -> Hook:
        """What `fit` calls."""
        chooses = self.settings.live.chooses
        return Hook("live", _LOOK_EVERY, self._call, remembered=chooses, last=chooses)

    def show(self, step: int, network: nn.Module) -> Mapping[str, float]:
        """Write the preview of `step`, of a network of the task; returns the measures."""
        assert self._kind.generator is not None
        return self._shown(step, self._kind.generator(network, self.settings, self.device))

    def _shown(self, step: int, generator: ImageModel) -> Mapping[str, float]:
        images = np.stack([image for _, image in generator.generate(self._requests)])
        with writing(self.run / "previews" / f"{step:09d}.png") as path:
            path.write_bytes(self._picture(images))
        measures = self._dice(images) if self.segmenter is not None else {}
        if "dice" in measures and "dice" in self._ceiling:
            measures["dice_ceiling"] = self._ceiling["dice"]
        return measures

    def last(self) -> Path | None:
        """Write the preview and the page of the finished training; returns the page, None where it could not be
        written.
        """
        try:
            model = load_model(self.run, device=self.device)
            about = model.describe()
            measures = self._shown(about.steps or 0, model)
            append(self.run / "metrics.jsonl", (json.dumps({"step": about.steps or 0, **measures}) + "\n").encode())
            return write_training_page(self.run, finished=True)
        except Interrupted:
            raise
        except (AnatogenError, OSError, RuntimeError, ValueError) as error:
            _log.warning("the last preview was not written: %s", error)
            return None

    def _call(self, moment: Moment) -> Answer:
        if self._is_enough(moment):
            return "finish"
        now = self._clock()
        if self._failed or (now < self._next and moment.share < 1):
            return None
        try:
            model = moment.model()
            measures = self.show(moment.step, model)
            self._choose(moment, measures, model)
            write_training_page(self.run)
        except Interrupted:
            raise
        except OutputError as error:  # the disk is full, which may pass
            measures = {}
            _log.warning("the preview of step %d was not written: %s", moment.step, error)
        except (AnatogenError, OSError, RuntimeError, ValueError) as error:
            self._failed = True
            _log.warning("there will be no more previews: %s", error)
            return None
        finally:
            give_back_memory()
        after = self._clock()
        wait = max((after - now) / self.settings.live.share, _GROWTH * (after - self._began), _FIRST)
        self._next = after + wait
        return measures

    def _choose(self, moment: Moment, measures: Mapping[str, float], model: nn.Module) -> None:
        """Keep the best weights where that is wanted, and count the previews without a better Dice."""
        if not self.settings.live.chooses or (dice := measures.get("dice")) is None:
            return
        best = Best.of(self.run)
        if best is None or dice > best.dice:
            Best(step=moment.step, dice=dice).keep(self.run, model.state_dict())
        memory = moment.memory
        if dice > memory.get("dice", 0.0) + _BETTER:
            memory |= {"dice": dice, "without": 0}
        else:
            memory["without"] = memory.get("without", 0) + 1

    def _is_enough(self, moment: Moment) -> bool:
        """Whether so many previews in a row were no better that the training has to be finished; says so once."""
        patience, memory = self.settings.live.patience, moment.memory
        if memory.get("finishing") and moment.share < (decay_from(self.settings.training) or 0):
            memory |= {"finishing": False, "without": 0}  # the finished training was extended
        if patience is None or memory.get("without", 0) < patience or memory.get("finishing"):
            return False
        memory["finishing"] = True
        _log.info("no better Dice in %d previews: the learning rate decays now, then the training ends", patience)
        return True

    def _dice(self, images: NDArray[np.float32]) -> dict[str, float]:
        """Mean Dice of the classes, and that of each, between what the segmenter finds and the label maps."""
        assert self.segmenter is not None
        schema = self.dataset.schema
        scores = dice_by_group(
            self.segmenter(images),
            self._real.truth.numpy(),
            self._patients,
            schema.count,
            self._real.annotated.numpy(),
        )
        of_classes = class_means(scores, axis=0)
        found = {f"dice/{name}": float(value) for name, value in zip(schema.names, of_classes, strict=True)}
        found = {"dice": float(class_means(of_classes, axis=0))} | found
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def _picture(self, images: NDArray[np.float32]) -> bytes:
        """PNG: a line a label map: the map, the generated image, the same with the map outlined, and the real image."""
        schema, spacing, lines = self.dataset.schema, typical_spacing(self.dataset), []
        labels, real = self._real.labels.numpy(), self._real.images.numpy()
        for i in range(min(_SHOWN, len(images))):
            view = figures.view_of(labels[i], spacing)
            lines.append(
                [
                    ("label map", figures.coloured(labels[i], schema, view)),
                    ("generated", figures.gray(images[i], view)),
                    ("with the map", figures.outlined(images[i], labels[i], schema, view)),
                    ("real", figures.gray(real[i], view)),
                ]
            )
        return figures.grid(lines)


def live_for(
    dataset: PreparedDataset,
    run: Path,
    settings: LearnedSettings,
    *,
    kind: str = DENOISER,
    device: str,
    clock: Callable[[], float] = time.monotonic,
) -> Live | None:
    """The previews of a training, where `settings.live` and the data set allow them; trains the segmenter where it is
    wanted.

    With `live.dice: auto` the segmenter is used where the data set has one already, or where the training is a long one
    (over 2,000 steps, or ten minutes): training it takes minutes on a CPU.
    """
    missing = {"val", "heldout"} - set(dataset.split_names)
    if settings.live.chooses and missing:
        split = " and ".join(sorted(missing))
        problem = f"has no split {split}, so the Dice of previews cannot choose the model (live.best, live.patience)"
        raise SettingsError(problem, path=dataset.folder, hint="Leave these settings out")
    if not _shows(dataset, settings):
        return None
    segmenter = _segmenter(dataset, settings, device)
    return Live(dataset, run, settings, segmenter, kind=kind, device=device, clock=clock)


def would_train_segmenter(dataset: PreparedDataset, settings: LearnedSettings) -> bool:
    """Whether a training with these settings trains the auxiliary segmenter first."""
    from anatogen.judges.of_dataset import has_segmenter

    return _shows(dataset, settings) and _wants_segmenter(dataset, settings) and not has_segmenter(dataset)


def _shows(dataset: PreparedDataset, settings: LearnedSettings) -> bool:
    """Whether there are previews: of the split "val"."""
    return settings.live.previews and "val" in dataset.split_names


def _wants_segmenter(dataset: PreparedDataset, settings: LearnedSettings) -> bool:
    """Whether the Dice of the previews is wanted, also if the segmenter has to be trained for it."""
    live = settings.live
    if live.dice == "never" or "heldout" not in dataset.split_names:
        return False
    return live.chooses or live.dice == "always" or _is_long(settings.training)


def _segmenter(dataset: PreparedDataset, settings: LearnedSettings, device: str) -> Segmenter | None:
    from anatogen.judges.of_dataset import has_segmenter, segmenter_for

    if settings.live.dice == "never" or "heldout" not in dataset.split_names:
        return None
    if _wants_segmenter(dataset, settings) or has_segmenter(dataset):
        return segmenter_for(dataset, device=device)
    return None


def _is_long(how: TrainingSettings) -> bool:
    """Whether no limit ends the training within 2,000 steps or ten minutes."""
    few_steps = how.steps is not None and how.steps <= 2000
    short = how.max_time_s is not None and how.max_time_s < 600
    few_epochs = how.epochs is not None and how.epochs <= 5
    return not (few_steps or short or few_epochs)
