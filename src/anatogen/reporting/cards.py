"""A model card (Mitchell et al. 2019) and a data sheet (Gebru et al. 2021) in Markdown, filled from what was measured
alone.

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

from anatogen.data.documents import DatasetInfo
from anatogen.generation.header import Header
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import Selection
from anatogen.model import DENOISER, AboutModel, ModelDocument, ModelSpec
from anatogen.progress import format_duration
from anatogen.reporting.answers import (
    answers,
    generator_tables,
    images_in_words,
    not_applicable_in_words,
    privacy_status,
    selection_in_words,
    split_in_words,
)
from anatogen.reporting.overview import selection_line
from anatogen.reporting.results import AboutDataset, Report
from anatogen.reporting.tables import Table, TableRow, amount, counted
from anatogen.training.config import LearnedSettings

UNKNOWN = "unknown"
KINDS = {
    DENOISER: "diffusion model of images that follow a label map (Konz et al. 2024), by anatogen",
    "spade": "SPADE: a generative adversarial network that follows a label map (Park et al. 2019), as in anatogen",
    "latent": "latent diffusion with a control branch for the label map (Rombach et al. 2022; Zhang et al. 2023), as "
    "in anatogen",
    "controlnet": "ControlNet on a finetuned Stable Diffusion (Zhang et al. 2023), as in anatogen",
    "retrieval": "nearest-map retrieval: the training image, of a real patient, with the nearest label map",
    "painting": "each class of a label map drawn with its intensity and texture; nothing is learned",
}
"""Each kind of model in words."""
_NOT_DIFFUSION = ("spade", "retrieval", "painting")
_UNLEARNED = ("retrieval", "painting")


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a generator beyond its report.

    Attributes:
        kind: Of its model.
        document: Of the run of a denoiser.
        settings: Of its training, of whatever kind.
        spec: What it takes and gives.
        digest: Of its weights.
    """

    kind: str = DENOISER
    document: ModelDocument | None = None
    settings: LearnedSettings | None = None
    spec: ModelSpec | None = None
    parameters: int | None = None
    digest: str | None = None

    def about(self, report: Report) -> AboutModel:
        """What the model says of itself, in its run or in `report`."""
        if self.document is not None:
            return self.document.about
        return AboutModel.model_validate(report.model.content() if report.model else {})


def model_card(report: Report, model: ModelFacts = ModelFacts(), dataset: DatasetInfo | None = None) -> str:
    """The card of the generator that `report` is of.

    Args:
        report: Any part of it may be missing.
        model: What is known of the generator besides.
        dataset: What it was trained on.
    """
    about, of_data = model.about(report), _about_dataset(report, dataset)
    return _render(
        "model_card.md",
        report,
        of_data,
        name=(about.dataset.name if about.dataset else None) or of_data.name,
        details=_facts(_model_details(about, model)),
        training=_facts(_training_data(of_data, dataset)),
        mask_ablation=_mask_ablation(about),
        diffusion=model.kind not in _NOT_DIFFUSION,
        unlearned=model.kind in _UNLEARNED,
        settings=report.sampling or (about.sampling if "sampling" in about.model_fields_set else None),
        notice=about.notice or of_data.notice,
    )


def data_sheet(report: Report, header: Header | None = None, counts: SetCounts | None = None) -> str:
    """The sheet of the sample set that `report` is of.

    header: the set's. counts: see `count_entries`. What is missing is said to be unknown.
    """
    dataset = _about_dataset(report, None)
    about = header.about_model if header is not None else None
    counts = counts or SetCounts()
    return _render(
        "data_sheet.md",
        report,
        dataset,
        name=dataset.name or (about.dataset.name if about else None),
        composition=_facts(_composition(header, counts)),
        classes=_class_table(header, counts),
        process=_facts(_process(report, header, counts)),
        images=counts.images,
        size_category=_Markdown(_size_category(counts.images)),
        paired=header.request.paired if header is not None else None,
        similarities=list(counts.similarities or ()),
        notice=(about.notice if about else None) or dataset.notice,
        commands=list(dict.fromkeys(c for c in (header.command if header else "", report.command) if c)),
    )


@dataclass(frozen=True)
class SetCounts:
    """What a data sheet says of the lines of a manifest;

    None where it is not known. Names of patients are counted and not kept.

    images, label_maps, patients, label_map_files, seeds: how many (label_map_files: of a folder of the user's own).
    given, free, absent: images a class. splits, similarities: images each. elsewhere: images from each other data set's
    maps. selection: how many images were made and rejected, and by what.
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


def count_entries(entries: Iterable[Line], selection: Selection | None = None) -> SetCounts:
    """Count the lines of a manifest."""
    given, free, absent = Counter[str](), Counter[str](), Counter[str]()
    splits, similarities, elsewhere = Counter[str](), Counter[float](), Counter[str]()
    maps, patients, files, seeds, images = set(), set(), set(), set(), 0
    for entry in entries:
        images += 1
        maps.add((entry.elsewhere, entry.case, entry.slice, entry.file_of_map, entry.edit))
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
    """A table of GitHub's Markdown: its caption, its rows, each with its detail, and the headings of its groups
    below.
    """
    heads = " | ".join(_escape(name) for name in table.columns)
    rule = " | ".join([":---", *["---:"] * (len(table.columns) - 1)])
    caption = table.caption if table.caption.endswith("?") else f"{table.caption}:"
    lines = [_escape(caption), "", f"| {heads} |", f"| {rule} |"]
    for row in table.rows:
        label = row.label + (f", {row.detail}" if row.detail else "")
        lines.append("| " + " | ".join(_escape(cell) for cell in (label, *row.cells)) + " |")
    groups = [_escape(name) for name in dict.fromkeys(row.group for row in table.rows) if name]
    return _Markdown("\n".join([*lines, *([""] if groups else []), *(f"- {name}." for name in groups)]))


def _render(template: str, report: Report, dataset: AboutDataset, **more: Any) -> str:
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
        report=report,
        answers={a.chapter: a for a in answers(report)},
        generator=generator_tables(report),
        images_measured=images_in_words(report),
        split=split_in_words(report),
        seed=report.seed,
        copies=privacy_status(report),
        selection=selection_in_words(report),
        not_applicable=not_applicable_in_words(report),
        stated={"licence": dataset.licence, "reference": dataset.reference},
        unknown=UNKNOWN,
        **more,
    )
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _about_dataset(report: Report, info: DatasetInfo | None) -> AboutDataset:
    """What `report`, or else the data set itself, says of its source."""
    if report.dataset:
        return report.dataset
    if info is None:
        return AboutDataset()
    return AboutDataset.model_validate({**info.source, "notice": info.notice, "cases": len(info.cases)})


def _mask_ablation(about: AboutModel) -> bool | None:
    """Whether the model was trained with mask ablation; None where that is not known."""
    return about.mask_ablation if "mask_ablation" in about.model_fields_set else None


def _model_details(about: AboutModel, model: ModelFacts) -> list[tuple[str, Any]]:
    ablation = _mask_ablation(about)
    learned = model.kind not in _UNLEARNED
    return [
        ("kind", KINDS.get(model.kind, model.kind)),
        ("version of anatogen", about.version),
        *([("imported from", about.imported_from)] if about.imported_from else []),
        *([("started from the run", about.started_from.run)] if about.started_from else []),
        *_network_details(about, model),
        ("pixel size in mm", " x ".join(f"{mm:.3g}" for mm in about.spacing_mm) if about.spacing_mm else None),
        ("slices along", about.axis),
        ("classes can be left free (mask ablation)", None if ablation is None else "yes" if ablation else "no"),
        *(
            _training_details(about, model)
            if learned
            else [("images that it is made from", _amount_or_none(about.images))]
        ),
        ("hash of the weights", model.digest),
    ]


def _network_details(about: AboutModel, model: ModelFacts) -> list[tuple[str, Any]]:
    """Its network and what it takes: of a denoiser from its document, of others from what it says of itself."""
    denoiser, spec = model.document.denoiser if model.document is not None else None, model.spec
    channels = _joined(about.channels or ()) or (_amount_or_none(denoiser.image_channels) if denoiser else None)
    classes = [name for name, _ in denoiser.classes] if denoiser else spec.schema.names if spec else None
    size = denoiser.size if denoiser else spec.size if spec else None
    found = [
        ("classes", _joined(classes) if classes is not None else None),
        ("image size", " x ".join(map(str, size)) if size is not None else None),
        ("channels", channels),
    ]
    if model.kind != DENOISER:
        return found
    return [
        ("network", _named(denoiser.network.model_dump(exclude_unset=True)) if denoiser else None),
        ("parameters", _amount_or_none(model.parameters)),
        ("path, prediction", _joined([denoiser.path, denoiser.target]) if denoiser else None),
        ("label maps enter as", denoiser.encoding if denoiser else None),
        *found,
    ]


def _training_details(about: AboutModel, model: ModelFacts) -> list[tuple[str, Any]]:
    training = model.settings.training if model.settings is not None else None
    of_training = (training.batch_size, training.learning_rate, training.seed) if training else ()
    preset = [("preset", getattr(model.settings, "preset", None))] if model.kind == DENOISER else []
    return [
        *preset,
        ("training steps", _amount_or_none(about.steps)),
        ("images seen in training", _amount_or_none(about.images)),
        *([("length of the weights' average", f"{about.average_length:g}")] if about.average_length else []),
        ("training time", format_duration(about.seconds) if about.seconds is not None else None),
        ("batch size, learning rate, seed", _joined(of_training)),
    ]


def _training_data(about: AboutDataset, info: DatasetInfo | None) -> list[tuple[str, Any]]:
    facts = [
        ("data set", about.name),
        ("layout", about.layout),
        ("fingerprint of the source", about.fingerprint),
        ("cases", _amount_or_none(about.cases)),
    ]
    if info is not None:
        by_split: dict[str, set[str]] = {}
        for case in info.cases.values():
            by_split.setdefault(case.split, set()).add(case.patient)
        facts.append(("patients a split", ", ".join(f"{name} {len(patients)}" for name, patients in by_split.items())))
    return [
        *facts,
        ("channels", _joined(info.channels) if info is not None else None),
        ("slices along", info.axis if info is not None else None),
        ("intensities", _named(info.intensity_rule) if info is not None else None),
        ("licence", about.licence),
        ("reference", about.reference),
    ]


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
    rows = [TableRow(n, tuple(UNKNOWN if k is None else amount(k.get(n, 0)) for k in known)) for n in names]
    return Table("Images in which each class was", ("class", "given", "free", "erased and given"), tuple(rows))


def _process(report: Report, header: Header | None, counts: SetCounts) -> list[tuple[str, Any]]:
    sampling = header.sampling if header is not None else report.sampling
    asked = header.request.seed if header is not None else None
    guidance = sampling.guidance_in_words.removeprefix("guidance ") if sampling else ""
    return [
        ("model, by the hash of its weights", header.model if header is not None else report.model_digest),
        ("its training steps", _amount_or_none(header.about_model.steps if header is not None else None)),
        ("solver", sampling.solver if sampling else None),
        ("solver steps", _amount_or_none(sampling.steps if sampling else None)),
        ("eta", sampling.eta if sampling else None),
        *([("guidance on the label map", guidance)] if guidance else []),
        ("seed", asked if asked is not None else report.seed),
        ("different seeds of images", _amount_or_none(counts.seeds)),
        ("version of anatogen", (header.version if header is not None else "") or report.version),
    ]


def _facts(pairs: Sequence[tuple[str, Any]]) -> str:
    """What is known of something, a line each; what is not, in one sentence after it."""
    known = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    rows = "\n".join(f"| {_escape(name)} | {_escape(value)} |" for name, value in known)
    missing = ", ".join(name for name, value in pairs if value in (None, ""))
    text = f"| what | value |\n| :--- | :--- |\n{rows}\n" if known else ""
    return _Markdown(text + (f"\nUnknown: {_escape(missing)}.\n" if missing else ""))


def _amount_or_none(value: float | None) -> str | None:
    return None if value is None else amount(value)


def _named(settings: Mapping[str, Any]) -> str:
    """ "hourglass, width 96, depth 2"."""
    return ", ".join(
        f"{key} {value}" if key != "name" else str(value) for key, value in settings.items() if value is not None
    )


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
