"""What a sample set records: the header, put together in one place, and each image's files with its line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anatogen import __version__
from anatogen.conditioning.attributes import AttributeSchema
from anatogen.files import writing
from anatogen.generation.formats import Format, Maker
from anatogen.generation.header import AboutModel, Ask, GateSettings, Header
from anatogen.generation.ledger import Ledger
from anatogen.generation.manifest import Line, RejectedLine
from anatogen.generation.rejection import Gate, Outcome
from anatogen.generation.request import Request, asked_of
from anatogen.model import HasSteps, ImageModel
from anatogen.settings import command_of_process


def header_of(
    model: ImageModel,
    requests: Sequence[Request],
    image_format: str,
    gate: GateSettings | None = None,
    command: str | None = None,
) -> Header:
    """What a set of `requests` says of its making; the one place where this is put together."""
    spec = model.spec
    about, asked = AboutModel.of(model.describe().record()), asked_of(requests)
    named = about.channels if about.channels is not None and len(about.channels) == spec.channels else None
    return Header(
        version=__version__,
        command=command_of_process() if command is None else command,
        model=model.digest,
        run=model.run,
        classes=tuple((c.name, c.colour) for c in spec.schema.classes),
        channels=named or _channel_names(spec.channels),
        sees_labels=spec.sees_labels,
        real_patients=spec.real_patients or asked.margin is not None,  # counterfactuals are real beyond it
        image_format=image_format,
        sampling=model.settings if isinstance(model, HasSteps) else None,
        request=asked,
        gate=gate,
        about_model=about,
        asks=(Ask(per_mask=asked.per_mask, count=asked.count, images=len(requests)),),
    )


def _channel_names(count: int) -> tuple[str, ...]:
    return ("image",) if count == 1 else tuple(f"channel {c + 1}" for c in range(count))


def gate_settings(gates: Sequence[Gate], retries: int) -> GateSettings:
    """What the header holds of all `gates` together."""
    found = GateSettings(retries=retries)
    for gate in gates:
        found = found.joined(gate.settings)
    return found


@dataclass(frozen=True)
class ImageFiles:
    """Writes the files of each image, and then its line. takes: the attributes that the model takes."""

    ledger: Ledger
    form: Format
    maker: Maker
    header: Header
    paired: bool
    takes: AttributeSchema | None = None

    def make_folders(self) -> None:
        """Make the folders of the files."""
        for name in ("images", "labels", "real") if self.paired else ("images", "labels"):
            (self.ledger.folder / name).mkdir(exist_ok=True)

    def write(self, outcome: Outcome) -> bool:
        """Write down an outcome; whether there is an image of it."""
        if outcome.image is None:
            self.ledger.add_rejected(self._rejected_line(outcome))
            return False
        self.ledger.add(self._write_image(outcome, outcome.image))
        return True

    def _write_image(self, outcome: Outcome, image: NDArray[np.float32]) -> Line:
        request, folder, schema = outcome.request, self.ledger.folder, self.maker.schema
        sampling = self.header.sampling
        name = self.ledger.name_of(request.id)
        below = f"{self.ledger.subfolder_of(name)}{name}"
        place = self.ledger.place(request.place) if request.place is not None else None
        line = Line(
            **dict(request.origin),
            **dict(outcome.measures),
            id=name,
            file=f"images/{below}{self.form.ending}",
            labels=f"labels/{below}{self.form.ending_of_labels}",
            real=f"real/{below}{self.form.ending}" if self.paired else None,
            given=tuple(request.states.given_names(schema)),
            free=tuple(request.states.free_names(schema)),
            seed=request.seed,
            rejected=tuple(each.as_rejected() for each in outcome.rejected),
            solver=sampling.solver if sampling is not None else None,
            steps=sampling.steps if sampling is not None else None,
            model=self.header.model,
            attributes=self.takes.understood(request.attributes) or None if self.takes is not None else None,
            place=place,
            position=self.ledger.position_of(name),
        )
        for left in line.files:  # a folder that a killed process wrote, and has no line, cannot be replaced by renaming
            if (folder / left).is_dir():
                shutil.rmtree(folder / left)
        with writing(folder / line.file) as image_path, writing(folder / line.labels) as labels_path:
            self.form.write(image_path, labels_path, request, image, self.maker)
        if self.form.write_real is not None and line.real is not None:
            with writing(folder / line.real) as path:
                self.form.write_real(path, request, self.maker)
        return line

    def _rejected_line(self, outcome: Outcome) -> RejectedLine:
        request, schema = outcome.request, self.maker.schema
        return RejectedLine(
            **dict(request.origin),
            id=self.ledger.name_of(request.id),
            given=tuple(request.states.given_names(schema)),
            free=tuple(request.states.free_names(schema)),
            tries=tuple(each.as_rejected() for each in outcome.tries),
        )
