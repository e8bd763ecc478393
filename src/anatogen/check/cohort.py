"""Checks across all cases, from their summaries: label values, duplicates, patients, splits, classes, geometry, ranges."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from anatogen.check.cases import CaseSummary
from anatogen.check.findings import ClassUse, Finding, shown
from anatogen.check.values import MENDABLE, mapping_to_classes, stretched
from anatogen.data.split import DEFAULT_SHARES
from anatogen.labels import LabelSchema

_FEW_PATIENTS = 20
_TINY_PIXELS = 12  # of a class in the slices where it is: a structure of about 4 x 3 pixels
_TINY_SHARE = 1e-4
_HIGHEST_HU = 4095  # of 12 bits; scanners write more only on an extended scale, for metal


def label_findings(cases: Sequence[CaseSummary], schema: LabelSchema, *, declared: bool = True) -> list[Finding]:
    """Values of the label maps that no class has. declared: whether `schema` was given, or only guessed from them."""
    findings = []
    union = {int(v) for c in cases for v in c.values or () if np.isfinite(v) and v == np.rint(v)}
    mapping = mapping_to_classes(union, schema.count if declared else None)
    for case in cases:
        values = np.array(case.values if case.values is not None else (0.0,), dtype=np.float64)
        whole = np.isfinite(values) & (values == np.rint(values))
        if not whole.all():
            what = f"{(~whole).sum()} of its values are no whole numbers, for instance {values[~whole][0]:g}"
            hint = "Resample labels by nearest neighbour, not linearly"
            findings.append(Finding("error", "labels-fractional", case.file, what, hint))
        if (values[whole] < 0).any():
            negative = values[whole & (values < 0)]
            what = f"holds the negative label {shown(f'{v:g}' for v in negative)}"
            hint = "Background is 0 and classes are 1, 2, ...; is this an image, or does -1 mean 'not annotated'?"
            findings.append(Finding("error", "labels-negative", case.file, what, hint))
        past = values[whole & (values >= schema.count)]
        if past.size:
            findings.append(_past_the_count(case, past, schema if declared else None, mapping, union))
    return findings


def _past_the_count(
    case: CaseSummary,
    past: np.typing.NDArray[np.float64],
    schema: LabelSchema | None,
    mapping: dict[int, int] | None,
    union: set[int],
) -> Finding:
    listed = shown(f"{v:g}" for v in past)
    if mapping is not None and case.file.lower().endswith(MENDABLE):
        way = shown((f"{a} to {b}" for a, b in mapping.items()), 4)
        kind = "labels-stretched" if stretched(union) else "labels-past-count"
        return Finding(
            "error", kind, case.file, f"holds label {listed} instead of 1, 2, ...", f"--fix OUT maps {way}", True
        )
    if schema is None:
        what = f"holds label {listed}: gray levels, not classes numbered 1, 2, ..."
        hint = "Export the masks again with label values; these may be colours that went through a gray conversion"
        return Finding("error", "labels-past-count", case.file, what, hint)
    what = f"holds label {listed}, but classes 0 to {schema.count - 1} are declared"
    if stretched(union) and mapping is None:
        hint = (
            f"Looks like {len(union)} classes spread over 0..255: name {len(union) - 1} with --classes, then --fix OUT"
        )
        return Finding("error", "labels-stretched", case.file, what, hint)
    code = "labels-stretched" if stretched(union) else "labels-past-count"
    return Finding("error", code, case.file, what, "Declare the missing classes, or relabel the map")


def duplicate_findings(cases: Iterable[CaseSummary], *, splits: bool = True) -> list[Finding]:
    """Images with the same pixels: leakage where they are in two splits, or, where there are no splits to come, of two patients."""
    first: dict[str, CaseSummary] = {}
    findings = []
    for case in cases:
        if case.digest is None:
            continue
        other = first.setdefault(case.digest, case)
        if other is case:
            continue
        what, hint = f"has exactly the pixels of {other.image_file}", "Keep one of them"
        if case.patient != other.patient:
            what += f", another patient ({case.patient}, {other.patient})"
            hint += "; prepare counts both as one patient, so that they share a split" if splits else ""
        if case.split != other.split:
            what += f", in another split ({case.split}, {other.split})"
            hint = "Keep one of them, or both in one split"
        grave = case.split != other.split or (not splits and case.patient != other.patient)
        findings.append(Finding("error" if grave else "warning", "duplicate-image", case.image_file, what, hint))
    return findings


def split_findings(cases: Sequence[CaseSummary], location: str) -> list[Finding]:
    """Patients in two given splits, cases in none, splits that are missing, and too few patients to split."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.split is not None:
            splits[case.patient].add(case.split)
    findings = [
        Finding(
            "error",
            "patient-in-two-splits",
            patient,
            f"this patient is in the splits {', '.join(sorted(several))}",
            "Put all cases of a patient into one split",
        )
        for patient, several in splits.items()
        if len(several) > 1
    ]
    patients = len({case.patient for case in cases})
    if not splits:
        if patients == len(cases) > 1 and all(case.slices == 1 for case in cases):
            what = "every slice counts as a patient of its own, since nothing says which slices belong together"
            hint = "Name the patients to prepare (--patient-pattern, --patients), else slices of one may train and test"
            findings.append(Finding("warning", "patients-unknown", location, what, hint))
        return findings + _few_patients(patients, location)
    findings += [
        Finding("error", "case-without-split", case.file, "is in no split, while others are", "Give every case a split")
        for case in cases
        if case.split is None
    ]
    missing = [name for name in DEFAULT_SHARES if not any(name in several for several in splits.values())]
    if missing:
        what = f"the given splits have no patient in {', '.join(missing)}"
        hint = "heldout is for the segmenter that judges the images, test for the maps they are made from"
        findings.append(Finding("warning", "split-missing", location, what, hint))
    return findings


def _few_patients(patients: int, location: str) -> list[Finding]:
    if patients >= _FEW_PATIENTS:
        return []
    if patients < len(DEFAULT_SHARES):
        what = f"{patients} {'patient' if patients == 1 else 'patients'} cannot fill the splits {', '.join(DEFAULT_SHARES)}"
        hint = "Add patients; with --split train=100 it can be prepared, but nothing judged"
        return [Finding("error", "few-patients", location, what, hint)]
    what = f"{patients} patients are few: a test split of one or two says little"
    hint = "Give val no share, for instance --split train=60,heldout=20,test=20"
    return [Finding("warning", "few-patients", location, what, hint)]


def class_use(cases: Sequence[CaseSummary], schema: LabelSchema) -> tuple[list[ClassUse], dict[str, dict[str, int]]]:
    """(use of each class, {patient: {class name: voxels}}). A patient whose case was not annotated for a class is left out."""
    voxels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    looked: defaultdict[tuple[str, str], int] = defaultdict(int)  # voxels of a patient in which a class was looked for
    for case in cases:
        total = sum(case.counts.values())
        for c in schema.classes:
            voxels[case.patient][c.name] += case.counts.get(c.index, 0)
            if case.annotated is None or c.name in case.annotated:
                looked[case.patient, c.name] += total
    uses = []
    for c in schema.classes:
        patients = [p for p in voxels if looked[p, c.name]]
        shares = [voxels[p][c.name] / looked[p, c.name] for p in patients] or [0.0]
        everywhere = sum(looked[p, c.name] for p in patients)
        uses.append(
            ClassUse(
                c.index,
                c.name,
                c.colour,
                sum(voxels[p][c.name] for p in patients) / everywhere if everywhere else 0.0,
                sum(voxels[p][c.name] > 0 for p in patients),
                len(patients),
                (min(shares), float(np.median(shares)), max(shares)),
            )
        )
    return uses, {patient: dict(counts) for patient, counts in voxels.items()}


def class_findings(
    cases: Sequence[CaseSummary], schema: LabelSchema, uses: Sequence[ClassUse], location: str, *, guessed: bool = False
) -> list[Finding]:
    """Classes that nobody has, that some patients lack or were not annotated for, and that are tiny; empty maps and slices."""
    findings = _absent(uses, location, guessed)
    patients: defaultdict[str, list[CaseSummary]] = defaultdict(list)
    for case in cases:
        patients[case.patient].append(case)
    for use in uses:
        if not use.patients:
            continue
        findings += _lacking(use, patients, location)
        holding = [c for c in cases if c.counts.get(use.index)]
        per_slice = float(np.median([c.counts[use.index] / c.slices_with[use.index] for c in holding]))
        if per_slice < _TINY_PIXELS and use.share < _TINY_SHARE:
            what = (
                f"class '{use.name}' is tiny: {per_slice:.0f} pixels in a slice that shows it, {use.share:.4%} of all"
            )
            hint = "Prepare at a larger size, crop around it, or merge it with another class"
            findings.append(Finding("warning", "class-tiny", location, what, hint))
    for patient, own in patients.items():
        if not any(counts for c in own for value, counts in c.counts.items() if value) and own[0].annotated != ():
            what = f"no voxel of {patient} has a label" if len(own) > 1 else "the label map is empty"
            hint = "Check that the map belongs to the image; prepare leaves out slices without a label"
            findings.append(Finding("warning", "labels-empty", own[0].file, what, hint))
    for case in cases:
        if case.annotated is not None:
            others = [c.name for c in schema.classes if case.counts.get(c.index) and c.name not in case.annotated]
            if others:
                what = f"holds {shown(others)}, which annotated_classes does not list for it"
                hint = "List the class, or remove it: it is treated as free here"
                findings.append(Finding("warning", "label-not-annotated", case.file, what, hint))
    slices, empty = sum(c.slices for c in cases), sum(c.empty_slices for c in cases)
    if empty:
        what = f"{empty:,} of {slices:,} slices ({empty / slices:.0%}) have no label"
        hint = "prepare leaves them out unless --keep-empty"
        findings.append(Finding("note", "empty-slices", location, what, hint))
    return findings


def _absent(uses: Sequence[ClassUse], location: str, guessed: bool) -> list[Finding]:
    """Classes that never occur. guessed: they were named after the highest value, so that gaps between values show."""
    absent = [use for use in uses if not use.patients]
    if not absent:
        return []
    if len(absent) == len(uses):
        return [Finding("error", "no-labels", location, "no label map holds any class", "Check the label maps")]
    if guessed:
        there = shown(["0", *(use.index for use in uses if use.patients)], 10)
        what = f"labels have gaps: of the values up to {uses[-1].index} only {there} occur"
        hint = "Relabel 0, 1, 2, ...; were these once colours or a palette?"
        return [Finding("warning", "labels-gaps", location, what, hint)]
    what = f"{len(absent)} of {len(uses)} classes never occur: {shown(use.name for use in absent)}"
    hint = "Leave them out of the classes, or check that the labels have their values"
    return [Finding("warning", "class-absent", location, what, hint)]


def _lacking(use: ClassUse, patients: dict[str, list[CaseSummary]], location: str) -> list[Finding]:
    """Notes: who lacks the class although it was annotated, and for whom it was not annotated."""
    findings = []
    drawn = {p: [c for c in own if c.annotated is None or use.name in c.annotated] for p, own in patients.items()}
    lacking = [p for p, own in drawn.items() if own and not any(c.counts.get(use.index) for c in own)]
    if lacking:
        what = f"class '{use.name}' is absent from {len(lacking)} of {use.annotated} patients: {shown(lacking)}"
        hint = "Right where the structure is truly absent; where it was not drawn, list it as not annotated"
        findings.append(Finding("note", "class-lacking", location, what, hint))
    undrawn = [p for p, own in drawn.items() if not own]
    if undrawn:
        what = f"class '{use.name}' was not annotated in {len(undrawn)} of {len(patients)} patients: {shown(undrawn)}"
        findings.append(Finding("note", "class-not-annotated", location, what, "It is free for them; nothing to do"))
    return findings


def geometry_findings(cases: Sequence[CaseSummary], location: str) -> list[Finding]:
    """How spacing, orientation and shape differ between cases."""
    findings = []
    spacings = np.array([case.spacing_mm for case in cases])
    ratio = spacings.max(axis=0) / np.maximum(spacings.min(axis=0), 1e-9)
    if ratio.max() > 1.01:
        low, high = (" x ".join(f"{s:.3g}" for s in edge) for edge in (spacings.min(axis=0), spacings.max(axis=0)))
        what = f"voxel spacing differs between cases: from {low} to {high} mm"
        far = ratio.max() > 1.5
        hint = "Prepare with one --spacing, else the same organ comes in several sizes" if far else ""
        findings.append(Finding("warning" if far else "note", "spacing-differs", location, what, hint))
    directions = Counter(case.orientation for case in cases)
    if len(directions) > 1:
        what = "axes run differently: " + ", ".join(f"{name} ({n})" for name, n in directions.most_common())
        hint = "prepare turns all to one orientation; nothing to do"
        findings.append(Finding("note", "orientation-differs", location, what, hint))
    shapes = np.array([case.grid for case in cases])
    if (shapes.min(axis=0) != shapes.max(axis=0)).any():
        low, high = (" x ".join(map(str, edge)) for edge in (shapes.min(axis=0), shapes.max(axis=0)))
        what = f"images are of different shapes: from {low} to {high} voxels"
        findings.append(Finding("note", "shape-differs", location, what, "prepare brings all to --size; see --fit"))
    return findings


def intensity_findings(cases: Sequence[CaseSummary], channels: Sequence[str], location: str) -> list[Finding]:
    """Types and ranges: mixed types, HU or what ought to be HU, scales that differ between cases."""
    findings = []
    kinds = Counter(case.dtype for case in cases)
    if len(kinds) > 1:
        what = "images are of different types: " + ", ".join(f"{name} ({n})" for name, n in kinds.most_common())
        findings.append(Finding("note", "dtype-differs", location, what, "Right if their intensities mean the same"))
    low, high = min(c.low for c in cases), max(c.high for c in cases)
    hounsfield = [c for c in cases if -4096 <= c.low <= -200 and 0 < c.high < 40000]
    is_ct = any(name.strip().lower() in ("ct", "cbct") for name in channels)
    if 2 * len(hounsfield) > len(cases):
        what = f"intensities from {low:g} to {high:g} look like Hounsfield units"
        extended = [c.image_file for c in cases if c.high > _HIGHEST_HU]
        if extended:
            what += f", but for values past {_HIGHEST_HU} (metal, or a wrong slope) in {len(extended)} cases: {shown(extended, 3)}"
        findings.append(
            Finding("note", "hounsfield", location, what, "Prepare with a window, for instance --window -160 240")
        )
    elif is_ct and low >= 0:
        what = f"the channel is called CT, but intensities run from {low:g} to {high:g}: not Hounsfield units"
        hint = "Export CT with its rescale slope and intercept; windowed to 8 bits, the HU are lost"
        findings.append(Finding("warning", "ct-not-hounsfield", location, what, hint))
    bright = [c.bright for c in cases if c.bright > 0]
    if bright and not hounsfield and max(bright) > 20 * min(bright):
        what = f"scales differ between cases: the brightest voxels (99.5th percentile) from {min(bright):g} to {max(bright):g}"
        hint = "Keep prepare's default, percentiles of each case; one --window would not do"
        findings.append(Finding("note", "scale-differs", location, what, hint))
    return findings
