"""Sample sets on disk: samples.json (what all images have in common), manifest.jsonl (a line an image), images/,
labels/.

Where gates judged the images, a line holds what they found ("dice", "nearest") and, under "rejected", the tries before
that they rejected; requests of which every try was rejected have no image, and a line with their tries in
rejected.jsonl. places.jsonl holds the grid and the units of the scans whose label maps were taken, so that images of
any format can be put back in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anatogen.data.placement import Placement
from anatogen.distributed import WHOLE, Shard
from anatogen.errors import DataError, Interrupted, OutputError, SettingsError
from anatogen.generation.formats import (
    AUTO,
    FORMATS,
    FORMATS_OF_SCANS,
    Item,
    Maker,
    Scale,
    fitting_format,
    require_format,
)
from anatogen.generation.header import GateSettings, Header, run_beside
from anatogen.generation.ledger import (
    HEADER,
    MANIFEST,
    PLACES,
    Ledger,
    read_manifest,
    read_places,
    read_rejected,
)
from anatogen.generation.manifest import Line, PlaceLine, RejectedLine
from anatogen.generation.recording import ImageFiles, gate_settings, header_of
from anatogen.generation.rejection import Gating, generate_gated
from anatogen.generation.request import Request, shard_of
from anatogen.generation.shards import has_shards, mark_finished, parts_of, tidy, unfinished
from anatogen.labels import ClassStates, LabelSchema
from anatogen.model import ImageModel
from anatogen.settings import last_part

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """How the images of a set were selected. gate: by what, None where every image that was made was kept.

    made, kept, rejected: images (made = kept + rejected). given_up: requests of which every image was rejected.
    """

    gate: GateSettings | None
    made: int
    kept: int
    rejected: int
    given_up: int


@dataclass(frozen=True)
class SampleSet:
    """A sample set that was read: its header, the lines of its manifest, and its images when they are asked for.

    Attributes:
        folder: Where it is.
        header: What all images have in common.
        entries: A line for each image.
        shard: What `entries` and `rejected` are of: the whole set, or the shard that was just made.
    """

    folder: Path
    header: Header
    entries: list[Line]
    shard: Shard = WHOLE

    @classmethod
    def open(cls, folder: str | Path) -> SampleSet:
        """The sample set in `folder`.

        Raises DataError where there is none, an image is missing, or all were rejected.
        """
        folder = Path(folder)
        if not (folder / HEADER).is_file() or not any((part / MANIFEST).is_file() for part in parts_of(folder)):
            what = "is not a sample set" if folder.exists() else "there is no such folder"
            raise DataError(what, path=folder, hint="Make one with: anatogen sample RUN --masks DATASET --out DIR")
        samples = cls(folder, Header.read(folder / HEADER), read_manifest(folder)).not_empty()
        if missing := samples.unfinished:
            _log.warning("%s: %s", folder, said_of_unfinished(missing))
        return samples

    @property
    def unfinished(self) -> list[str]:
        """The shards that are not finished, as "3/200"."""
        return unfinished(self.folder, self.header.asks[-1] if self.header.asks else None)

    def not_empty(self) -> SampleSet:
        """Itself. Raises DataError where it has no image."""
        if self.entries:
            return self
        tries = [each for line in self.rejected for each in line.tries]
        if not tries:
            raise DataError("holds no images yet", path=self.folder, hint="Run anatogen sample again")
        best = max(tries, key=lambda each: -1.0 if each.dice is None else each.dice)
        raise DataError(
            f"holds no image: all {len(tries)} images made for {len(self.rejected)} requests were rejected; "
            f"of the best, {best.reason}",
            path=self.folder,
            hint="Ask for less, or train the model for longer, and sample to another folder",
        )

    @cached_property
    def rejected(self) -> tuple[RejectedLine, ...]:
        """The requests of which every try was rejected."""
        return tuple(read_rejected(self.folder, self.shard))

    @cached_property
    def selection(self) -> Selection:
        """What gates selected the images, and how many images were made, kept and rejected."""
        rejected = sum(len(line.rejected) for line in self.entries) + sum(len(line.tries) for line in self.rejected)
        kept = len(self.entries)
        return Selection(self.header.gate, kept + rejected, kept, rejected, len(self.rejected))

    @property
    def schema(self) -> LabelSchema:
        """The classes of its label maps."""
        return self.header.label_schema

    @cached_property
    def maker(self) -> Maker:
        """What all its images have in common."""
        return Maker(self.schema, self.header.model, self.header.channels)

    @cached_property
    def _places(self) -> dict[str, PlaceLine]:
        return read_places(self.folder)

    def placement(self, line: Line) -> Placement | None:
        """Where in a scan the image of a line belongs;

        None where its label map is of no scan, or in a set of version 0.1.

        Raises DataError where places.jsonl lacks it.
        """
        if line.place is None or line.place.scan is None or line.place.position is None:
            return None
        if line.place.scan not in self._places:
            problem = f"lacks the scan {line.place.scan}, which image {line.id} is placed in"
            raise DataError(problem, path=self.folder / PLACES, hint="Sample again to a new folder")
        return self._places[line.place.scan].placement(line.place.position)

    def _read(self, name: str, line: Line, *, labels: bool = False) -> NDArray[np.generic]:
        form = FORMATS[self.header.image_format]
        return (form.read_labels if labels else form.read_image)(
            self.folder / name, Item(line, self._scale(line), self.maker)
        )

    def _scale(self, line: Line) -> Scale | None:
        place = self.placement(line)
        if place is not None:
            mappings = place.intensity
            return Scale(place.axis, tuple(m.low for m in mappings), tuple(m.high for m in mappings))
        old = line.place
        if old is None or old.axis is None or old.low is None or old.high is None:
            return None
        return Scale(old.axis, old.low, old.high)

    def image(self, line: Line) -> NDArray[np.float32]:
        """The image (C, *spatial) in [-1, 1] of one manifest line."""
        return np.asarray(self._read(line.file, line), dtype=np.float32)

    def label_map(self, line: Line) -> NDArray[np.int64]:
        """The label map (*spatial) of one manifest line, as it was asked for (free classes included)."""
        return np.asarray(self._read(line.labels, line, labels=True), dtype=np.int64)

    def real_image(self, line: Line) -> NDArray[np.float32]:
        """The real image (C, *spatial) in [-1, 1] that a manifest line of a paired set names.

        Raises DataError where none is.
        """
        if line.real is None:
            raise DataError(
                f"image {line.id} has no real image beside it", path=self.folder, hint="Sample with --paired"
            )
        return np.asarray(self._read(line.real, line), dtype=np.float32)

    def images(self) -> NDArray[np.float32]:
        """All images (N, C, *spatial) in [-1, 1]."""
        return np.stack([self.image(line) for line in self.entries])

    def labels(self) -> NDArray[np.int64]:
        """All label maps (N, *spatial)."""
        return np.stack([self.label_map(line) for line in self.entries])

    def given(self) -> NDArray[np.bool_]:
        """Which classes were given for each image, (N, C-1)."""
        return np.array([[name in line.given for name in self.schema.names] for line in self.entries])

    def runs(self, named: Path | None = None) -> Iterator[Path]:
        """Folders that may hold the model that made the images; compare its digest with the header's.

        named: the user's, which is the only one then. Otherwise folders of the run's name in the tree that the set lies
        in; of a set of version 0.1 first the path that it names.
        """
        if named is not None:
            yield named
        elif self.header.run:
            name = last_part(self.header.run)
            if name != self.header.run:
                yield Path(self.header.run)
            yield from run_beside(self.folder, Path(name).name)


def write_sample_set(
    model: ImageModel,
    requests: Sequence[Request],
    out: Path,
    *,
    image_format: str = AUTO,
    batch_size: int = 16,
    gating: Gating = Gating(),
    command: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Make the images of `requests` and write them to `out`; an incomplete set there is resumed.

    A manifest line is written after its files, so that the set is valid at any moment. Several processes may each write
    a shard of one set (`Requests.only`), which is then the same set. The shard that completes it returns the whole set,
    the others what they have made.

    Args:
        model: Makes the images.
        requests: One for each image.
        out: The set's folder.
        image_format: See `FORMATS`; `auto` as `fitting_format` has it.
        batch_size: Images that are made at a time.
        gating: Which images are kept; rejected ones are recorded, and not tried again when the set is resumed.
        command: For the record; by default that of this process.
        progress: Called with (requests that are done, of all).

    Raises:
        SettingsError: `out` contains images made with other settings, or the format does not fit.
        DataError: Every image was rejected.
        OutputError: The disk is full, or another process writes to `out`.
        Interrupted: Ctrl-C; what was written stays valid.
    """
    paired = len(requests) > 0 and requests[0].partner is not None
    if image_format == AUTO:
        image_format = fitting_format(model.spec, requests)
    form = require_format(image_format, model.spec.channels, paired=paired)
    if model.spec.real_patients and image_format in FORMATS_OF_SCANS:
        raise SettingsError(
            f"its images are those of real patients, and {image_format} files could be taken for synthetic scans",
            hint="Use --format png or npy",
        )
    gate = gate_settings(gating.gates, gating.retries) if gating.gates else None
    header = header_of(model, requests, image_format, gate, command)
    shard = shard_of(requests)
    with Ledger.opened(out, header, shard) as (ledger, header):
        numbers, wanted = ledger.todo(requests), len(shard.of(len(requests)))
        settled = wanted - len(numbers)
        written = min(len(ledger.lines), settled)
        maker = Maker(model.spec.schema, header.model, header.channels)
        files = ImageFiles(ledger, form, maker, header, paired, model.spec.attributes)
        try:
            files.make_folders()
            for outcome in generate_gated(
                model,
                (requests[number] for number in numbers),
                gates=gating.gates,
                retries=gating.retries,
                batch_size=batch_size,
            ):
                written += files.write(outcome)
                settled += 1
                if gating.judged is not None:
                    gating.judged(outcome)
                if progress is not None:
                    progress(settled, wanted)
            mark_finished(out, shard, ledger.ask)
        except OSError as error:
            problem = f"cannot be written ({error.strerror or error})"
            raise _stopped(OutputError, problem, written, wanted, out) from error
        except OutputError as error:
            raise _stopped(OutputError, error.problem, written, wanted, out) from error
        except KeyboardInterrupt as error:
            raise _stopped(Interrupted, "sampling was stopped", written, wanted, out) from error
        return _written(ledger, header)


def _written(ledger: Ledger, header: Header) -> SampleSet:
    """The set that was written, or the shard of it where others are missing."""
    out, shard = ledger.folder, ledger.shard
    if shard.count == 1:
        return SampleSet(out, header, read_manifest(out) if has_shards(out) else ledger.lines).not_empty()
    if unfinished(out, ledger.ask):
        return SampleSet(out, header, ledger.lines, shard)
    tidy(out, shard)
    return SampleSet(out, header, read_manifest(out)).not_empty()


def said_of_unfinished(missing: Sequence[str]) -> str:
    """What users are told of shards that are not finished."""
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    count = missing[0].partition("/")[2]
    return f"{len(missing)} of {count} shards are not finished ({shown}): their images are missing"


def _stopped(
    kind: type[OutputError | Interrupted], problem: str, written: int, wanted: int, out: Path
) -> OutputError | Interrupted:
    hint = "Free space if the disk is full, and run the same command again to make the rest"
    return kind(f"{problem}; the {written} of {wanted} images that were written stay valid", path=out, hint=hint)


def patient_of(line: Line) -> str:
    """Whose label map the image of a manifest line follows; where nobody is named, its case or itself."""
    return line.patient_or_map


def states_of(line: Line, schema: LabelSchema) -> ClassStates:
    """The class states of a manifest line."""
    return schema.states(given=line.given)


def require_true_maps(samples: SampleSet) -> None:
    """Raises DataError where a class was left free or the model is unconditional, for the label map then does not say
    what is in the image.
    """
    free = sorted({name for line in samples.entries for name in line.free})
    if free:
        raise DataError(
            f"was made with {', '.join(free)} left free, so its label maps are not the truth of its images",
            path=samples.folder,
            hint="Sample with every class given, or export completed maps: anatogen complete, then --labels completed",
        )
    if not samples.header.sees_labels:
        raise DataError(
            "was made by an unconditional model, which does not see the label maps",
            path=samples.folder,
            hint="Sample with a model that was trained on label maps",
        )


def require_synthetic(samples: SampleSet) -> None:
    """Raises DataError where the images are those of real patients."""
    if samples.header.real_patients:
        raise DataError(
            "consists of real patients' images (it was made by nearest-map retrieval), so it is not exported",
            path=samples.folder,
            hint="Sample with a trained model",
        )
