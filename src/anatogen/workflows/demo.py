"""`anatogen demo`: from real patients that ship with the package to a report, on any machine, within minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anatogen import __version__
from anatogen.errors import SettingsError
from anatogen.progress import Monitor, stage, watched_by

if TYPE_CHECKING:
    from anatogen.data.store import PreparedDataset
    from anatogen.evaluation.subject import EvaluationSettings
    from anatogen.workflows.evaluate import EvaluateResult

SOURCE = "hippocampus"
GROWN = "anterior"
WIDTH = 32  # at equal time on a CPU far ahead of 64: benchmarks/RESULTS.md, "Width of the demo's network"
_FULL_SPEED = 120.0  # images/s of training from which the auxiliary models are trained in full
_COUNT_WHERE_SLOW = 200


@dataclass(frozen=True)
class DemoRequest:
    """What the demo is to do.

    Attributes:
        out: New folder for everything that it makes.
        training_steps: Optimizer steps, unless the time is over before.
        training_seconds: The longest time to train.
        evaluation: Of the auxiliary models; None adapts their trainings to the speed of this machine, see `paced`.
        count: How many images to sample of each split; None for one of every label map, and at most 200 on a slow
            machine.
        quick: Leave out what the generator itself can do: classes left free, variation, solver steps.
        device: "auto", "cpu", "cuda", ...
        command: The command line, for the report.
    """

    out: Path
    training_steps: int = 2500
    training_seconds: float = 120.0
    evaluation: EvaluationSettings | None = None
    count: int | None = None
    quick: bool = False
    device: str = "auto"
    command: str = ""


@dataclass(frozen=True)
class DemoResult:
    """evaluation: the report and its folder. seconds: each stage's wall-clock time, by name. note: what was
    shortened.
    """

    evaluation: EvaluateResult
    seconds: dict[str, float]
    note: str = ""


def demo(request: DemoRequest, *, monitor: Monitor | None = None) -> DemoResult:
    """Prepare the hippocampi of 80 patients, train on 44 of them, and answer the report's four questions on 16 others.

    Raises SettingsError where `request.out` exists.
    """
    if request.out.exists():
        raise SettingsError("already exists", path=request.out, hint="Remove it or choose another folder with --out")
    began = time.monotonic()
    seconds: dict[str, float] = {}
    with watched_by(monitor):
        dataset = _prepared(request.out / "data")
        seconds["prepare"] = time.monotonic() - began
        speed = _train(dataset, request)
        seconds["train"] = time.monotonic() - began - sum(seconds.values())
        settings = request.evaluation or paced(speed)
        if request.count is None and speed < _FULL_SPEED:
            request = replace(request, count=_COUNT_WHERE_SLOW)
        evaluation = _evaluated(dataset, request, settings)
        seconds["evaluate"] = time.monotonic() - began - sum(seconds.values())
    slow = request.evaluation is None and settings != paced(_FULL_SPEED)
    note = (
        f"This machine trains on {speed:.0f} images/s, so the auxiliary segmenter was trained for "
        f"{settings.segmenter.steps} steps instead of {paced(_FULL_SPEED).segmenter.steps}, and {request.count} images "
        "of each split were made"
    )
    return DemoResult(evaluation, seconds, note if slow else "")


def paced(speed: float) -> EvaluationSettings:
    """The auxiliary models' trainings, shorter where `speed` (images/s of the generator's training) is low.

    So the demo takes minutes on a slow machine, too. At least a third of the segmenter's steps are left: after 400
    steps its Dice on real test patients was 0.82.
    """
    from anatogen.evaluation.subject import EvaluationSettings
    from anatogen.judges.encoder import EncoderSettings
    from anatogen.judges.segmenter import SegmenterSettings

    share = min(1.0, speed / _FULL_SPEED)
    return EvaluationSettings(
        SegmenterSettings(steps=max(400, round(1200 * share))),
        EncoderSettings(steps=max(150, round(400 * share))),
        SegmenterSettings(steps=max(150, round(300 * share))),
    )


def _prepared(out: Path) -> PreparedDataset:
    """Sagittal slices of 64 x 64 pixels; in this process, for starting workers takes longer than the work."""
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.sources import open_source

    source = open_source(SOURCE)
    with stage("preparing", len(source.cases), "cases") as bar:
        return prepare(
            source,
            out,
            PrepareSettings(size=(64, 64), axis="sagittal", workers=1),
            version=__version__,
            progress=lambda done, total: bar.update(done),
        )


def _train(dataset: PreparedDataset, request: DemoRequest) -> float:
    """Trains into the folder `run`; returns the images/s."""
    from anatogen.model import read_about
    from anatogen.training.config import build_settings
    from anatogen.training.train import train

    limits = {"steps": request.training_steps, "max_time_s": request.training_seconds}
    with stage("training", 1.0, "s") as bar:
        train(
            dataset,
            request.out / "run",
            build_settings(values=[f"network.width={WIDTH}"], training=limits),
            device=request.device,
            progress=lambda share, text: bar.update(share, text or None),
        )
    about = read_about(request.out / "run")
    return (about.images or 0) / max(about.seconds or 0.0, 1e-9)


def _evaluated(dataset: PreparedDataset, request: DemoRequest, settings: EvaluationSettings) -> EvaluateResult:
    """The four questions, and a test patient's hippocampus with its anterior part grown."""
    from anatogen.evaluation.counterfactual import grown_class
    from anatogen.generation.engine import Generator
    from anatogen.judges.of_dataset import segmenter_for
    from anatogen.workflows.evaluate import EvaluateRequest, evaluate

    segmenter = segmenter_for(dataset, settings.segmenter, device=request.device)
    generator = Generator.load(request.out / "run", device=request.device)
    edit = grown_class(dataset, generator, dataset.split("test"), GROWN, segmenter)
    return evaluate(
        EvaluateRequest(
            subjects=(request.out / "run",),
            dataset=dataset,
            out=request.out / "report",
            count=request.count,
            settings=settings,
            quick=request.quick,
            figures=(edit,),
            device=request.device,
            command=request.command,
        )
    )
