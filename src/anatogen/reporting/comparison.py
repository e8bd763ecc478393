"""The comparison of several systems over the same label maps: typed results, tables, and the files that are written."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from jinja2 import Environment, PackageLoader, select_autoescape
from pydantic import Field

from anatogen.files import writing
from anatogen.progress import format_duration
from anatogen.reporting.report import Figure
from anatogen.reporting.results import (
    AboutDataset,
    ImageCount,
    Interval,
    Number,
    PrivacyResult,
    RealismResult,
    ReconstructionResult,
    Result,
    Score,
    Trained,
)
from anatogen.reporting.tables import (
    NOTHING,
    Table,
    TableRow,
    amount,
    counted,
    decibels,
    general,
    interval,
    p_value,
    ratio,
    signed,
    with_interval,
)
from anatogen.settings import Document

Mark = Literal["best", "second"]


class Cost(Result):
    """What a system took and takes.

    Attributes:
        parameters: Of what makes the images.
        training_seconds, training_images: Of its training.
        gflops: 10^9 floating-point operations of one image, all its steps.
        images_per_second: Generated in this comparison, in batches of 16.
        peak_mb: Device memory in use at most while these were generated; None on a CPU.
        device: Where it was measured.
    """

    parameters: int | None = None
    training_seconds: Number = None
    training_images: int | None = None
    gflops: Number = None
    images_per_second: Number = None
    peak_mb: Number = None
    device: str | None = None


class Difference(Result):
    """A system's score less that of the reference, paired by patient."""

    mean: Number = None
    ci95: Interval | None = None


class Compared(Result):
    """One system.

    Attributes:
        kind: Of its model; None where its run is not at hand.
        not_run: Why it was not run; then there is nothing else.
        report: The folder of its own report, from that of the comparison.
        dice_gen_map, dice_gen_real: Faithfulness, as in a report.
        synthetic, both: Utility, as in a report.
        differences: To the reference, of each measure that is known by patient.
        marks: The measures in which it is really the best, or the second best.
        floors: What it does not beat, in sentences.
    """

    name: str
    kind: str | None = None
    not_run: str | None = None
    report: str | None = None
    mask_ablation: bool | None = None
    steps: int | None = None
    dice_gen_map: Score | None = None
    dice_gen_real: Score | None = None
    synthetic: Trained | None = None
    both: Trained | None = None
    reconstruction: ReconstructionResult | None = None
    realism: RealismResult | None = None
    privacy: PrivacyResult | None = None
    cost: Cost = Cost()
    differences: dict[str, Difference] = Field(default_factory=dict)
    marks: dict[str, Mark] = Field(default_factory=dict)
    floors: tuple[str, ...] = ()


class Comparison(Document):
    """comparison.json.

    Attributes:
        n: Images and patients, the same for every system.
        reference: The system that differences are to.
        ceiling: Dice(m_real, m): what real images reach.
        real: Utility of real images alone.
    """

    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Compare again"

    n: ImageCount = ImageCount()
    split: tuple[str, ...] = ()
    reference: str
    systems: tuple[Compared, ...]
    ceiling: Score | None = None
    real: Trained | None = None
    command: str = ""
    version: str = ""
    dataset: AboutDataset | None = None

    @property
    def run(self) -> tuple[Compared, ...]:
        """The systems that were run."""
        return tuple(system for system in self.systems if system.not_run is None)


@dataclass(frozen=True)
class _Cell:
    text: str
    mark: Mark | None = None


def tables(found: Comparison) -> tuple[Table, ...]:
    """The tables of a comparison, best and second best marked as in Markdown (** and __)."""
    made = [_faithfulness(found), _utility(found), _realism(found), _privacy(found), _cost(found)]
    return tuple(table for table in made if table is not None)


def _rows(found: Comparison, cells: Callable[[Compared], Sequence[_Cell | str]]) -> Iterator[TableRow]:
    for system in found.systems:
        if system.not_run is not None:
            width = len(cells(Compared(name="")))
            yield TableRow(system.name, ("not run", *[NOTHING] * (width - 1)), system.not_run)
        else:
            yield TableRow(system.name, tuple(_marked(cell) for cell in cells(system)), _detail(system))


def _detail(system: Compared) -> str:
    kind = system.kind or ""
    trained = "classes left free in training" if system.mask_ablation else "full label maps"
    return ", ".join(part for part in (kind, trained if system.cost.training_seconds else "") if part)


def _marked(cell: _Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    around = {"best": "**", "second": "__", None: ""}[cell.mark]
    return f"{around}{cell.text}{around}"


def _scored(system: Compared, measure: str) -> list[_Cell | str]:
    """A score with its interval, and the difference to the reference."""
    score: Score | None = getattr(system, measure)
    if score is None:
        return [NOTHING, NOTHING]
    difference = system.differences.get(measure)
    apart = with_interval(difference.mean, difference.ci95, signed) if difference else NOTHING
    return [_Cell(with_interval(score.mean, score.ci95), system.marks.get(measure)), apart]


def _faithfulness(found: Comparison) -> Table | None:
    if not any(system.dice_gen_map for system in found.run):
        return None
    rows = list(_rows(found, lambda system: [*_scored(system, "dice_gen_map"), *_scored(system, "dice_gen_real")]))
    for system in found.run:
        if system.reconstruction is not None and (dice := system.reconstruction.dice) is not None:
            cells = (with_interval(dice.mean, dice.ci95), NOTHING, NOTHING, NOTHING)
            detail = f"real images through its autoencoder, PSNR {decibels(system.reconstruction.psnr)}"
            rows.append(TableRow(f"{system.name}: its ceiling", cells, detail))
    if found.ceiling is not None:
        real = with_interval(found.ceiling.mean, found.ceiling.ci95)
        rows.append(TableRow("real images", (real, NOTHING, NOTHING, NOTHING), "the ceiling"))
    to = f"difference to {found.reference}"
    return Table(
        "Faithfulness to the label maps (Table 1 of Konz et al. 2024): Dice, higher is better",
        ("system", "Dice(m_gen, m)", to, "Dice(m_gen, m_real)", to),
        tuple(rows),
    )


def _utility(found: Comparison) -> Table | None:
    if not any(system.synthetic for system in found.run):
        return None
    rows = list(
        _rows(
            found,
            lambda system: [*_scored(system, "synthetic"), _Cell(_of(system.both))],
        )
    )
    if found.real is not None:
        rows.append(TableRow("real images", (_of(found.real), NOTHING, NOTHING), "trained on real images alone"))
    return Table(
        "Utility (Table 2 of Konz et al. 2024): Dice on real test patients of a segmenter trained on the images",
        ("trained on", "synthetic images", f"difference to {found.reference}", "synthetic and real images"),
        tuple(rows),
    )


def _of(trained: Trained | None) -> str:
    return NOTHING if trained is None else with_interval(trained.mean, trained.ci95)


def _realism(found: Comparison) -> Table | None:
    measured = [system.realism for system in found.run if system.realism is not None]
    if not measured:
        return None

    def cells(system: Compared) -> list[str]:
        its = system.realism or RealismResult()
        power = [p for p in its.power_ratio if p is not None]
        test = its.test
        told = NOTHING if test is None or not test.decided else ", ".join(test.told_apart_by) or "nothing"
        return [
            general(its.fid),
            general(its.kid),
            ratio(its.precision),
            ratio(its.recall),
            ratio(its.noise_ratio),
            f"{ratio(min(power))} to {ratio(max(power))}" if power else NOTHING,
            told,
        ]

    rows = list(_rows(found, cells))
    first = measured[0]
    real = (first.fid_real, first.kid_real, first.precision_real, first.recall_real, first.noise_ratio_real)
    shown = (general, general, ratio, ratio, ratio)
    rows.append(
        TableRow(
            "real images",
            (*(show(value) for show, value in zip(shown, real, strict=True)), NOTHING, NOTHING),
            "of other patients",
        )
    )
    return Table(
        "Realism: images of patients A beside real images of patients B; near real images is best",
        ("system", "FID", "KID", "precision", "recall", "noise", "power", "told from real images by"),
        tuple(rows),
    )


def _privacy(found: Comparison) -> Table | None:
    if not any(system.privacy for system in found.run):
        return None

    def cells(system: Compared) -> list[str]:
        its = system.privacy or PrivacyResult()
        attack = f"{ratio(its.attack.auc)}" if its.attack else NOTHING
        return [with_interval(its.copy_rate, its.ci95), ratio(its.expected), p_value(its.p_value), attack]

    return Table(
        "Copies: share of images nearer to a training image than 99 % of unseen patients' images are",
        ("system", "copy rate", "by chance", "chance of as many", "membership AUC"),
        tuple(_rows(found, cells)),
    )


def _cost(found: Comparison) -> Table | None:
    if not any(system.cost for system in found.run):
        return None

    def cells(system: Compared) -> list[str]:
        its = system.cost
        return [
            NOTHING if its.parameters is None else f"{its.parameters / 1e6:.2f} M",
            NOTHING if not its.training_seconds else format_duration(its.training_seconds),
            NOTHING if not its.training_seconds else amount(its.training_images),
            general(its.gflops),
            general(its.images_per_second),
            general(its.peak_mb),
        ]

    devices = sorted({system.cost.device for system in found.run if system.cost.device})
    return Table(
        f"Cost ({', '.join(devices) or 'device not known'})",
        ("system", "parameters", "training", "images seen", "GFLOP an image", "images/s", "peak MB"),
        tuple(_rows(found, cells)),
    )


NOTES = (
    "m is the label map, m_gen the segmentation of the generated image, m_real that of the real image of the map, all "
    "by one auxiliary segmenter, trained on real images of held-out patients that no system saw.",
    "Intervals are 95 % over patients. Differences are paired by patient. The best is in bold, the second best "
    "underlined, only where its difference to every lower one is real: the interval of the paired difference is "
    "above zero.",
)


def write_comparison(out: Path, found: Comparison, figure: Figure | None) -> None:
    """Write comparison.json, comparison.html, comparison.md, comparison.tex and the figure to the folder `out`.

    Raises OutputError where something cannot be written.
    """
    found.write(out / "comparison.json")
    if figure is not None:
        with writing(out / "figures" / f"{figure.name}.png") as path:
            path.write_bytes(figure.png)
    texts = {"html": _page(found, figure), "md": markdown(found), "tex": latex(found)}
    for kind, text in texts.items():
        with writing(out / f"comparison.{kind}") as path:
            path.write_text(text, encoding="utf-8")


def floors_in_words(found: Comparison) -> list[str]:
    """What the systems do not beat."""
    return [sentence for system in found.run for sentence in system.floors]


def _lead(found: Comparison) -> str:
    which = f"split{'s' * (len(found.split) > 1)} {' and '.join(found.split)}" if found.split else "split not recorded"
    return (
        f"{counted(len(found.run), 'system')} on the label maps of {counted(found.n.images, 'image')} of "
        f"{counted(found.n.patients, 'patient')} ({which})"
    )


def markdown(found: Comparison) -> str:
    """The comparison in Markdown."""
    parts = ["# Comparison of systems", f"{_lead(found)}."]
    if sentences := floors_in_words(found):
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
    for table in tables(found):
        lines = ["| " + " | ".join(table.columns) + " |", "| --- |" + " --- |" * (len(table.columns) - 1)]
        for row in table.rows:
            label = row.label + (f" ({row.detail})" if row.detail else "")
            cells = [_escaped(cell) for cell in (label, *row.cells)]
            lines.append("| " + " | ".join(cells) + " |")
        parts += [f"**{table.caption}**", "\n".join(lines)]
    parts += [*NOTES, f"anatogen {found.version}; command: `{found.command}`"]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


def _tex(text: str) -> str:
    """`text` for LaTeX; what is marked as best is bold, as second best underlined."""
    for around, command in (("**", r"\textbf"), ("__", r"\underline")):
        if text.startswith(around) and text.endswith(around) and len(text) > 4:
            return f"{command}{{{_tex(text[2:-2])}}}"
    return "".join(_LATEX.get(letter, letter) for letter in text)


def latex(found: Comparison) -> str:
    """The tables in LaTeX, with booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for table in tables(found):
        lines = [" & ".join(map(_tex, (row.label, *row.cells))) + r" \\" for row in table.rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_tex(table.caption)}.}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
                    r"\toprule",
                    " & ".join(map(_tex, table.columns)) + r" \\",
                    r"\midrule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _shown(cell: str) -> str:
    """A cell in HTML."""
    for around, tag in (("**", "strong"), ("__", "u")):
        if cell.startswith(around) and cell.endswith(around) and len(cell) > 4:
            return f"<{tag}>{html.escape(cell[2:-2])}</{tag}>"
    return html.escape(cell)


def _page(found: Comparison, figure: Figure | None) -> str:
    environment = Environment(
        loader=PackageLoader("anatogen.reporting"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _shown
    links = [(s.name, s.report) for s in found.run if s.report and re.fullmatch(r"[\w .()+-]+", s.report)]
    return environment.get_template("comparison.html").render(
        found=found,
        lead=_lead(found),
        tables=tables(found),
        figure=figure,
        floors=floors_in_words(found),
        notes=NOTES,
        links=links,
    )


def really_better(difference: Difference | None) -> bool:
    """Whether a paired difference is above zero with its whole interval."""
    ends = interval(difference.ci95) if difference is not None else None
    return ends is not None and ends[0] > 0
