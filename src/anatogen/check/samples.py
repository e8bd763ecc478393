"""Checks of a sample set: whether it is complete, and the checks of any other data set."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anatogen.check import CheckReport, Finding, check_source
from anatogen.check.run import Progress
from anatogen.data.sources.base import Source, SourceCase
from anatogen.errors import AnatogenError
from anatogen.generation.formats import FORMATS
from anatogen.generation.header import Header
from anatogen.generation.ledger import HEADER, MANIFEST, PLACES, read_places, whole_lines
from anatogen.generation.manifest import Line, PlaceLine
from anatogen.generation.sample_set import SampleSet, said_of_unfinished
from anatogen.generation.shards import parts_of
from anatogen.labels import LabelSchema
from anatogen.volume import Volume

_FLAT = np.diag([-1.0, -1.0, -1.0, 1.0])


def check_samples(folder: Path, *, progress: Progress | None = None) -> CheckReport:
    """Check the sample set in `folder`: damaged lines, files that are missing or unlisted, and every image.

    Damage is a finding, not an exception.
    """
    location = str(folder)
    try:
        header = Header.read(folder / HEADER)
        schema, form = header.label_schema, FORMATS[header.image_format]
    except (AnatogenError, KeyError) as error:
        problem = error.problem if isinstance(error, AnatogenError) else f"has an unknown format ({error})"
        finding = Finding("error", "damaged", HEADER, problem, (getattr(error, "hint", None) or Header.HINT))
        return CheckReport(location, "sample set", 0, 0, LabelSchema(()), (finding,))
    samples = SampleSet(folder, header, [])
    lines, findings = _lines(samples)
    listed = {name for line in lines for name in line.files}
    endings = {"images": form.ending, "labels": form.ending_of_labels, "real": form.ending}
    stray = [
        p.relative_to(folder).as_posix() for name, ending in endings.items() for p in _files(folder / name, ending)
    ]
    findings += [
        Finding("note", "file-not-listed", name, "is not listed in manifest.jsonl", "Sample again to recreate it")
        for name in stray
        if name not in listed and Path(name).parent.as_posix() not in listed and not Path(name).name.startswith(".")
    ]
    findings += _places(folder, lines)
    cases = tuple(
        SourceCase(
            line.id,
            line.patient or line.id,
            partial(_load, samples, line),
            (folder / line.file, folder / line.labels),
            line.given,
        )
        for line in lines
        if (folder / line.file).exists() and (folder / line.labels).exists()
    )
    if not cases:
        findings.append(Finding("error", "no-samples", MANIFEST, "contains no images", "Run anatogen sample again"))
        return CheckReport(location, "sample set", 0, 0, schema, tuple(findings))
    channels = header.channels or _channels(samples, lines)
    report = check_source(Source("sample set", location, schema, channels, cases), splits=False, progress=progress)
    # The sampler ignores free classes in the map, so they are not an error.
    kept = [f for f in report.findings if f.code not in ("label-not-annotated", "class-not-annotated")]
    return replace(report, findings=(*findings, *kept), real=False)


def _files(folder: Path, ending: str) -> list[Path]:
    """The files of images in `folder` and in its numbered subfolders."""
    return sorted([*folder.glob(f"*{ending}"), *folder.glob(f"[0-9]*/*{ending}")])


def _channels(samples: SampleSet, lines: list[Line]) -> tuple[str, ...]:
    """One name for each channel of the first readable image, because sets of version 0.1 may not name them."""
    for line in lines:
        with suppress(AnatogenError):
            return ("image",) * len(samples.image(line))
    return ("image",)


def _lines(samples: SampleSet) -> tuple[list[Line], list[Finding]]:
    """The readable lines of manifest.jsonl, and findings on the others and their files."""
    lines: list[Line] = []
    findings: list[Finding] = []
    for part in parts_of(samples.folder):
        _lines_of(samples.folder, part / MANIFEST, lines, findings)
    if missing := samples.unfinished:
        hint = "Run the anatogen sample commands of these shards"
        findings.append(Finding("warning", "unfinished-shards", HEADER, said_of_unfinished(missing), hint))
    return lines, findings


def _lines_of(folder: Path, path: Path, lines: list[Line], findings: list[Finding]) -> None:
    texts, torn = whole_lines(path)
    for number, text in enumerate(texts, start=1):
        try:
            line = Line.parse(text, path, number)
        except AnatogenError as error:
            findings.append(Finding("error", "damaged", MANIFEST, error.problem, error.hint or Line.HINT))
            continue
        findings += [
            Finding(
                "error",
                "file-missing",
                name,
                f"is listed in line {number} of manifest.jsonl but missing",
                "Sample again",
            )
            for name in line.files
            if not (folder / name).exists()
        ]
        lines.append(line)
    if torn:
        what, hint = (
            "ends in an incomplete line: sampling was interrupted",
            "Run the same anatogen sample command again",
        )
        findings.append(Finding("note", "interrupted", MANIFEST, what, hint))


def _places(folder: Path, lines: list[Line]) -> list[Finding]:
    """Findings on places.jsonl."""
    try:
        known = read_places(folder).keys()
    except AnatogenError as error:
        return [Finding("error", "damaged", PLACES, error.problem, PlaceLine.HINT)]
    missing = {line.place.scan for line in lines if line.place is not None and line.place.scan is not None} - known
    what, hint = (
        "lacks scans that manifest.jsonl lists, so the position of those images is unknown",
        "Sample again into a new folder",
    )
    return [Finding("error", "place-missing", PLACES, what, hint)] if missing else []


def _load(samples: SampleSet, line: Line) -> tuple[Volume, Volume]:
    image, labels = samples.image(line), samples.label_map(line)
    return Volume(_stack(image), _FLAT), Volume(_stack(labels[None])[..., 0], _FLAT)


def _stack(array: NDArray[Any]) -> NDArray[Any]:
    """(C, H, W) or (C, D, H, W) as (W, H, D, C)."""
    return (array[:, None] if array.ndim == 3 else array).transpose(3, 2, 1, 0)
