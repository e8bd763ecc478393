"""Checks of the file listing: junk files, names, and files missing from a description."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from anatogen.check.findings import Finding
from anatogen.data.sources.base import Source

_JUNK = ("thumbs.db", "desktop.ini", "__macosx")


def is_junk(path: Path) -> bool:
    """Whether an operating system left the file or folder there."""
    return path.name.startswith(".") or path.name.lower() in _JUNK


def listing_findings(folder: Path) -> list[Finding]:
    """Junk files, and folders whose names sort differently as text and as numbers. Does not follow links."""
    findings = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        where = here.relative_to(folder)
        junk = [name for name in (*folders, *files) if is_junk(here / name)]
        folders[:] = sorted(set(folders) - set(junk))
        findings += [
            Finding("warning", "junk-file", (where / name).as_posix(), "is not data", "Delete it; it is ignored here")
            for name in sorted(junk)
        ]
        names = sorted(set(files) - set(junk))
        natural = sorted(names, key=natural_name)
        if names != natural:
            first = next(i for i, (a, b) in enumerate(zip(names, natural, strict=True)) if a != b)
            what = f"sorts {names[first]} before {natural[first]} as text"
            hint = (
                "Images and masks are paired by name here, so this is harmless; "
                "for tools that pair by position, use leading zeros"
            )
            findings.append(Finding("note", "unsorted-names", f"{where.as_posix()}/", what, hint))
    return findings


def natural_name(name: str) -> str:
    """`name` with its numbers padded, so that text sorts as numbers do."""
    return re.sub(r"[0-9]+", lambda number: number[0].zfill(20), name)


def nnunet_findings(folder: Path, ending: str, channels: int, cases: Sequence[str]) -> list[Finding]:
    """Images of an nnU-Net data set without a label map, and label maps without an image."""
    findings = []
    images: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((folder / "imagesTr").glob(f"*{ending}")):
        if not is_junk(path):
            match = re.fullmatch(r"(.+)_(\d{4})", path.name[: -len(ending)])
            images[match[1] if match else path.name].append(path.name)
    for case, files in images.items():
        if case not in cases:
            what, hint = "has no label map in labelsTr and is left out", "Add the label map, or remove the image"
            findings += [Finding("warning", "unmatched-image", f"imagesTr/{file}", what, hint) for file in files]
    for case in cases:
        if len(images.get(case, ())) < channels:
            what = f"has {len(images.get(case, ()))} of {channels} channel file(s) {case}_0000{ending}, ... in imagesTr"
            hint = "Add the image, or remove the label map"
            findings.append(Finding("error", "unmatched-mask", f"labelsTr/{case}{ending}", what, hint))
    return findings


def unlisted_findings(folder: Path, source: Source) -> list[Finding]:
    """Images and label maps of a Decathlon data set that its dataset.json does not list."""
    listed = {path.resolve() for case in source.cases for path in case.files}
    there = [p for name in ("imagesTr", "labelsTr") for p in sorted((folder / name).glob("*.nii*")) if not is_junk(p)]
    what, hint = 'is not in the list "training" of dataset.json and is left out', "Add it to the list, or remove it"
    return [
        Finding("warning", "file-not-listed", p.relative_to(folder).as_posix(), what, hint)
        for p in there
        if p.resolve() not in listed
    ]
