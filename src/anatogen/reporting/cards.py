"""A model card (Mitchell et al. 2019) and a data sheet (Gebru et al. 2021) in Markdown, filled from what was measured alone.

What is not known is said to be unknown, and what was not measured, how to measure it.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader

from anatogen.generation.header import Header
from anatogen.generation.manifest import Line as ManifestLine
from anatogen.generation.sample_set import Selection
from anatogen.progress import format_duration
from anatogen.reporting.answers import (
    Results,
    answers,
    generator_tables,
    images_in_words,
    privacy_status,
    seed_of,
    selection_in_words,
    split_in_words,
)
from anatogen.reporting.overview import selection_line
from anatogen.reporting.tables import Line, Table, amount, counted, number

UNKNOWN = "unknown"
_REFERENCES = {"licence": ("licence", "license"), "reference": ("reference", "citation", "doi")}


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def model_card(results: Results, model: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """The card of the generator that `results` (report.json's content) are of.

    model: model.json's content, that is `about` and `denoiser`; also, where known, `settings` (config.yaml's content),
    `parameters` (their count) and `hash` (of the weights). dataset: what the model was trained on: dataset.json's content, or what
    report.json says of it; also, where the data set states them, `licence` and `reference`. Any key may be missing.
    """
    about = model.get("about") or results.get("model") or {}
    return _render(
        "model_card.md",
        results,
        dataset,
        name=_name_of(about.get("dataset") or {}) or _name_of(dataset),
        details=_facts(_model_details(about, model.get("denoiser") or {}, model)),
        training=_facts(_training_data(dataset)),
        mask_ablation=about.get("mask_ablation"),
        settings=about.get("sampling") or results.get("sampling") or {},
        notice=about.get("notice") or dataset.get("notice"),
    )


def data_sheet(results: Results, header: Header | None = None, counts: SetCounts | None = None) -> str:
    """The sheet of the sample set that `results` (report.json's content) are of.

    header: the set's. counts: see `count_entries`. What is missing is said to be unknown.
    """
    dataset = results.get("dataset") or {}
    about = header.about_model.content() if header is not None else {}
    counts = counts or SetCounts()
    return _render(
        "data_sheet.md",
        results,
        dataset,
        name=_name_of(dataset) or _name_of(about.get("dataset") or {}),
        composition=_facts(_composition(header, counts)),
        classes=_class_table(header, counts),
        process=_facts(_process(results, header, counts)),
        images=counts.images,
        size_category=_Markdown(_size_category(counts.images)),
        paired=header.request.paired if header is not None else None,
        similarities=list(counts.similarities or ()),
        notice=about.get("notice") or dataset.get("notice"),
        commands=list(dict.fromkeys(c for c in (header.command if header else "", results.get("command")) if c)),
    )


@dataclass(frozen=True)
class SetCounts:
    """What a data sheet says of the lines of a manifest; None where it is not known. Names of patients are counted and not kept.

    images, label_maps, patients, label_map_files, seeds: how many (label_map_files: of a folder of the user's own).
    given, free, absent: images a class. splits, similarities: images each. elsewhere: images from each other data set's maps.
    selection: how many images were made and rejected, and by what.
    """

    images: int | None = None
    label_maps: int | None = None
    patients: int | None = None
    label_map_files: int | None = None
    seeds: int | None = None
    given: Mapping[str, int] | None = None
    free: Mapping[str, int] | None = None
    absent: Mapping[str, int] | None = None
    splits: Mapping[str, int] | None = None
    similarities: Mapping[float, int] | None = None
    elsewhere: Mapping[str, int] | None = None
    selection: Selection | None = None


def count_entries(entries: Iterable[ManifestLine], selection: Selection | None = None) -> SetCounts:
    """Count the lines of a manifest."""
    given, free, absent = Counter[str](), Counter[str](), Counter[str]()
    splits, similarities, elsewhere = Counter[str](), Counter[float](), Counter[str]()
    maps, patients, files, seeds, images = set(), set(), set(), set(), 0
    for entry in entries:
        images += 1
        maps.add((entry.elsewhere, entry.case, entry.slice, entry.file_of_map))
        patients |= {entry.patient} - {None}
        files |= {entry.file_of_map} - {None}
        seeds.add(entry.seed)
        for names, counter in ((entry.given, given), (entry.free, free), (entry.absent, absent)):
            counter.update(names)
        splits.update([entry.split] if entry.split is not None else [])
        similarities.update([entry.similarity] if entry.similarity is not None else [])
        elsewhere.update([entry.elsewhere] if entry.elsewhere is not None else [])
    return SetCounts(
        images=images,
        label_maps=len(maps),
        patients=len(patients),
        label_map_files=len(files),
        seeds=len(seeds),
        given=given,
        free=free,
        absent=absent,
        splits=splits,
        similarities=dict(sorted(similarities.items())),
        elsewhere=elsewhere,
        selection=selection,
    )


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown: its caption, its lines, each with its detail, and the headings of its groups below."""
    heads = " | ".join(_escape(name) for name in table.columns)
    rule = " | ".join([":---", *["---:"] * (len(table.columns) - 1)])
    caption = table.caption if table.caption.endswith("?") else f"{table.caption}:"
    lines = [_escape(caption), "", f"| {heads} |", f"| {rule} |"]
    for line in table.lines:
        label = line.label + (f", {line.detail}" if line.detail else "")
        lines.append("| " + " | ".join(_escape(cell) for cell in (label, *line.cells)) + " |")
    groups = [_escape(name) for name in dict.fromkeys(line.group for line in table.lines) if name]
    return _Markdown("\n".join([*lines, *([""] if groups else []), *(f"- {name}." for name in groups)]))


def _render(template: str, results: Results, dataset: Mapping[str, Any], **more: Any) -> str:
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escape,
        autoescape=False,  # not HTML: `finalize` escapes what Markdown gives a meaning
    )
    environment.filters |= {"markdown": markdown, "code": _code, "block": _block, "counted": counted}
    text = environment.get_template(template).render(
        results=results,
        answers={a.section: a for a in answers(results)},
        generator=generator_tables(results),
        images_measured=images_in_words(results),
        split=split_in_words(results),
        seed=seed_of(results),
        copies=privacy_status(results),
        selection=selection_in_words(results),
        stated={key: _first(dataset, names) for key, names in _REFERENCES.items()},
        unknown=UNKNOWN,
        **more,
    )
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _model_details(
    about: Mapping[str, Any], denoiser: Mapping[str, Any], model: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    network, settings = denoiser.get("network") or {}, model.get("settings") or {}
    size, spacing = denoiser.get("size"), about.get("spacing_mm")
    seconds = number(about.get("seconds"))
    training = settings.get("training") or {}
    ablation = about.get("mask_ablation")
    imported = [("imported from", about["imported_from"])] if about.get("imported_from") else []
    return [
        ("kind", "diffusion model of images that follow a label map (Konz et al. 2024), by anatogen"),
        ("version of anatogen", about.get("version")),
        *imported,
        ("network", _named(network)),
        ("parameters", amount(model["parameters"]) if model.get("parameters") else None),
        ("path, prediction", _joined([denoiser.get("path"), denoiser.get("target")])),
        ("label maps enter as", denoiser.get("encoding")),
        ("classes", _joined([c[0] for c in denoiser.get("classes") or ()])),
        ("image size", " x ".join(map(str, size)) if size else None),
        ("pixel size in mm", " x ".join(f"{mm:.3g}" for mm in spacing) if spacing else None),
        ("channels", _joined(about.get("channels") or ()) or _amount_or_none(denoiser.get("image_channels"))),
        ("slices along", about.get("axis")),
        ("classes can be left free (mask ablation)", None if ablation is None else "yes" if ablation else "no"),
        ("preset", settings.get("preset")),
        ("training steps", _amount_or_none(about.get("steps"))),
        ("images seen in training", _amount_or_none(about.get("images"))),
        ("training time", format_duration(seconds) if seconds is not None else None),
        ("batch size, learning rate, seed", _joined([training.get(k) for k in ("batch_size", "learning_rate", "seed")])),
        ("hash of the weights", model.get("hash")),
    ]  # fmt: skip


def _training_data(dataset: Mapping[str, Any]) -> list[tuple[str, Any]]:
    source = dataset.get("source") or dataset
    cases = dataset.get("cases")
    facts = [
        ("data set", _name_of(dataset)),
        ("layout", source.get("layout")),
        ("fingerprint of the source", source.get("fingerprint")),
        ("cases", amount(len(cases)) if isinstance(cases, Mapping) else _amount_or_none(cases)),
    ]
    if isinstance(cases, Mapping):
        by_split: dict[str, set[str]] = {}
        for case in cases.values():
            by_split.setdefault(str(case.get("split")), set()).add(str(case.get("patient")))
        facts.append(("patients a split", ", ".join(f"{name} {len(patients)}" for name, patients in by_split.items())))
    facts += [
        ("channels", _joined(dataset.get("channels") or ())),
        ("slices along", dataset.get("axis")),
        ("intensities", _named(dataset.get("intensity_rule") or {})),
        ("licence", _first(dataset, _REFERENCES["licence"])),
        ("reference", _first(dataset, _REFERENCES["reference"])),
    ]
    return facts


def _composition(header: Header | None, counts: SetCounts) -> list[tuple[str, Any]]:
    splits, elsewhere, selection = counts.splits or {}, counts.elsewhere or {}, counts.selection
    where = [f"split {name} of the model's own data set ({counted(n, 'image')})" for name, n in splits.items()]
    where += [f"the data set {name} ({counted(n, 'image')})" for name, n in elsewhere.items()]
    if counts.label_map_files:
        where.append(f"a folder of the user's own ({counted(counts.label_map_files, 'file')})")
    similar, none = counts.similarities or {}, "none asked for" if counts.similarities is not None else None
    facts = [
        ("images", _amount_or_none(counts.images)),
        ("different label maps", _amount_or_none(counts.label_maps)),
        ("patients whose label maps they are", _amount_or_none(counts.patients or None)),
        ("label maps from", "; ".join(where)),
        ("images for each similarity to a real one", ", ".join(f"{s}: {n}" for s, n in similar.items()) or none),
        ("channels", _joined(header.channels if header is not None else ())),
        ("file format", header.image_format if header is not None else None),
    ]  # fmt: skip
    if selection is None:
        return [*facts, ("images made and rejected", None)]
    how = selection_line(selection) or "not selected: every image that was made was kept"
    return [*facts, ("selection", how), ("images made and rejected", amount(selection.rejected))]


def _class_table(header: Header | None, counts: SetCounts) -> Table | None:
    known = (counts.given, counts.free, counts.absent)
    names = list(header.label_schema.names) if header is not None else []
    names = names or list(dict.fromkeys(name for each in known for name in each or ()))
    if not names:
        return None
    rows = [Line(n, tuple(UNKNOWN if k is None else amount(k.get(n, 0)) for k in known)) for n in names]
    return Table("Images in which each class was", ("class", "given", "free", "erased and given"), tuple(rows))


def _process(results: Results, header: Header | None, counts: SetCounts) -> list[tuple[str, Any]]:
    sampling = (
        header.sampling.model_dump()
        if header is not None and header.sampling is not None
        else results.get("sampling") or {}
    )
    asked = header.request.seed if header is not None else None
    return [
        ("model, by the hash of its weights", header.model if header is not None else None),
        ("its training steps", _amount_or_none(header.about_model.steps if header is not None else None)),
        ("solver", sampling.get("solver")),
        ("solver steps", _amount_or_none(sampling.get("steps"))),
        ("eta", sampling.get("eta")),
        ("seed", asked if asked is not None else seed_of(results)),
        ("different seeds of images", _amount_or_none(counts.seeds)),
        ("version of anatogen", (header.version if header is not None else "") or results.get("version")),
    ]


def _facts(pairs: Sequence[tuple[str, Any]]) -> str:
    """What is known of something, a line each; what is not, in one sentence after it."""
    known = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    rows = "\n".join(f"| {_escape(name)} | {_escape(value)} |" for name, value in known)
    missing = ", ".join(name for name, value in pairs if value in (None, ""))
    text = f"| what | value |\n| :--- | :--- |\n{rows}\n" if known else ""
    return _Markdown(text + (f"\nUnknown: {_escape(missing)}.\n" if missing else ""))


def _amount_or_none(value: Any) -> str | None:
    return amount(value) if number(value) is not None else None


def _name_of(dataset: Mapping[str, Any]) -> str | None:
    return dataset.get("name") or (dataset.get("source") or {}).get("name")


def _first(dataset: Mapping[str, Any], names: Iterable[str]) -> str | None:
    places = (dataset, dataset.get("source") or {})
    return next((str(place[name]) for name in names for place in places if place.get(name)), None)


def _named(settings: Mapping[str, Any]) -> str:
    """ "hourglass, width 96, depth 2"."""
    return ", ".join(f"{key} {value}" if key != "name" else str(value) for key, value in settings.items())


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values if value is not None)


def _size_category(images: float | None) -> str:
    """As Hugging Face's cards have it."""
    bounds = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"))
    return "" if images is None else next((name for most, name in bounds if images < most), "n>1M")


def _escape(value: Any) -> str:
    """Text in which nothing has a meaning for Markdown or HTML, on one line."""
    if isinstance(value, _Markdown):
        return value
    text = html.escape(" ".join(str(value).split()), quote=False)
    text = re.sub(r"([\\`*|~])", r"\\\1", text).replace("](", r"]\(")
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _code(value: Any) -> str:
    """Text within a line, as code."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return _Markdown(f"{fence} {text} {fence}" if "`" in text else f"`{text}`")


def _block(value: Any) -> str:
    """Text as a block of code of one line."""
    text = " ".join(str(value).split())
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return _Markdown(f"{fence}\n{text}\n{fence}")
