"""Volumes stacked from the slices of a slice model: the cheap baseline of a model of volumes.

Every slice starts from the same noise, and meets the same noise at each step of the solver, so that neighbours whose
label maps are alike look alike. Nothing else makes them agree.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import typical_spacing
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, ModelError, SettingsError
from anatogen.files import writing
from anatogen.generation.engine import Generator
from anatogen.model import AboutModel, ModelSpec, Q, Query, RunDocument, read_run
from anatogen.sampling import SamplingSettings

STACKED = "stacked"
_SLICES = "slices"
_FILES = ("model.json", "model.safetensors")


class StackedDocument(RunDocument):
    """model.json of stacked slices; the slice model lies in the folder "slices" beside it.

    Attributes:
        size: (D, H, W) of the volumes.
    """

    HINT: ClassVar[str] = "Make it again: anatogen train VOLUMES --model stacked --from SLICE_RUN --out RUN"

    kind: Literal["stacked"] = "stacked"
    size: tuple[int, int, int]


class StackedSlices:
    """Makes a volume slice by slice, axial ones, with one noise for all slices.

    Args:
        slices: The model of axial slices (H, W).
        about: What is known of it.
        size: (D, H, W).
        run: The name of its folder.
    """

    def __init__(self, slices: Generator, about: AboutModel, size: tuple[int, ...], *, run: str = "") -> None:
        self.slices, self.about, self.size, self.run = slices, about, size, run
        self.digest = slices.digest

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> StackedSlices:
        """The model in a run folder. Raises ModelError where there is none."""
        run = Path(run)
        try:
            document = StackedDocument.read(run / "model.json")
        except DataError as error:
            raise ModelError(error.problem, path=error.path, hint=error.hint) from error
        slices = Generator.load(run / _SLICES, device=device)
        return cls(slices, document.about, document.size, run=run.resolve().name)

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        own = self.slices.spec
        return ModelSpec(
            own.schema,
            self.size,
            self.about.axis,
            self.about.spacing_mm,
            own.values,
            channels=own.channels,
            sees_labels=own.sees_labels,
            takes_free=own.takes_free,
            attributes=own.attributes,
        )

    @property
    def settings(self) -> SamplingSettings:
        """How slices are sampled."""
        return self.slices.settings

    def describe(self) -> AboutModel:
        """What is known of it."""
        return self.about

    def with_settings(self, **changes: Any) -> SamplingSettings:
        """The settings with `changes`. Raises SettingsError for a value out of range."""
        return self.slices.with_settings(**changes)

    def sampling_with(self, settings: SamplingSettings) -> Self:
        """The same model with other sampling settings."""
        other = copy.copy(self)
        other.slices = self.slices.sampling_with(settings)
        return other

    def generate(self, asked: Iterable[Q], *, batch_size: int = 16) -> Iterator[tuple[Q, NDArray[np.float32]]]:
        """Each query with its volume (C, D, H, W) in [-1, 1], in their order; `batch_size` slices at a time."""
        for query in asked:
            lines = [_slice_of(query, number) for number in range(len(query.labels))]
            made = [image for _, image in self.slices.generate(lines, batch_size=batch_size)]
            yield query, np.stack(made, axis=1)


def make_stacked(dataset: PreparedDataset, out: Path, source: Path | None) -> AboutModel:
    """Write a model that stacks the slices of the run `source` to volumes as in `dataset`; returns what is known of it.

    Raises:
        SettingsError: There is no `source`, or it is no model of such slices.
    """
    if source is None:
        raise SettingsError("stacked slices need a run of slices", hint="Name it: --from SLICE_RUN")
    if len(dataset.size) != 3:
        raise SettingsError("is a data set of slices", path=dataset.folder, hint="Prepare volumes: --dim 3")
    found = read_run(source)
    if found.kind != "denoiser":
        raise SettingsError(f"is a run of the model {found.kind}", path=source, hint="Name a run of the denoiser")
    spec = Generator.load(source, device="cpu").spec
    needed = (dataset.size[1:], "axial", dataset.channels)
    if (spec.size, spec.axis or "axial", spec.channels) != needed or spec.schema.names != dataset.schema.names:
        own, side = "x".join(map(str, spec.size)), "x".join(map(str, dataset.size[1:]))
        raise SettingsError(
            f"makes {spec.axis or 'axial'} slices of {own} with {', '.join(spec.schema.names)}, the volumes are stacks "
            f"of axial ones of {side} with {', '.join(dataset.schema.names)}",
            path=source,
            hint=f"Train it on the same source, prepared with --size {side} --axis axial",
        )
    about = found.about.model_copy(update={"axis": "volume", "spacing_mm": typical_spacing(dataset)})
    for name in _FILES:
        with writing(out / _SLICES / name) as path:
            shutil.copyfile(source / name, path)
    StackedDocument(size=dataset.size, about=about).write(out / "model.json")  # type: ignore[arg-type]
    return about


def _slice_of(query: Query, number: int) -> Query:
    region = None if query.region is None else query.region[number]
    more = {"attributes": query.attributes, "region": region, "elsewhere": query.elsewhere}
    return Query(query.labels[number], query.states, query.seed, **more)  # type: ignore[arg-type]
