"""A sample set under the same checks as any data: is it whole, and do its label maps hold what it says."""

from __future__ import annotations

import json
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
from anatogen.generation.sample_set import SampleSet
from anatogen.labels import LabelClass, LabelSchema
from anatogen.volume import Volume

_FLAT = np.diag([-1.0, -1.0, -1.0, 1.0])


def check_samples(folder: Path, *, progress: Progress | None = None) -> CheckReport:
    """The report on the sample set in `folder`: damaged lines, files that are missing or in no line, and every image.

    Raises nothing that is wrong inside it: that is what the findings say.
    """
    location = str(folder)
    try:
        header = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
        schema = LabelSchema(tuple(LabelClass(i, name, c) for i, (name, c) in enumerate(header["classes"], 1)))
        samples = SampleSet(folder, {"model": "", **header}, [])
        known = FORMATS[header["format"]]
        endings = {"images": known.ending, "labels": known.ending_of_labels}
    except (OSError, ValueError, KeyError, TypeError, AnatogenError) as error:
        what = f"is damaged ({type(error).__name__}: {error})"
        finding = Finding("error", "damaged", "samples.json", what, "Sample again to a new folder")
        return CheckReport(location, "sample set", 0, 0, LabelSchema(()), (finding,))
    entries, findings = _entries(folder)
    listed = {entry[key] for entry in entries for key in ("file", "labels")}
    stray = [f"{name}/{p.name}" for name, ending in endings.items() for p in sorted((folder / name).glob(f"*{ending}"))]
    findings += [
        Finding("note", "file-not-listed", name, "is in no line of manifest.jsonl", "Sample again: it is made anew")
        for name in stray
        if name not in listed
    ]
    cases = tuple(
        SourceCase(
            str(entry.get("id", number)),
            str(entry.get("patient", entry.get("id", number))),
            partial(_load, samples, entry),
            (folder / entry["file"], folder / entry["labels"]),
            tuple(entry["given"]),
        )
        for number, entry in enumerate(entries)
        if (folder / entry["file"]).exists() and (folder / entry["labels"]).exists()
    )
    if not cases:
        findings.append(Finding("error", "no-samples", "manifest.jsonl", "holds no image", "Run anatogen sample again"))
        return CheckReport(location, "sample set", 0, 0, schema, tuple(findings))
    channels = ("image",) * _load(samples, entries[0])[0].array.shape[-1] if not findings else ()
    report = check_source(
        Source("sample set", location, schema, channels or ("image",), cases), splits=False, progress=progress
    )
    # What a free class holds in its map is what the sampler was not bound to, and no fault.
    kept = [f for f in report.findings if f.code not in ("label-not-annotated", "class-not-annotated")]
    return replace(report, findings=(*findings, *kept), real=False)


def _entries(folder: Path) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The lines of manifest.jsonl that can be read, and what is wrong with the others and their files."""
    path = folder / "manifest.jsonl"
    entries, findings = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            files = [str(entry[key]) for key in ("file", "labels")]
            list(entry["given"])
        except (ValueError, KeyError, TypeError):
            what, hint = f"line {number} is damaged", "Remove the line and sample again"
            findings.append(Finding("error", "damaged", "manifest.jsonl", what, hint))
            continue
        findings += [
            Finding("error", "file-missing", name, f"is named in line {number} of manifest.jsonl", "Sample again")
            for name in files
            if not (folder / name).exists()
        ]
        entries.append(entry)
    return entries, findings


def _load(samples: SampleSet, entry: dict[str, Any]) -> tuple[Volume, Volume]:
    image, labels = samples.image(entry), samples.label_map(entry)
    return Volume(_stack(image), _FLAT), Volume(_stack(labels[None])[..., 0], _FLAT)


def _stack(array: NDArray[Any]) -> NDArray[Any]:
    """(C, H, W) or (C, D, H, W) as (W, H, D, C)."""
    return (array[:, None] if array.ndim == 3 else array).transpose(3, 2, 1, 0)
