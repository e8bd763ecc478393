"""Sample sets on disk: samples.json (what they were made with), manifest.jsonl (a line an image), images/, labels/.

Where a gate judged the images, a line holds what it found ("dice", "nearest") and, under "refused", the tries before that
it refused; requests of which every try was refused have no image, and a line with their tries in refused.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.errors import DataError, Interrupted, OutputError, SettingsError, nearest
from anatogen.files import writing
from anatogen.generation.engine import Generator
from anatogen.generation.formats import FORMATS, Format, Maker
from anatogen.generation.rejection import Gate, Outcome, generate_gated
from anatogen.generation.request import Request
from anatogen.labels import ClassStates, LabelClass, LabelSchema
from anatogen.sampling import SamplingSettings


@dataclass(frozen=True)
class SampleSet:
    """A sample set that was read: its header, its manifest, and its images when they are asked for."""

    folder: Path
    header: dict[str, Any]
    entries: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path) -> SampleSet:
        """The sample set in `folder`. Raises DataError where there is none, an image is missing, or all were refused."""
        folder = Path(folder)
        if not (folder / "samples.json").is_file() or not (folder / "manifest.jsonl").is_file():
            what = "is not a sample set" if folder.exists() else "there is no such folder"
            raise DataError(what, path=folder, hint="Make one with: anatogen sample RUN --masks DATASET --out DIR")
        try:
            header = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"is damaged ({error})", path=folder / "samples.json", hint="Sample again") from error
        entries = read_manifest(folder)
        if not entries:
            raise _nothing_in(folder)
        return cls(folder, header, entries)

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The lines of refused.jsonl: the requests of which every try was refused."""
        return read_refused(self.folder)

    @property
    def refused_tries(self) -> int:
        """How many images were made and refused in all."""
        return sum(len(entry.get("refused", ())) for entry in self.entries) + sum(len(r["tries"]) for r in self.refused)

    @property
    def schema(self) -> LabelSchema:
        """The classes of its label maps."""
        return LabelSchema(
            tuple(LabelClass(i, name, colour) for i, (name, colour) in enumerate(self.header["classes"], 1))
        )

    @property
    def maker(self) -> Maker:
        """What all its images have in common."""
        return Maker(self.schema, self.header["model"])

    def image(self, entry: dict[str, Any]) -> NDArray[np.float32]:
        """The image (C, *spatial) in [-1, 1] of one manifest line."""
        read = FORMATS[self.header["format"]].read_image
        return np.asarray(read(self.folder / entry["file"], entry, self.maker), dtype=np.float32)

    def label_map(self, entry: dict[str, Any]) -> NDArray[np.int64]:
        """The label map (*spatial) of one manifest line, as it was asked for (free classes included)."""
        read = FORMATS[self.header["format"]].read_labels
        return np.asarray(read(self.folder / entry["labels"], entry, self.maker), dtype=np.int64)

    def real_image(self, entry: dict[str, Any]) -> NDArray[np.float32]:
        """The real image (C, *spatial) in [-1, 1] that a manifest line of a paired set names."""
        read = FORMATS[self.header["format"]].read_image
        return np.asarray(read(self.folder / entry["real"], entry, self.maker), dtype=np.float32)

    def images(self) -> NDArray[np.float32]:
        """All images (N, C, *spatial) in [-1, 1]."""
        return np.stack([self.image(entry) for entry in self.entries])

    def labels(self) -> NDArray[np.int64]:
        """All label maps (N, *spatial)."""
        return np.stack([self.label_map(entry) for entry in self.entries])

    def given(self) -> NDArray[np.bool_]:
        """Which classes were given for each image, (N, C-1)."""
        return np.array([[name in entry["given"] for name in self.schema.names] for entry in self.entries])


def write_sample_set(
    generator: Generator,
    requests: Sequence[Request],
    out: Path,
    *,
    settings: SamplingSettings | None = None,
    image_format: str = "png",
    batch_size: int = 16,
    gates: Sequence[Gate] = (),
    retries: int = 0,
    about: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    judged: Callable[[Outcome], None] | None = None,
) -> SampleSet:
    """Make the images of `requests` and write them to `out`; what a former, interrupted call wrote is kept.

    A manifest line is written after its files, so that the set is valid at any moment. gates, retries: an image that a
    gate refuses is made again with another seed, up to `retries` times (see `generate_gated`); what was refused is
    written down, and not tried again when the set is gone on with. progress: (requests that are done, of all). judged:
    called with each outcome. Raises OutputError where the disk is full, Interrupted on Ctrl-C, SettingsError where `out`
    holds images made with other settings, DataError where every image was refused.
    """
    if image_format not in FORMATS:
        raise SettingsError(f"there is no format '{image_format}'", hint=nearest(image_format, FORMATS))
    settings = settings or generator.settings
    form, maker = FORMATS[image_format], Maker(generator.schema, generator.model_hash)
    paired = len(requests) > 0 and requests[0].partner is not None
    if paired and form.write_real is None:
        raise SettingsError(
            f"pairs cannot be written as {image_format}, where a real image would pass for a synthetic one",
            hint="Choose --format png, npy or nifti",
        )
    header = {
        "classes": [(c.name, c.colour) for c in generator.schema.classes],
        "format": image_format,
        "model": generator.model_hash,
        "encoding": generator.denoiser.config.encoding,
        "sampling": settings.model_dump(mode="json"),
        **({"gate": {"retries": retries, **_settings_of(gates)}} if gates else {}),
        **(about or {}),
    }
    made, refused = _open_or_create(out, header)
    open_requests = (r for r in requests if r.id not in made and r.id not in refused)
    written, settled = (min(count, len(requests)) for count in (len(made), len(made) + len(refused)))
    try:
        for name in ("images", "labels", "real") if paired else ("images", "labels"):
            (out / name).mkdir(exist_ok=True)
        outcomes = generate_gated(
            generator, open_requests, settings, gates=gates, retries=retries, batch_size=batch_size
        )
        with (out / "manifest.jsonl").open("a", encoding="utf-8") as manifest:
            for outcome in outcomes:
                if outcome.image is None:
                    with (out / "refused.jsonl").open("a", encoding="utf-8") as refusals:
                        refusals.write(_line(_refusal(outcome, generator.schema)))
                else:
                    entry = _write_image(out, outcome, outcome.image, form, maker)
                    manifest.write(_line(entry))
                    manifest.flush()
                    written += 1
                settled += 1
                if judged is not None:
                    judged(outcome)
                if progress is not None:
                    progress(settled, len(requests))
    except OSError as error:
        raise _stopped(
            OutputError, f"cannot be written ({error.strerror or error})", written, len(requests), out
        ) from error
    except OutputError as error:
        raise _stopped(OutputError, error.problem, written, len(requests), out) from error
    except KeyboardInterrupt as error:
        raise _stopped(Interrupted, "sampling was stopped", written, len(requests), out) from error
    return SampleSet.open(out)


def _stopped(
    kind: type[OutputError | Interrupted], problem: str, written: int, wanted: int, out: Path
) -> OutputError | Interrupted:
    hint = "Free space if the disk is full, and run the same command again to make the rest"
    return kind(f"{problem}; the {written} of {wanted} images that were written stay valid", path=out, hint=hint)


def _write_image(out: Path, outcome: Outcome, image: NDArray[np.float32], form: Format, maker: Maker) -> dict[str, Any]:
    """Write the files of one image, and return its manifest line."""
    request = outcome.request
    paired = form.write_real is not None and request.partner is not None
    entry = {
        "id": request.id,
        "file": f"images/{request.id}{form.ending}",
        "labels": f"labels/{request.id}{form.ending_of_labels}",
        **_about(request, maker.schema),
        **outcome.measures,
        **({"refused": [each.describe() for each in outcome.refused]} if outcome.refused else {}),
        **({"real": f"real/{request.id}{form.ending}"} if paired else {}),
        **({"place": request.place.describe()} if request.place is not None else {}),
    }
    with writing(out / entry["file"]) as image_path, writing(out / entry["labels"]) as labels_path:
        form.write(image_path, labels_path, request, image, maker)
    if form.write_real is not None and paired:
        with writing(out / entry["real"]) as path:
            form.write_real(path, request)
    return entry


def _refusal(outcome: Outcome, schema: LabelSchema) -> dict[str, Any]:
    """The line of refused.jsonl."""
    about = _about(outcome.request, schema)
    del about["seed"]  # each try has its own
    return {"id": outcome.request.id, **about, "tries": [each.describe() for each in outcome.tries]}


def _about(request: Request, schema: LabelSchema) -> dict[str, Any]:
    return {
        "given": request.states.given_names(schema),
        "free": request.states.free_names(schema),
        "seed": request.seed,
        **request.origin,
    }


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _settings_of(gates: Sequence[Gate]) -> dict[str, Any]:
    return {key: value for gate in gates for key, value in gate.settings.items()}


def _nothing_in(folder: Path) -> DataError:
    """Why a sample set without an image has none."""
    refused = read_refused(folder)
    tries = [each for line in refused for each in line["tries"]]
    if not tries:
        return DataError("holds no images yet", path=folder, hint="Run anatogen sample again")
    best = max(tries, key=lambda each: each.get("dice", -1.0))
    return DataError(
        f"holds no image, for all {len(tries)} that were made for {len(refused)} requests were refused; "
        f"of the best, {best['reason']}",
        path=folder,
        hint="Ask for less, or train the model for longer, and sample to another folder",
    )


def _open_or_create(out: Path, header: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Make `out` with its samples.json, or check that it was made with the same.

    Returns the ids of the requests whose image is there, and of those that were refused to the end.
    """
    if not (out / "samples.json").exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SettingsError("is there already and is no sample set", path=out, hint="Choose another folder")
        with writing(out / "samples.json") as path:
            path.write_text(json.dumps(header, indent=1, ensure_ascii=False), encoding="utf-8")
        return set(), set()
    try:
        former = json.loads((out / "samples.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"is damaged ({error})", path=out / "samples.json", hint="Choose another folder") from error
    for key in ("model", "sampling", "format", "request", "gate"):
        if former.get(key) != json.loads(json.dumps(header.get(key))):
            raise SettingsError(
                f"holds images made with another {key}", path=out, hint="Choose another folder or remove it"
            )
    for name in ("manifest.jsonl", "refused.jsonl"):
        _drop_torn_line(out / name)
    return {entry["id"] for entry in read_manifest(out)}, {line["id"] for line in read_refused(out)}


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of manifest.jsonl. Raises DataError where one is damaged or its image is missing."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            named = [entry["file"], entry["labels"], *([entry["real"]] if "real" in entry else [])]
            missing = [name for name in named if not (folder / name).exists()]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} is damaged", path=path, hint="Remove the line and sample again") from error
        if missing:
            raise DataError(
                f"{missing[0]}, named in line {number}, is missing",
                path=path,
                hint="Remove the line and sample again",
            )
        entries.append(entry)
    return entries


def read_refused(folder: Path) -> list[dict[str, Any]]:
    """The lines of refused.jsonl, none where nothing was refused to the end. Raises DataError where one is damaged."""
    path = folder / "refused.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            _ = entry["id"], [each["reason"] for each in entry["tries"]]
        except (ValueError, KeyError, TypeError) as error:
            hint = "Remove the line and sample again"
            raise DataError(f"line {number} is damaged", path=path, hint=hint) from error
        found.append(entry)
    return found


def _drop_torn_line(path: Path) -> None:
    """A full disk can leave half a line at the end: remove it."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            with writing(path) as partial:
                partial.write_text(whole, encoding="utf-8")


def patient_of(entry: dict[str, Any]) -> str:
    """Whose label map the image of a manifest line follows; where nobody is named, its case or itself."""
    return str(entry.get("patient", entry.get("case", entry["id"])))


def states_of(entry: dict[str, Any], schema: LabelSchema) -> ClassStates:
    """The class states of a manifest line."""
    return schema.states(given=entry["given"])


def require_true_maps(samples: SampleSet) -> None:
    """Raises DataError where a class was left free or the model is unconditional, for the label map then does not say
    what is in the image.
    """
    free = sorted({name for entry in samples.entries for name in entry["free"]})
    if free:
        raise DataError(
            f"was made with {', '.join(free)} left free, so its label maps are not the truth of its images",
            path=samples.folder,
            hint="Sample with every class given",
        )
    if samples.header.get("encoding") == "none":
        raise DataError(
            "was made by an unconditional model, which does not see the label maps",
            path=samples.folder,
            hint="Sample with a model that was trained on label maps",
        )
