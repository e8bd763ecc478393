from __future__ import annotations

import copy
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anatogen.data.documents import DatasetInfo
from anatogen.generation import header
from anatogen.generation.header import AboutModel, Asked, GateSettings, Header
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import Selection
from anatogen.labels import LabelClass, LabelSchema
from anatogen.model import ModelDocument
from anatogen.reporting import answers as answering
from anatogen.reporting import cards, figures, overview
from anatogen.reporting import report as reporting
from anatogen.reporting.answers import Answer
from anatogen.reporting.cards import ModelFacts, SetCounts, count_entries, markdown
from anatogen.reporting.report import Figure
from anatogen.reporting.results import Report, SimilarityRow
from anatogen.reporting.tables import (
    TOO_FEW,
    Table,
    TableRow,
    general,
    in_words,
    millimetres,
    percent,
    ratio,
    with_interval,
)
from anatogen.sampling import SamplingSettings

CLASSES = ("liver", "<b>")
SECTIONS = ("faithfulness", "utility", "realism", "privacy")
QUESTIONS = {
    "faithfulness": "Do the images follow the anatomy?",
    "utility": "Are they useful for training?",
    "realism": "Do they look real?",
    "privacy": "Does the model memorise training images?",
}
PIXEL = b"\x89PNG not looked into"
FIGURES = [
    Figure("examples", "Examples", PIXEL, "Some <i>images</i>."),
    Figure("power", "Texture", PIXEL, "Power.", "realism"),
    Figure("pairs", "Closest pairs", PIXEL, "Pairs.", "privacy"),
    Figure("steps", "How many steps?", PIXEL, "Steps.", "model", "48 label maps"),
]


# Every test says what report.json holds as a dictionary, as a script reads it.


def answers(results: dict[str, Any], classes: tuple[str, ...] = ()) -> tuple[Answer, ...]:
    return answering.answers(Report.model_validate(results), classes)


def privacy_status(results: dict[str, Any]) -> str:
    return answering.privacy_status(Report.model_validate(results))


def selection_in_words(results: dict[str, Any]) -> tuple[str, ...]:
    return answering.selection_in_words(Report.model_validate(results))


def write_report(out: Path, results: dict[str, Any], figures: list[Figure], schema: LabelSchema) -> None:
    reporting.write_report(out, Report.model_validate(results), figures, schema)


def model_card(results: dict[str, Any], facts: ModelFacts | None = None, dataset: DatasetInfo | None = None) -> str:
    return cards.model_card(Report.model_validate(results), facts or ModelFacts(), dataset)


def data_sheet(results: dict[str, Any], header: Header | None = None, counts: SetCounts | None = None) -> str:
    return cards.data_sheet(Report.model_validate(results), header, counts)


def entry(mean: float) -> dict[str, Any]:
    return {"mean": mean, "per_class": {"liver": mean - 0.01, "<b>": mean + 0.01}, "ci95": [mean - 0.02, mean + 0.02]}


def trained(name: str, mean: float, difference: float) -> dict[str, Any]:
    n = {"test_patients": 11, "real_images": [40, 48], "synthetic_images": 90}
    interval = [difference - 0.01, difference + 0.01]
    return {"name": name, **entry(mean), "difference_to_real": difference, "difference_ci95": interval, "n": n}


@pytest.fixture
def results() -> dict[str, Any]:
    faithfulness: dict[str, Any] = {}
    for pair, dice in (("gen_map", 0.8), ("gen_real", 0.7), ("real_map", 0.9)):
        faithfulness |= {f"dice_{pair}": entry(dice), f"hd95_{pair}": entry(2.123), f"nsd_{pair}": entry(0.95)}
        faithfulness |= {f"missed_{pair}": entry(0.031), f"volume_error_{pair}": entry(-0.04)}
    faithfulness["free"] = {"dice_gen_map": entry(0.31), "dice_gen_real": entry(0.32)}
    mixed = trained("real 1 : 1 synthetic", 0.86, 0.02)
    return {
        "n": {"images": 540, "patients": 24},
        "split": ["test"],
        "command": "anatogen evaluate <run>",
        "version": "0.1.0",
        "seed": 7,
        "sampling": SamplingSettings(solver="dpmpp_2m", steps=16).model_dump(mode="json"),
        "model": {"steps": 20000},
        "dataset": {"name": "Livers", "licence": "CC-BY-SA 4.0", "notice": "Not <b>patients</b>.", "cases": 30},
        "faithfulness": faithfulness,
        "utility": {
            "real": trained("real", 0.84, 0.0),
            "synthetic": trained("synthetic", 0.79, -0.05),
            "both": mixed,
            "mixtures": [mixed, trained("real 1 : 2 synthetic", 0.845, 0.005)],
        },
        "realism": {
            "fid": 1.234, "fid_real": 0.8, "kid": 0.0123, "kid_spread": 0.002, "kid_real": 0.0009, "kid_real_spread": 0.001,
            "test": {
                "p_value": 0.002, "p_of": {"mmd": 0.002, "noise": 0.004, "spectrum": 0.6}, "told_apart_by": ["mmd", "noise"],
                "decided": True, "patients": 24, "least_p": 0.001, "same_maps": True,
            },
            "precision": 0.81, "noise_ratio": 0.92, "power_ratio": [1.02, 0.9, 0.71], "n": 500,
            "warnings": ["too <few> images"], "caution": "Mind the features.",
        },
        "privacy": {
            "copy_rate": 0.0074, "ci95": [0.002, 0.019], "expected": 0.01, "p_value": 0.62, "threshold": 0.41, "flagged": 4,
            "detectable": 0.028, "verdict": "No copying found: 4 of 540.", "n_generated": 540, "n_heldout": 300,
            "features": {"copy_rate": 0.011, "ci95": [0.004, 0.02], "expected": 0.01, "p_value": 0.4},
            "attack": {"auc": 0.54, "ci95": [0.49, 0.6], "tpr_at_1": 0.013, "tpr_at_10": 0.12, "n_members": 50, "n_nonmembers": 30},
        },
        "variation": {"given": {"liver": 0.05}, "free": {"liver": 0.3}, "maps": {"liver": 12}, "seeds": 4},
        "dice_against_steps": {"steps": [2, 8], "dice": [0.6, 0.8], "ceiling": 0.9, "n": 48},
        "likeness": {
            "by_similarity": [
                {"similarity": 0.25, "n": 9, "correlation": 0.625, "rms_difference": 0.2, "dice_given": entry(0.8), "dice_free_with_real": entry(0.5)}
            ]
        },
    }  # fmt: skip


class Page(HTMLParser):
    """What a page asks for, its tables and its unclosed elements."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.alts: list[str] = []
        self.widths: list[set[int]] = []
        self.open: list[str] = []
        self._width = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.asked += [str(given[key]) for key in ("src", "srcset", "data") if key in given]
        if tag == "a":
            self.anchors.append(str(given["href"]))
        elif "href" in given:
            self.asked.append(str(given["href"]))
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "img":
            self.alts.append(str(given.get("alt")))
        if tag == "table":
            self.widths.append(set())
        if tag == "tr":
            self._width = 0
        if tag in ("th", "td"):
            self._width += int(given.get("colspan") or 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.widths[-1].add(self._width)


def page_of(results: dict[str, Any], folder: Path, figures: list[Figure] = FIGURES) -> str:
    write_report(folder, results, figures, LabelSchema.from_names(CLASSES))
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_question_is_answered(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(results, tmp_path)
    order = [text.index(f"<h2>{q}</h2>") for q in (*QUESTIONS.values(), "The generator", "What it was made with")]
    assert order == sorted(order) and "Not measured" not in text
    assert "0.800 (95 % interval 0.780 to 0.820), 89 % of the ceiling of 0.900" in text  # 0.8 / 0.9
    assert "They follow it largely: on 540 images of 24 patients (split test)" in text  # 0.78 / 0.9 to 0.82 / 0.9
    assert "cannot" not in text.split("<h2>Do they look real?")[1].split("<table>")[0]  # 0.0123 - 1.96 * 0.002 > 0.0009
    assert "does worse than one trained on real ones on 11 real test patients" in text
    for cell in ("0.900 [0.880, 0.920]", "2.12 [2.10, 2.14]", "−4.0 % [−6.0 %, −2.0 %]", "88.9 %", "40 to 48"):
        assert f"<td>{cell}</td>" in text
    assert json.loads((tmp_path / "report.json").read_text()) == {"format": 1, **results}
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {figure.name for figure in FIGURES}


def test_the_page_needs_nothing_else_and_is_accessible(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(results, tmp_path)
    page = Page(text)
    assert page.asked and all(source.startswith("data:image/png;base64,") for source in page.asked)
    assert not {"script", "link", "iframe", "object", "svg"} & set(page.tags)
    assert "url(" not in text and "@import" not in text and "http:" not in text and "https:" not in text
    assert {anchor.removeprefix("#") for anchor in page.anchors} <= set(page.ids)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    assert page.alts == [f"Picture: {figure.heading}" for figure in FIGURES]
    assert len(page.widths) == 9 and all(len(widths) == 1 for widths in page.widths)
    assert text.count('class="scroll" tabindex="0" role="region" aria-label=') == 9
    assert 'scope="row"' in text and "@media print" in text and "width=device-width" in text


def test_every_figure_says_what_it_rests_on(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(results, tmp_path)
    made = "split test; seed 7; anatogen 0.1.0; command: anatogen evaluate &lt;run&gt;"
    assert text.count(f"n = 540 images of 24 patients; {made}") == 3 and f"n = 48 label maps; {made}" in text
    bare = page_of({"faithfulness": results["faithfulness"]}, tmp_path / "bare", FIGURES[:1])
    assert "split not recorded; seed not recorded; version not recorded; command not recorded" in bare


@pytest.mark.parametrize("missing", SECTIONS)
def test_what_is_missing_is_left_out_and_named(missing: str, results: dict[str, Any], tmp_path: Path) -> None:
    del results[missing]
    text = page_of(results, tmp_path, [f for f in FIGURES if f.chapter != missing])
    for section, question in QUESTIONS.items():
        assert (f"<h2>{question}</h2>" in text) == (section != missing)
    end = text.split('id="not-measured">')[1]
    assert QUESTIONS[missing] in end and f"--out REPORT --only {missing}" in end and end.count("--only") == 1
    assert Page(text).open == []


def test_a_figure_is_shown_without_numbers(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of({**results, "privacy": None}, tmp_path)
    assert "Closest pairs" in text and "Shown, not measured." in text and "--only privacy" in text


def test_nothing_at_all_still_makes_a_page(tmp_path: Path) -> None:
    text = page_of({}, tmp_path, [])
    assert text.count("--only") == 4 and Page(text).open == [] and "<table" not in text


@pytest.mark.parametrize("nothing", [math.nan, None])
def test_what_has_no_value_is_a_dash(nothing: float | None, results: dict[str, Any], tmp_path: Path) -> None:
    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: emptied(v) for k, v in value.items()}
        if isinstance(value, list):
            return [emptied(v) for v in value]
        return nothing if isinstance(value, float) else value

    gone = emptied(results) | {"sampling": results["sampling"]}  # settings always have a value
    text = page_of(gone, tmp_path)
    assert "<td>–</td>" in text and Page(text).open == []
    for where in (text, model_card(gone), data_sheet(gone)):
        assert not re.search(r"\bnan\b|\bNone\b|\bnull\b", where.replace("license: unknown", "").split("<pre>")[0])
    assert json.loads((tmp_path / "report.json").read_text())["faithfulness"]["dice_gen_map"]["mean"] is None


def test_texts_are_escaped(results: dict[str, Any], tmp_path: Path) -> None:
    results["privacy"]["verdict"] = "<script>alert(1)</script>"
    schema = LabelSchema((LabelClass(1, "liver", "red; background: url(x)"), LabelClass(2, "<b>", "#00FF00")))
    write_report(tmp_path, results, FIGURES, schema)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not {"b", "script", "run"} & set(Page(text).tags)
    assert "url(" not in text and "background: #00FF00" in text
    for escaped in ("&lt;b&gt;", "Not &lt;b&gt;patients", "Some &lt;i&gt;images", "too &lt;few&gt;", "&lt;script&gt;"):
        assert escaped in text


def test_maps_from_elsewhere_are_said_in_words(results: dict[str, Any], tmp_path: Path) -> None:
    results["split"] = ["elsewhere"]
    text = page_of(results, tmp_path)
    assert "540 images of 24 patients, label maps of another data set" in text and "elsewhere" not in text
    assert "real images of the model&#39;s own data set" in text


def test_edited_maps_are_not_called_those_of_another_data_set(results: dict[str, Any], tmp_path: Path) -> None:
    results["split"], results["judge"] = ["edited"], {"seed": 0, "warped": 0.75}
    results["realism"]["test"]["same_maps"] = False
    text = page_of(results, tmp_path)
    assert "540 images of 24 patients, edited label maps" in text and "another data set" not in text
    assert "own data set, 75.0 % of them warped" in text and "The label maps are edited: what that changes" in text
    assert "another data set" not in model_card(results)


def test_verdicts_follow_the_intervals(results: dict[str, Any]) -> None:
    found = {a.chapter: a for a in answers(results)}
    assert [found[s].value for s in SECTIONS] == ["0.800", "0.790", "0.0123", "0.7 %"]
    changed = copy.deepcopy(results)
    changed["faithfulness"]["dice_gen_map"]["ci95"] = [0.6, 0.88]  # 67 % to 98 % of the ceiling
    changed["utility"]["synthetic"]["difference_ci95"] = [-0.06, 0.01]
    found = {a.chapter: a for a in answers(changed)}
    assert found["faithfulness"].verdict.startswith("They follow it in part to closely:")
    assert "alone does not differ significantly from one trained on real ones" in found["utility"].verdict
    assert any("One training a row" in note for note in found["utility"].notes)
    changed["faithfulness"]["dice_real_map"]["mean"] = 0.4
    assert any("does poorly on this data set" in note for note in answers(changed)[0].notes)


def test_without_an_interval_no_difference_is_claimed(results: dict[str, Any], tmp_path: Path) -> None:
    for entry in (results["faithfulness"]["dice_gen_map"], results["utility"]["synthetic"], results["utility"]["both"]):
        entry |= {"ci95": None, "no_interval": TOO_FEW}
    results["utility"]["synthetic"] |= {"difference_ci95": None, "no_difference_interval": TOO_FEW}
    found = {a.chapter: a for a in answers(results)}
    followed = found["faithfulness"]
    assert followed.verdict.startswith("On 540 images") and "closely" not in followed.verdict
    assert f"a mean Dice of 0.800 ({TOO_FEW}), 89 % of the ceiling" in followed.verdict
    assert "alone does not differ significantly from one trained on real ones" in found["utility"].verdict
    assert f"Dice 0.790 ({TOO_FEW})" in found["utility"].verdict
    for answer in (followed, found["utility"]):
        assert any(TOO_FEW.removeprefix("too ") in note and "no difference is claimed" in note for note in answer.notes)
    page = page_of(results, tmp_path)
    assert "[–" not in page and "None" not in page
    assert not any("no difference is claimed" in note for note in found["realism"].notes)


def test_grid_shows_each_picture_where_it_stands() -> None:
    red, blue = (np.tile(np.array(colour, dtype=float), (8, 8, 1)) for colour in ((1, 0, 0), (0, 0, 1)))
    rows = [[("a", red), ("b", blue)], [("c", blue)], [("wide", np.tile(red, (1, 2, 1))), ("values", np.zeros((8, 8)))]]
    sheet = np.asarray(Image.open(io.BytesIO(figures.grid(rows, cell=1.0, title="of all"))).convert("RGB")).astype(int)
    tall, wide = (sheet.shape[0] - 29) // 3, sheet.shape[1] // 2

    def at(line: int, column: int) -> list[int]:
        return list(sheet[29 + tall * line + 29 + 60, wide * column + wide // 2])

    assert [at(0, 0), at(0, 1), at(1, 0), at(1, 1)] == [[255, 0, 0], [0, 0, 255], [0, 0, 255], [255, 255, 255]]
    assert at(2, 1) == [68, 1, 84]  # the lowest value of viridis
    assert (sheet[29 : 29 + 25].min(axis=2) < 128).any() and (sheet[:25].min(axis=2) < 128).any()  # titles
    of_line = [sheet[29 + tall * line + 29 : 29 + tall * (line + 1), :wide] for line in (0, 2)]
    square, flat = ((part[..., 0] == 255) & (part[..., 1] == 0) for part in of_line)
    assert np.ptp(np.nonzero(square)[0]) == np.ptp(np.nonzero(square)[1])  # its aspect is kept
    assert 1.9 < (np.ptp(np.nonzero(flat)[1]) + 1) / (np.ptp(np.nonzero(flat)[0]) + 1) < 2.1


def test_a_long_title_has_several_lines_and_reaches_no_edge() -> None:
    picture = np.zeros((20, 20, 3))
    title = "Selected by a Dice of at least 0.7: 7 of 32 images were kept, 25 (78 %) rejected"

    def sheet(columns: int, text: str) -> np.ndarray:
        row = [("a", picture)] * columns
        return np.asarray(Image.open(io.BytesIO(figures.grid([row], title=text))).convert("RGB"))

    band = sheet(2, "short").shape[0] - sheet(2, "").shape[0]
    assert sheet(6, title).shape[0] - sheet(6, "").shape[0] == band
    narrow = sheet(2, title)
    assert narrow.shape[0] - sheet(2, "").shape[0] == 2 * band
    for line in range(2):
        written = (narrow[line * band : (line + 1) * band].min(axis=2) < 128).any(axis=0)
        assert written.any() and not written[:3].any() and not written[-3:].any()


def test_a_class_that_is_free_in_a_region_only_is_not_called_free() -> None:
    schema = LabelSchema.from_names(("a", "b"))

    def title(**more: Any) -> str:
        line = Line(id="x", file="x.png", labels="x.png", seed=0, **more)
        return overview._title(line, schema, mixed=True)

    assert title(given=("a",), free=("b",)) == "b free"
    assert title(given=("a",), free=("b",), free_within="near a 8px") == "b free in a region"
    assert title(given=(), free=("a", "b"), free_within="box 0,0..3,3") == "all free in a region"
    assert title(given=(), free=("a", "b")) == "all free"


def test_figures_without_intervals_say_so() -> None:
    alone = figures.bars({"real": (0.8, None), "synthetic": (0.7, None)}, "Dice")
    assert alone != figures.bars({"real": (0.8, (0.7, 0.9)), "synthetic": (0.7, (0.6, 0.8))}, "Dice")
    dice = {"mean": 0.8, "ci95": None}
    rows = [{"similarity": s, "correlation": s, "dice_given": dice} for s in (0.25, 0.75)]
    half = [*rows[:1], rows[1] | {"dice_given": {"mean": 0.8, "ci95": [0.7, 0.9]}}]
    none, some = ([SimilarityRow.model_validate(row) for row in each] for each in (rows, half))
    assert figures.similarity(none) != figures.similarity(some)


SELECTION = {
    "min_dice": 0.8, "reject_copies": 0.01, "retries": 3, "made": 131, "kept": 96, "rejected": 35, "requests": 100,
    "requests_without_image": 4,
}  # fmt: skip


def test_a_gated_set_is_said_to_be_one_everywhere(results: dict[str, Any], tmp_path: Path) -> None:
    results |= {"selection": SELECTION, "judge": {"seed": 5, "independent_of_gate": True}}
    cards = [model_card(results), data_sheet(results, HEADER, count_entries(ENTRIES))]
    page = page_of(results, tmp_path)
    for text in (page, *cards):
        said = text[: text.index("Do the images follow the anatomy?")]
        assert "at least 0.8 (--min-dice)" in said and "1.0 % of unseen patients" in said
        assert "131 images were made for 100 requests: 96 kept, 35 rejected; 4 requests ended without an image" in said
        assert "a segmenter of another seed than the gate" in said
        assert text.count("After selection: ") >= 3 and "selected by this very measure" in text
    assert page.index("131 images") < page.index('class="strip"')
    topics = {a.chapter: a.topic for a in answers(results)}
    assert all(topics[s].endswith("(after selection)") for s in ("faithfulness", "realism", "privacy"))
    assert topics["utility"] == "Useful for training"  # its images are of another set, which no gate chose
    assert "after selection by a gate" in page[page.index("<figcaption>") :]


def test_a_set_without_a_gate_says_nothing_of_one(results: dict[str, Any], tmp_path: Path) -> None:
    results |= {"selection": None, "judge": {"seed": 0}, "maps": {"used": 540, "of": 540}}
    for text in (page_of(results, tmp_path), model_card(results)):
        assert "selection" not in text.lower() and "gate" not in text.lower() and "A subset" not in text


def test_each_gate_speaks_for_itself(results: dict[str, Any]) -> None:
    results["selection"] = SELECTION | {"reject_copies": None, "requests_without_image": 0}
    verdicts = {a.chapter: a.verdict for a in answers(results)}
    assert "very measure" not in verdicts["privacy"] and verdicts["privacy"].startswith("After selection")
    assert "their own" not in selection_in_words(results)[0] and "ended without" not in selection_in_words(results)[0]
    assert "the gate's own segmenter" in selection_in_words(results)[0]  # of a report that names no other judge
    results["selection"] = SELECTION | {"min_dice": None}
    assert "segmenter" not in selection_in_words(results)[0]
    results["selection"], results["utility"]["selection"] = None, SELECTION
    assert [a.topic.endswith("(after selection)") for a in answers(results)] == [False, True, False, False]
    assert selection_in_words(results)[0].startswith("The images that utility was measured with were selected too")


def test_a_subset_says_how_many_of_how_many(results: dict[str, Any], tmp_path: Path) -> None:
    results["maps"] = {"used": 30, "of": 540}
    assert "the images follow 30 of the 540 label maps of the split test." in page_of(results, tmp_path)


def test_absent_classes_stand_apart(results: dict[str, Any], tmp_path: Path) -> None:
    results["faithfulness"]["dice_gen_map"]["per_class"]["<b>"] = None
    results["faithfulness"]["absent"] = {
        "unit": "mm2", "stray": {"voxels": 4, "share": 0.001}, "not_defined": {"images": 12, "named": ["a", "b"]},
        "gen_map": {"<b>": {"images": 40, "patients": 7, "invented": 0.25, "volume": 31.4}},
        "real_map": {"<b>": {"images": 38, "patients": 7, "invented": 0.05, "volume": 9.0}},
    }  # fmt: skip
    answer = answers(results)[0]
    apart = next(t for t in answer.tables if "absent" in t.caption)
    assert (
        apart.rows == (TableRow("<b>", ("40", "7", "25.0 %", "31.4", "5.0 %")),)
        and "mean mm² where invented" in apart.columns
    )
    assert any("Not defined" in note and note.endswith("the Dice of <b>.") for note in answer.notes)
    assert any("12 images without a given class in the label map: a, b, ..." in note for note in answer.notes)
    assert "nan" not in page_of(results, tmp_path).lower().replace("nanometre", "")
    results["faithfulness"]["dice_gen_map"] = {"mean": None, "ci95": None, "per_class": {}}
    assert "mean Dice of not defined" not in answers(results)[0].verdict


def test_a_difference_no_larger_than_that_of_seeds_is_none(results: dict[str, Any]) -> None:
    results["utility"]["real"]["mean_of_each_seed"] = [0.83, 0.85]
    for synthetic, word in ((0.02, "worse"), (0.06, "does not differ")):
        results["utility"]["synthetic"]["mean_of_each_seed"] = [0.79 - synthetic / 2, 0.79 + synthetic / 2]
        utility = answers(results)[1]
        assert word in utility.verdict.split(";")[0]
        assert any(f"differs by up to {max(0.02, synthetic):.3f}" in note for note in utility.notes)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "no copying found"),
        ({"detectable": math.nan}, "undecided"),
        ({"p_value": 0.001}, "flagged for copying"),
        ({"above_chance": True}, "flagged for copying"),
        ({"features": {"copy_rate": 0.2, "p_value": 0.001}}, "flagged by learned features"),
    ],
)
def test_status_of_privacy(change: dict[str, Any], status: str, results: dict[str, Any]) -> None:
    results["privacy"] |= change
    assert privacy_status(results) == status
    answer = answers(results)[3]
    assert status in answer.brief
    if status == "flagged by learned features":  # the verdict is by pixels, so it has to be said beside it
        assert any("by learned features the images are flagged" in note for note in answer.notes)
        assert "The images are flagged by learned features." in data_sheet(results)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "They can be told from real images by MMD and noise (p = 0.002, 24 patients): KID 0.0123 where real images have 0.0009"),
        ({"told_apart_by": [], "p_value": 0.4}, "They cannot be told from real images (p = 0.4, 24 patients): KID 0.0123"),
        ({"told_apart_by": []}, "They cannot be told from real images (all differences are too small to count, 24 patients)"),
        (
            {"told_apart_by": [], "decided": False, "patients": 3},
            "Too few patients to say whether they can be told from real images (3 patients, of at least 10): KID "
            "0.0123",
        ),
    ],
)  # fmt: skip
def test_whether_they_look_real(change: dict[str, Any], verdict: str, results: dict[str, Any]) -> None:
    results["realism"]["test"] |= change
    answer = answers(results)[2]
    assert answer.verdict.startswith(verdict)
    lines = {line.label: line.cells for line in answer.tables[0].rows}
    assert lines["KID"] == ("0.0123 ± 0.002", "0.0009 ± 0.001", "–") and lines["noise ratio"][2] == "p = 0.004"
    assert lines["FID"] == ("1.23", "0.8", "–")
    results["realism"]["test"]["same_maps"] = False
    assert any("label maps are of another data set" in note for note in answers(results)[2].notes)


def test_realism_of_one_patient_and_of_reports_before_the_test(results: dict[str, Any]) -> None:
    one = {"n": {"generated": 9, "real": 9, "patients": 1}, "kid": math.nan, "power_ratio": [0.9, 1.1], "test": None}
    assert answers(results | {"realism": one})[2].verdict.startswith(
        "Too few patients to say whether they can be told from real images (1 patient,"
    )
    before = {"fid": 1.234, "fid_real": 0.8, "kid": 0.0123, "kid_error": 0.002, "kid_real": 0.0009, "n": 500}
    verdict = answers(results | {"realism": before})[2].verdict
    assert verdict.startswith(
        "Whether they can be told from real images was not tested: KID 0.0123 where real images have 0.0009"
    )


def test_texture_alone(results: dict[str, Any]) -> None:
    answer = answers({"n": results["n"], "realism": {"power_ratio": [1.02, 0.9, 0.71]}})[2]
    assert answer.value == "0.710 to 1.020" and "Only the texture was measured" in answer.verdict
    assert "540 images of 24 patients" in answer.verdict


def test_numbers_have_sensible_digits() -> None:
    assert [general(v) for v in (12345.6, 1.2345, 0.00012345, -0.5, 1e-7)] == [
        "12,346", "1.23", "0.000123", "−0.5", "1e-07",
    ]  # fmt: skip
    assert percent(0.0214) == "2.1 %" and millimetres(2.126) == "2.13" and ratio(None) == ratio(math.inf) == "–"
    assert with_interval(0.5, [0.4, math.nan]) == "0.500" and with_interval(math.nan, [0.1, 0.2]) == "–"
    assert in_words(0.5, [0.4, 0.6]) == "0.500 (95 % interval 0.400 to 0.600)"


MODEL = {
    "about": {
        "steps": 20000, "images": 320000, "seconds": 3700.0, "version": "0.1.0", "dataset": {"name": "Livers"},
        "axis": "axial", "spacing_mm": [1.5, 1.5], "channels": ["CT"], "mask_ablation": True,
    },
    "denoiser": {
        "image_channels": 1, "size": [64, 64], "classes": [["liver", "#E69F00"], ["<b>", "#56B4E9"]], "encoding": "onehot", "path": "flow",
        "target": "edm", "network": {"name": "hourglass", "width": 96},
    },
}  # fmt: skip
FACTS = ModelFacts(document=ModelDocument.model_validate(MODEL))
CASE: dict[str, Any] = {"affine": [[1.0]], "grid": [1], "intensity": [], "annotated": []}
DATASET = DatasetInfo.model_validate(
    {
        "classes": [], "channels": ["CT"], "axis": "axial", "size": [64, 64], "fit": "crop", "split_seed": 0, "version": "0",
        "source": {"name": "Livers", "layout": "nnunet", "fingerprint": "abcd", "licence": "CC-BY-SA 4.0"},
        "intensity_rule": {"window": None, "percentile": [0.5, 99.5]},
        "cases": {f"c{i}": {**CASE, "patient": f"SECRET{i // 2}", "split": "train" if i < 4 else "test"} for i in range(6)},
    }
)  # fmt: skip
HEADER = Header(
    classes=(("liver", "#E69F00"), ("<b>", "#56B4E9")),
    image_format="png",
    model="0123abcd",
    sampling=SamplingSettings(solver="heun", steps=9),
    request=Asked(seed=5),
    command="anatogen sample `x` | y",
    about_model=header.AboutModel.of(MODEL["about"]),
)
ENTRIES = [
    Line(
        id=str(i), file=f"{i}.png", labels=f"{i}.png", given=("liver",), free=("<b>",), seed=i, case="c",
        patient=f"SECRET{i % 2}", slice=i // 2, split="test",
    )
    for i in range(6)
]  # fmt: skip


def assert_whole_tables(text: str) -> None:
    """As GitHub's Markdown wants them: as many cells in each line as in the rule, and an empty line before."""
    blocks = re.findall(r"(?:^\|.*\n?)+", re.sub(r"(?s)```.*?```", "", text), flags=re.M)
    assert blocks
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(widths) == 1, block
        assert re.fullmatch(r"\|( :?-+:? \|)+", block.splitlines()[1])
        assert text[: text.index(block)].endswith("\n\n")


def test_model_card_holds_what_is_known(results: dict[str, Any]) -> None:
    text = model_card(results, FACTS, DATASET)
    assert (
        text.startswith("---\nlicense: unknown\nlibrary_name: anatogen\n")
        and "# Model card: images after Livers" in text
    )
    for line in (
        "| network | hourglass, width 96 |", "| training steps | 20,000 |", "| training time | 1 h 1 min |",
        "| classes | liver, &lt;b&gt; |", "| patients a split | train 2, test 1 |", "| licence | CC-BY-SA 4.0 |",
        "| Dice(m_gen, m) | 0.800 [0.780, 0.820] | 0.790 | 0.810 |", "| synthetic | 0.790 [0.770, 0.810] |",
        "| KID, kernel distance of learned features, around 0 is best | 0.0123 ± 0.002 | 0.0009 ± 0.001 | – |",
        "No copying found: 4 of 540.", "540 images of 24 patients; split test. Seed 7. Solver dpmpp_2m, 16 steps.",
    ):  # fmt: skip
        assert line in text
    for heading in (
        "Model details",
        "Intended use",
        "Training data",
        "Evaluation data",
        "Metrics",
        "Ethical considerations",
    ):
        assert f"\n## {heading}\n" in text
    assert "not measured" not in text.lower() and "SECRET" not in text and "<b>" not in text
    assert_whole_tables(text)


def test_data_sheet_holds_what_is_known(results: dict[str, Any]) -> None:
    selection = Selection(GateSettings(min_dice=0.8, retries=3), made=8, kept=6, rejected=2, given_up=1)
    text = data_sheet(results, HEADER, count_entries(ENTRIES, selection))
    for line in (
        "size_categories:\n- n<1K\n", "| images | 6 |", "| different label maps | 3 |", "| liver | 6 | 0 | 0 |",
        "| &lt;b&gt; | 0 | 6 | 0 |", "| solver | heun |", "| solver steps | 9 |", "| seed | 5 |", "| images made and rejected | 2 |",
        "| selection | Selected by a Dice of at least 0.8: 6 of 8 images were kept, 2 (25 %) rejected |",
        "| model, by the hash of its weights | 0123abcd |", "split test of the model's own data set (6 images)",
        "```\nanatogen sample `x` | y\n```", "| patients whose label maps they are | 2 |", "Every image here is synthetic",
    ):  # fmt: skip
        assert line in text
    for heading in ("Motivation", "Composition", "Uses", "Distribution and licence", "Maintenance"):
        assert f"\n## {heading}\n" in text
    assert "not measured" not in text.lower() and "SECRET" not in text
    assert_whole_tables(text)


def test_a_set_with_real_images_says_so(results: dict[str, Any]) -> None:
    text = data_sheet(
        results, HEADER.model_copy(update={"request": Asked(paired=True)}), SetCounts(similarities={0.5: 3})
    )
    assert "`real` holds real images" in text and "Every image here is synthetic" not in text
    assert "similar to real ones on purpose" in text and "| 0.5: 3 |" in text


@pytest.mark.parametrize("missing", SECTIONS)
def test_cards_say_what_was_not_measured(missing: str, results: dict[str, Any]) -> None:
    del results[missing]
    for text in (model_card(results, FACTS, DATASET), data_sheet(results, HEADER, count_entries(ENTRIES))):
        section = text.split(QUESTIONS[missing].replace("&#39;", "'"))[1]
        assert section.lstrip().startswith("Not measured: run `anatogen evaluate RUN")
        assert f"--only {missing}`" in text
        assert {s for s in SECTIONS if f"--only {s}`" in text} == {missing}
        assert_whole_tables(text)


def test_cards_of_nothing_invent_nothing() -> None:
    card, sheet = model_card({}), data_sheet({})
    for text in (card, sheet):
        assert all(f"--only {section}`" in text for section in SECTIONS)
        assert "Unknown: " in text and "None" not in text and "[]" not in text
        assert not re.search(r"\d", re.sub(r"et al\.[^\n]*\(?\d{4}\)?", "", text))


def test_markdown_cannot_be_broken_out_of() -> None:
    table = Table("a|b", ("x", "y"), (TableRow("<b>*bold*|\n| more |", ("[text](place)",), "_detail_"),))
    text = markdown(table)
    assert text.splitlines()[0] == "a\\|b:"
    assert text.splitlines()[-1] == r"| &lt;b&gt;\*bold\*\| \| more \|, \_detail\_ | [text]\(place) |"
    assert_whole_tables("\n\n" + text)
    assert "a_b_c" in markdown(Table("", ("a_b_c",), ()))


def test_what_was_given_is_outlined_beyond_the_region_too() -> None:
    labels = np.zeros((6, 8), dtype=np.int64)
    labels[1:5, 1:7] = 1
    labels[2:4, 3:5] = 2

    def part(**more: Any) -> np.ndarray:
        line = Line(id="x", file="x.png", labels="x.png", seed=0, given=("a",), free=("b",), **more)
        schema = LabelSchema.from_names(("a", "b"))
        samples = SimpleNamespace(
            label_map=lambda _: labels, schema=schema, header=SimpleNamespace(about_model=AboutModel(spacing_mm=(2, 2)))
        )
        return overview.given_part(samples, line)  # type: ignore[arg-type]

    assert np.array_equal(part(), np.where(labels == 1, 1, 0))
    assert np.array_equal(part(free_within="box 0,0..5,3"), np.where((labels == 2) & (np.arange(8) <= 3), 0, labels))
    assert np.array_equal(part(free_within="near b 4mm"), part())
    assert np.array_equal(part(free_within="brush.png (0123abcd)"), part())  # a mask that the set does not have
