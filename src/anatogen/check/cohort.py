"""Checks across all cases, from their summaries: label values, duplicates, patients, splits, classes, geometry,
ranges.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from anatogen.check.cases import CaseSummary
from anatogen.check.findings import ClassUse, Finding, shown
from anatogen.check.values import FIXABLE, mapping_to_classes, stretched
from anatogen.data.split import DEFAULT_SHARES
from anatogen.labels import LabelSchema

_FEW_PATIENTS = 20
_TINY_PIXELS = 12  # of a class per slice that contains it: a structure of about 4 x 3 pixels
_TINY_SHARE = 1e-4
_HIGHEST_HU = 4095  # 12 bits; higher values occur only on an extended scale, for metal


def label_findings(cases: Sequence[CaseSummary], schema: LabelSchema, *, declared: bool = True) -> list[Finding]:
    """Values in the label maps that belong to no class. `declared`: whether `schema` was given, not guessed."""
    findings = []
    union = {int(v) for c in cases for v in c.values or () if np.isfinite(v) and v == np.rint(v)}
    mapping = mapping_to_classes(union, schema.count if declared else None)
    for case in cases:
        values = np.array(case.values if case.values is not None else (0.0,), dtype=np.float64)
        whole = np.isfinite(values) & (values == np.rint(values))
        if not whole.all():
            what = f"{(~whole).sum()} of its values are not whole numbers, for instance {values[~whole][0]:g}"
            hint = "Resample labels by nearest neighbour, not linearly"
            findings.append(Finding("error", "labels-fractional", case.file, what, hint))
        if (values[whole] < 0).any():
            negative = values[whole & (values < 0)]
            what = f"contains the negative label {shown(f'{v:g}' for v in negative)}"
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
    if mapping is not None and case.file.lower().endswith(FIXABLE):
        mapped = shown((f"{a} to {b}" for a, b in mapping.items()), 4)
        kind = "labels-stretched" if stretched(union) else "labels-past-count"
        return Finding(
            "error", kind, case.file, f"contains label {listed} instead of 1, 2, ...", f"--fix OUT maps {mapped}", True
        )
    if schema is None:
        what = f"contains label {listed}: gray levels, not classes numbered 1, 2, ..."
        hint = "Export the masks again with label values; these may be colours converted to gray"
        return Finding("error", "labels-past-count", case.file, what, hint)
    what = f"contains label {listed}, but only classes 0 to {schema.count - 1} are declared"
    if stretched(union) and mapping is None:
        hint = (
            f"Looks like {len(union)} classes spread over 0..255: name {len(union) - 1} with --classes, then --fix OUT"
        )
        return Finding("error", "labels-stretched", case.file, what, hint)
    code = "labels-stretched" if stretched(union) else "labels-past-count"
    return Finding("error", code, case.file, what, "Declare the missing classes, or relabel the map")


def duplicate_findings(cases: Iterable[CaseSummary], *, splits: bool = True) -> list[Finding]:
    """Images with identical pixels: leakage if they are in two splits or, if no split is needed, of two patients."""
    first: dict[str, CaseSummary] = {}
    findings = []
    for case in cases:
        if case.digest is None:
            continue
        other = first.setdefault(case.digest, case)
        if other is case:
            continue
        what, hint = f"has the same pixels as {other.image_file}", "Keep one of them"
        if case.patient != other.patient:
            what += f", of another patient ({case.patient}, {other.patient})"
            hint += "; prepare treats both as one patient, so they share a split" if splits else ""
        if case.split != other.split:
            what += f", in another split ({case.split}, {other.split})"
            hint = "Keep one of them, or both in one split"
        grave = case.split != other.split or (not splits and case.patient != other.patient)
        findings.append(Finding("error" if grave else "warning", "duplicate-image", case.image_file, what, hint))
    return findings


def split_findings(cases: Sequence[CaseSummary], location: str) -> list[Finding]:
    """Patients in two given splits, cases without a split, missing splits, and too few patients to split."""
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
            what = "every slice counts as a separate patient, because the patients are unknown"
            hint = "Name the patients with --patient-pattern or --patients, or one patient may be in train and test"
            findings.append(Finding("warning", "patients-unknown", location, what, hint))
        return findings + _few_patients(patients, location)
    findings += [
        Finding(
            "error", "case-without-split", case.file, "is in no split, but other cases are", "Give every case a split"
        )
        for case in cases
        if case.split is None
    ]
    missing = [name for name in DEFAULT_SHARES if not any(name in several for several in splits.values())]
    if missing:
        what = f"the given splits have no patient in {', '.join(missing)}"
        hint = "heldout trains the segmenter of the evaluation; test provides the label maps of the evaluated images"
        findings.append(Finding("warning", "split-missing", location, what, hint))
    return findings


def _few_patients(patients: int, location: str) -> list[Finding]:
    if patients >= _FEW_PATIENTS:
        return []
    if patients < len(DEFAULT_SHARES):
        noun = "patient" if patients == 1 else "patients"
        what = f"{patients} {noun} cannot fill the splits {', '.join(DEFAULT_SHARES)}"
        hint = "Add patients; with --split train=100 you can prepare and train, but not evaluate"
        return [Finding("error", "few-patients", location, what, hint)]
    what = f"only {patients} patients: results on a test split of one or two are unreliable"
    hint = "Leave out val, for instance --split train=60,heldout=20,test=20"
    return [Finding("warning", "few-patients", location, what, hint)]


def class_use(cases: Sequence[CaseSummary], schema: LabelSchema) -> tuple[list[ClassUse], dict[str, dict[str, int]]]:
    """(use of each class, {patient: {class name: voxels}}). Patients not annotated for a class are excluded."""
    voxels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    annotated: defaultdict[tuple[str, str], int] = defaultdict(
        int
    )  # voxels of a patient in which a class was annotated
    for case in cases:
        total = sum(case.counts.values())
        for c in schema.classes:
            voxels[case.patient][c.name] += case.counts.get(c.index, 0)
            if case.annotated is None or c.name in case.annotated:
                annotated[case.patient, c.name] += total
    uses = []
    for c in schema.classes:
        patients = [p for p in voxels if annotated[p, c.name]]
        shares = [voxels[p][c.name] / annotated[p, c.name] for p in patients] or [0.0]
        everywhere = sum(annotated[p, c.name] for p in patients)
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
    """Classes that are absent everywhere, missing or unannotated in some patients, or tiny; empty maps and slices."""
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
                f"class '{use.name}' is tiny: {per_slice:.0f} pixels per slice that contains it, {use.share:.4%} of all"
            )
            hint = "Prepare at a larger size, crop around it, or merge it with another class"
            findings.append(Finding("warning", "class-tiny", location, what, hint))
    for patient, own in patients.items():
        if not any(counts for c in own for value, counts in c.counts.items() if value) and own[0].annotated != ():
            what = f"{patient} has no labelled voxel" if len(own) > 1 else "the label map is empty"
            hint = "Check that the map belongs to the image; prepare leaves out slices without a label"
            findings.append(Finding("warning", "labels-empty", own[0].file, what, hint))
    for case in cases:
        if case.annotated is not None:
            others = [c.name for c in schema.classes if case.counts.get(c.index) and c.name not in case.annotated]
            if others:
                what = f"contains {shown(others)}, which annotated_classes does not list for this case"
                hint = "List the class or remove it; it is treated as free in this case"
                findings.append(Finding("warning", "label-not-annotated", case.file, what, hint))
    slices, empty = sum(c.slices for c in cases), sum(c.empty_slices for c in cases)
    if empty:
        what = f"{empty:,} of {slices:,} slices ({empty / slices:.0%}) have no label"
        hint = "prepare leaves them out unless --keep-empty"
        findings.append(Finding("note", "empty-slices", location, what, hint))
    return findings


def _absent(uses: Sequence[ClassUse], location: str, guessed: bool) -> list[Finding]:
    """Classes that never occur. `guessed`: they were named after the highest value, so gaps between values show."""
    absent = [use for use in uses if not use.patients]
    if not absent:
        return []
    if len(absent) == len(uses):
        return [Finding("error", "no-labels", location, "no label map contains any class", "Check the label maps")]
    if guessed:
        there = shown(["0", *(use.index for use in uses if use.patients)], 10)
        what = f"labels have gaps: of the values up to {uses[-1].index}, only {there} occur"
        hint = "Relabel 0, 1, 2, ...; were these once colours or a palette?"
        return [Finding("warning", "labels-gaps", location, what, hint)]
    what = f"{len(absent)} of {len(uses)} classes never occur: {shown(use.name for use in absent)}"
    hint = "Remove them from the classes, or check the label values"
    return [Finding("warning", "class-absent", location, what, hint)]


def _lacking(use: ClassUse, patients: dict[str, list[CaseSummary]], location: str) -> list[Finding]:
    """Notes on patients who lack the class although it was annotated, and on those for whom it was not annotated."""
    findings = []
    annotated = {p: [c for c in own if c.annotated is None or use.name in c.annotated] for p, own in patients.items()}
    lacking = [p for p, own in annotated.items() if own and not any(c.counts.get(use.index) for c in own)]
    if lacking:
        what = f"class '{use.name}' is absent from {len(lacking)} of {use.annotated} patients: {shown(lacking)}"
        hint = "Correct if the structure is absent; if it was not annotated, list it as such"
        findings.append(Finding("note", "class-lacking", location, what, hint))
    unannotated = [p for p, own in annotated.items() if not own]
    if unannotated:
        count = f"{len(unannotated)} of {len(patients)} patients"
        what = f"class '{use.name}' was not annotated in {count}: {shown(unannotated)}"
        findings.append(
            Finding("note", "class-not-annotated", location, what, "It is free in their cases; nothing to do")
        )
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
        hint = "Prepare with one --spacing, or the same organ will appear at several scales" if far else ""
        findings.append(Finding("warning" if far else "note", "spacing-differs", location, what, hint))
    directions = Counter(case.orientation for case in cases)
    if len(directions) > 1:
        what = "axis orientations differ: " + ", ".join(f"{name} ({n})" for name, n in directions.most_common())
        hint = "prepare reorients all of them; nothing to do"
        findings.append(Finding("note", "orientation-differs", location, what, hint))
    shapes = np.array([case.grid for case in cases])
    if (shapes.min(axis=0) != shapes.max(axis=0)).any():
        low, high = (" x ".join(map(str, edge)) for edge in (shapes.min(axis=0), shapes.max(axis=0)))
        what = f"image shapes differ: from {low} to {high} voxels"
        findings.append(
            Finding("note", "shape-differs", location, what, "prepare fits all of them to --size; see --fit")
        )
    return findings


def intensity_findings(cases: Sequence[CaseSummary], channels: Sequence[str], location: str) -> list[Finding]:
    """Types and ranges: mixed types, HU or what should be HU, scales that differ between cases."""
    findings = []
    kinds = Counter(case.dtype for case in cases)
    if len(kinds) > 1:
        what = "image types differ: " + ", ".join(f"{name} ({n})" for name, n in kinds.most_common())
        findings.append(Finding("note", "dtype-differs", location, what, "Correct if their intensities mean the same"))
    low, high = min(c.low for c in cases), max(c.high for c in cases)
    hounsfield = [c for c in cases if -4096 <= c.low <= -200 and 0 < c.high < 40000]
    is_ct = any(name.strip().lower() in ("ct", "cbct") for name in channels)
    if 2 * len(hounsfield) > len(cases):
        what = f"intensities from {low:g} to {high:g} look like Hounsfield units"
        extended = [c.image_file for c in cases if c.high > _HIGHEST_HU]
        if extended:
            what += f", except values above {_HIGHEST_HU} (metal, or a wrong slope) in {len(extended)} cases: "
            what += shown(extended, 3)
        findings.append(
            Finding("note", "hounsfield", location, what, "Prepare with a window, for instance --window -160 240")
        )
    elif is_ct and low >= 0:
        what = f"the channel is named CT, but intensities range from {low:g} to {high:g}: not Hounsfield units"
        hint = "Export CT with its rescale slope and intercept; windowing to 8 bits loses the HU"
        findings.append(Finding("warning", "ct-not-hounsfield", location, what, hint))
    bright = [c.bright for c in cases if c.bright > 0]
    if bright and not hounsfield and max(bright) > 20 * min(bright):
        what = f"intensity scales differ between cases: 99.5th percentiles from {min(bright):g} to {max(bright):g}"
        hint = "Keep the default of prepare, percentiles of each case, instead of one --window"
        findings.append(Finding("note", "scale-differs", location, what, hint))
    return findings
