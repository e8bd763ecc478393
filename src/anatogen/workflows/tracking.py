"""Weights & Biases and MLflow: what a training writes to its run is sent to them, offline too.

They follow metrics.jsonl and previews/, so a tracker that fails, or is not reached, costs the training nothing. A
resume continues the tracker's own run, whose id is kept in tracking.json.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from anatogen.errors import AnatogenError, SettingsError, nearest
from anatogen.settings import Document
from anatogen.training.hooks import Hook, Moment

if TYPE_CHECKING:
    from anatogen.training.config import LearnedSettings

_log = logging.getLogger(__name__)
_LOOK_EVERY = 10  # steps
_EVERY_S = 15.0
_NAME = "tracking.json"
_INSTALL = "pip install 'anatogen[trackers]'"


class Sent(Document):
    """tracking.json: for each tracker the id of its run, and what it has.

    step, of_step: The last step, and how many lines of it were sent. preview: The name of the last one.
    """

    ids: dict[str, str] = Field(default_factory=dict)
    step: int = -1
    of_step: int = 0
    preview: str = ""


class Tracker(Protocol):
    """A service, or its files, that keeps the numbers and pictures of a run."""

    id: str

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of a step."""
        ...

    def picture(self, step: int, path: Path) -> None:
        """Keep a preview."""
        ...

    def close(self, *, finished: bool) -> None:
        """End the session."""
        ...


class WandB:
    """A run of Weights & Biases; in RUN/wandb, to be sent later, where no account is known."""

    def __init__(self, run: Path, settings: Mapping[str, Any], id: str | None) -> None:
        import wandb

        self.id = id or secrets.token_hex(4)
        offline = "WANDB_MODE" not in os.environ and not wandb.api.api_key
        self._picture = wandb.Image
        self._run = wandb.init(
            project="anatogen",
            name=run.resolve().name,
            id=self.id,
            resume="allow",
            dir=str(run),
            config=dict(settings),
            mode="offline" if offline else None,
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        """See `Tracker`."""
        self._run.log({"preview": self._picture(str(path))}, step=step)

    def close(self, *, finished: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if finished else 1, quiet=True)


class MLflow:
    """A run of MLflow; in RUN/mlflow.db and RUN/mlruns, where MLFLOW_TRACKING_URI does not name a server."""

    def __init__(self, run: Path, settings: Mapping[str, Any], id: str | None) -> None:
        from mlflow.tracking import MlflowClient

        folder = run.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
        if id is not None:
            self.id = id
            return
        place = None if uri else (folder / "mlruns").as_uri()
        known = self._client.get_experiment_by_name("anatogen")
        experiment = known.experiment_id if known else self._client.create_experiment("anatogen", place)
        self.id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for name, value in _flat(settings):
            self._client.log_param(self.id, name, value)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._client.log_metric(self.id, name, value, step=step)

    def picture(self, step: int, path: Path) -> None:  # noqa: ARG002
        """See `Tracker`."""
        self._client.log_artifact(self.id, str(path), "previews")

    def close(self, *, finished: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], str | None], Tracker]] = {"wandb": WandB, "mlflow": MLflow}


class Tracking:
    """Sends what is new in a run's metrics.jsonl and previews/ to trackers.

    Args:
        run: The run's folder.
        settings: Of the run, for the trackers' records.
        names: Of TRACKERS.

    Raises:
        SettingsError: A tracker is not installed.
    """

    def __init__(self, run: Path, settings: LearnedSettings, names: Sequence[str]) -> None:
        for name in names:
            _require(name)
        self.run, self._settings, self._names = run, settings.model_dump(mode="json"), tuple(names)
        self._trackers: dict[str, Tracker] = {}
        self._sent = Sent()
        self._begun = False
        self._next = 0.0

    def hook(self) -> Hook:
        """What `fit` calls."""
        return Hook("tracking", _LOOK_EVERY, self._call, remembered=False, last=True)

    def send(self) -> None:
        """Send what is new."""
        self._begin()
        lines = list(_new_lines(self.run / "metrics.jsonl", self._sent))
        previews = sorted((self.run / "previews").glob("[0-9]*.png"))
        pictures = [path for path in previews if path.stem > self._sent.preview]
        for step, values in lines:
            self._each(lambda tracker, step=step, values=values: tracker.numbers(step, values))
        for path in pictures:
            self._each(lambda tracker, path=path: tracker.picture(int(path.stem), path))
        if pictures:
            self._sent = self._sent.model_copy(update={"preview": pictures[-1].stem})
        if lines:
            last = lines[-1][0]
            before = self._sent.of_step if self._sent.step == last else 0
            now = before + sum(step == last for step, _ in lines)
            self._sent = self._sent.model_copy(update={"step": last, "of_step": now})
        if lines or pictures:
            self._keep()

    def close(self, *, finished: bool) -> None:
        """Send the rest, and end the trackers' sessions."""
        if self._begun or finished:
            self.send()
        self._each(lambda tracker: tracker.close(finished=finished))
        self._trackers = {}

    def _call(self, moment: Moment) -> None:
        now = time.monotonic()
        if now >= self._next or moment.share >= 1:
            self._next = now + _EVERY_S
            self.send()

    def _begin(self) -> None:
        """Begin the trackers' runs, or continue those of the training that is resumed."""
        if self._begun:
            return
        self._begun = True
        with suppress(AnatogenError, OSError):
            self._sent = Sent.read(self.run / _NAME)
        for name in self._names:
            try:
                self._trackers[name] = TRACKERS[name](self.run, self._settings, self._sent.ids.get(name))
            except Exception as error:  # whatever a service raises may not end a training
                _warn(name, error)
        ids = {name: tracker.id for name, tracker in self._trackers.items()}
        self._sent = self._sent.model_copy(update={"ids": {**self._sent.ids, **ids}})
        self._keep()

    def _keep(self) -> None:
        try:
            self._sent.write(self.run / _NAME)
        except AnatogenError as error:
            _log.warning("%s", error)

    def _each(self, call: Any) -> None:
        """`call` each tracker; one that fails is left out from then on."""
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                _warn(name, error)
                del self._trackers[name]


def _require(name: str) -> None:
    """Raise SettingsError where there is no tracker `name`, or it is not installed; it is not loaded."""
    from importlib.util import find_spec

    if name not in TRACKERS:
        raise SettingsError(f"there is no tracker '{name}'", hint=nearest(name, TRACKERS))
    if find_spec(name) is None:
        raise SettingsError(f"{name} is not installed", hint=f"Install it with: {_INSTALL}")


def _warn(name: str, error: Exception) -> None:
    _log.warning("%s gets nothing more of this training: %s", name, " ".join(str(error).split())[:200])


def _new_lines(path: Path, sent: Sent) -> Iterator[tuple[int, dict[str, float]]]:
    """The step and the numbers of each whole line that was not sent yet."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    of_step = 0
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            of_step += values["step"] == sent.step
            if values["step"] > sent.step or (values["step"] == sent.step and of_step > sent.of_step):
                numbers = {name: v for name, v in values.items() if isinstance(v, int | float) and name != "step"}
                yield int(values["step"]), numbers


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
