"""A sample set at a glance: a line for each label map, every image with what was given."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from anatogen.conditioning.regions import parse_region
from anatogen.data.store import PreparedDataset, Row
from anatogen.errors import SettingsError
from anatogen.files import writing
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, Selection
from anatogen.io.pictures import write_animation
from anatogen.labels import LabelSchema
from anatogen.reporting import figures

_MAPS = 8
_A_LINE = 8
_AN_IMAGE = 64
_VOLUMES = 3


def write_overview(samples: SampleSet, dataset: PreparedDataset | None = None) -> str:
    """Write `overview.png` beside the manifest, and of volumes also `slices.gif`; returns the name of the first."""
    if len(samples.label_map(samples.entries[0]).shape) == 3:
        write_animation(samples.folder / "slices.gif", slice_by_slice(samples, dataset=dataset))
    with writing(samples.folder / "overview.png") as path:
        path.write_bytes(overview(samples, dataset=dataset))
    return "overview.png"


def overview(samples: SampleSet, maps: int = _MAPS, *, dataset: PreparedDataset | None = None) -> bytes:
    """PNG: `maps` label maps spread over the set, each followed by its images, the given classes outlined in them.

    The real image comes last where the set has it, or where `dataset` does, from which the maps are; of a
    counterfactual also what differs from it. Channels that are
    no colours stand side by side. Above all stands what was rejected, where gates selected the images.
    """
    rows: dict[tuple[str | None, int | None], Row] = {}
    if dataset is not None:
        rows = {(row.case, row.slice): row for row in dataset.rows}
    by_map: dict[str, list[Line]] = {}
    for entry in samples.entries:
        by_map.setdefault(entry.label_map, []).append(entry)
    names = list(by_map)
    shown = min(maps, len(names))
    chosen = [names[(2 * i + 1) * len(names) // (2 * shown)] for i in range(shown)]
    spacing, lines = samples.header.about_model.spacing_mm, []
    for name in chosen:
        entries = by_map[name][:_AN_IMAGE]
        labels = samples.label_map(entries[0])
        view = figures.view_of(labels, spacing)
        line: list[figures.Picture] = [(_short(f"map: {name}", 24), figures.coloured(labels, samples.schema, view))]
        mixed = any(entry.free or entry.absent for entry in by_map[name])
        for entry in entries:
            picture = figures.outlined(samples.image(entry), given_part(samples, entry), samples.schema, view)
            line.append((_title(entry, samples.schema, mixed), picture))
        row = rows.get((entries[0].case, entries[0].slice))
        if entries[0].real is not None:
            line.append(("real", figures.gray(samples.real_image(entries[0]), view)))
            if entries[0].margin is not None:
                difference = np.abs(samples.image(entries[0]) - samples.real_image(entries[0])) - 1
                line.append(("difference", figures.gray(difference, view)))
        elif dataset is not None and row is not None:
            line.append(("real", figures.gray(dataset.load([row]).images[0].numpy(), view)))
        lines += [line[i : i + _A_LINE + 1] for i in range(0, len(line), _A_LINE + 1)]
    return figures.grid(lines, title=selection_line(samples.selection))


def given_part(samples: SampleSet, entry: Line) -> NDArray[np.int64]:
    """The label map of an image where it was given, 0 elsewhere: given classes, and what lies outside the region in
    which the others are free. Where that is a mask's, the others are left out.
    """
    labels = samples.label_map(entry)
    given = np.isin(labels, [samples.schema.index_of(name) for name in entry.given])
    if entry.free_within is not None:
        with suppress(SettingsError):  # the file of a mask
            spacing = samples.header.about_model.spacing_mm
            region = parse_region(entry.free_within, labels.shape, samples.schema.index_of, spacing)
            given |= ~region.inside(labels)
    return np.where(given, labels, 0)


def slice_by_slice(
    samples: SampleSet, maps: int = _VOLUMES, *, dataset: PreparedDataset | None = None
) -> list[NDArray[np.uint8]]:
    """Frames (H, W, 3) through the axial slices of a set's volumes, the head first.

    A line a label map: the map, the volume generated from it with the given classes outlined, and the real one where
    `dataset` has it.
    """
    rows: dict[tuple[str | None, int | None], Row] = {}
    if dataset is not None:
        rows = {(row.case, row.slice): row for row in dataset.rows}
    by_map = {entry.label_map: entry for entry in reversed(samples.entries)}
    names = list(dict.fromkeys(entry.label_map for entry in samples.entries))
    shown = min(maps, len(names))
    volumes = []
    for name in (names[(2 * i + 1) * len(names) // (2 * shown)] for i in range(shown)):
        entry = by_map[name]
        given, row = given_part(samples, entry), rows.get((entry.case, entry.slice))
        real = dataset.load([row]).images[0].numpy() if dataset is not None and row is not None else None
        volumes.append((given, samples.image(entry), real))
    frames, view = [], _in_plane(samples)
    for place in range(len(volumes[0][0])):
        lines = []
        for given, image, real in volumes:
            parts = [
                np.kron(figures.coloured(given[place], samples.schema, view), np.ones((3, 3, 1))),
                figures.outlined(image[:, place], given[place], samples.schema, view),
            ]
            if real is not None:
                parts.append(np.kron(figures.gray(real[:, place], view), np.ones((3, 3, 1))))
            lines.append(np.concatenate(parts, axis=1))
        width = max(line.shape[1] for line in lines)
        padded = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in lines]
        frames.append((np.concatenate(padded) * 255).round().astype(np.uint8))
    return frames


def _in_plane(samples: SampleSet) -> figures.View:
    """The view of an axial slice of a volume."""
    spacing = samples.header.about_model.spacing_mm
    return figures.View(spacing_mm=spacing and spacing[1:])


def selection_line(selection: Selection) -> str:
    """What gates kept, in one line; "" where every image was kept."""
    gate = selection.gate
    if gate is None:
        return ""
    by = [f"a Dice of at least {gate.min_dice:g}"] if gate.min_dice is not None else []
    by += ["no copy of a training image"] if gate.reject_copies is not None else []
    by += sorted(gate.others or {})
    share = 100 * selection.rejected / selection.made if selection.made else 0.0
    found = f"Selected by {' and '.join(by) or 'a gate'}: {selection.kept:,} of {selection.made:,} images were kept"
    return f"{found}, {selection.rejected:,} ({share:.0f} %) rejected"


def _title(entry: Line, schema: LabelSchema, mixed: bool) -> str:
    """What sets an image apart from the others of its map."""
    given, free = [name for name in entry.given if name not in entry.absent], entry.free
    parts = []
    if entry.similarity is not None:
        parts.append(f"similarity {entry.similarity:g}")
    if entry.absent:
        parts.append("no " + ", ".join(entry.absent))
    if entry.free_within is not None:
        parts.append(("all" if len(free) == len(schema.names) else ", ".join(free)) + " free in a region")
    elif free and len(free) == len(schema.names):
        parts.append("all free")
    elif free and len(free) <= len(given):
        parts.append(", ".join(free) + " free")
    elif free:
        parts.append("given: " + ", ".join(given))
    elif mixed and not entry.absent:
        parts.append("all given")
    if entry.repeat:
        parts.append(f"image {entry.repeat + 1}")
    return _short("; ".join(parts) or "generated", 34)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most // 2] + "…" + text[-(most - most // 2 - 1) :]
