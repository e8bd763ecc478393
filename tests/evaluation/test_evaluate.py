from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from anatogen import evaluate
from anatogen.conditioning.edit_language import parse_edits
from anatogen.data.store import PreparedDataset
from anatogen.errors import DataError, SettingsError
from anatogen.evaluation import evaluate as evaluate_module
from anatogen.evaluation.counterfactual import grown_class
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.generation.edited_maps import EditedMaps, Editing
from anatogen.generation.engine import Generator
from anatogen.generation.header import GateSettings
from anatogen.generation.manifest import Measures
from anatogen.generation.plan import DatasetMaps, Plan, requests_from_dataset
from anatogen.generation.rejection import Gating, Verdict
from anatogen.generation.request import Request
from anatogen.generation.sample_set import write_sample_set
from anatogen.judges.encoder import EncoderSettings
from anatogen.judges.segmenter import Segmenter, SegmenterSettings
from anatogen.judges.warping import FOR_EDITED_MAPS
from anatogen.labels import LabelSchema
from anatogen.reporting.figures import coloured, outlined
from by_brightness import judge_by_brightness

pytestmark = pytest.mark.usefixtures("small_judges")

QUICK = EvaluationSettings(
    segmenter=SegmenterSettings(steps=150, batch_size=8, validations=2), encoder=EncoderSettings(steps=20)
)
FAITHFUL = ("faithfulness", "realism")


@pytest.fixture
def own_dataset(nnunet: Path, tmp_path: Path) -> PreparedDataset:
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.sources import open_source

    return prepare(open_source(str(nnunet)), tmp_path / "data", PrepareSettings((32, 32)))


def test_report_of_a_run(
    longer_run: Path, own_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by_brightness(monkeypatch)
    out = tmp_path / "report"
    results = evaluate(
        longer_run, own_dataset, out, device="cpu", only=FAITHFUL, settings=QUICK, command="anatogen x", version="1"
    )
    saved = json.loads((out / "report.json").read_text())
    for key in ("dice_gen_map", "dice_gen_real", "dice_real_map"):
        entry = saved["faithfulness"][key]
        assert entry["per_class"].keys() == {"ball", "core"} and ("no_interval" in entry) is (entry["ci95"] is None)
        assert set(entry["per_patient"]) == {row.patient for row in own_dataset.split("test")}
        for name, value in entry["per_class"].items():
            assert np.nanmean([p[name] for p in entry["per_patient"].values()]) == pytest.approx(value)
    assert saved["faithfulness"]["dice_real_map"]["mean"] > 0.99  # the ceiling: known, for the judge was not trained
    assert saved["faithfulness"]["dice_gen_map"]["mean"] > 0.6
    assert {"n", "split", "command", "version"} <= saved.keys()
    assert saved["dice_against_steps"]["steps"] == [2, 4, 8, 16, 32]
    assert len(results["realism"]["power_ratio"]) == 16
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 9 and "http:" not in page and "https:" not in page
    assert {p.name for p in (out / "figures").iterdir()} == {
        f"{name}.png"
        for name in (
            "examples",
            "patients",
            "worst",
            "left_free",
            "seeds_free",
            "seeds_given",
            "steps",
            "power",
            "noise",
        )
    }
    apart = saved["variation"]
    assert apart["free"]["core"] > 1.5 * apart["given"]["core"]  # only what is free varies


def test_real_images_reach_their_own_ceiling(longer_run: Path, own_dataset: PreparedDataset, tmp_path: Path) -> None:
    """A sample set whose images are the real ones scores the ceiling itself, and a power ratio of 1."""
    generator = Generator.load(longer_run, device="cpu")
    rows = own_dataset.split("test")
    requests = requests_from_dataset(own_dataset, rows, own_dataset.schema.states())
    made = write_sample_set(generator, requests, tmp_path / "samples", image_format="npy")
    for entry, image in zip(made.entries, own_dataset.load(rows).images.numpy(), strict=True):
        np.save(tmp_path / "samples" / entry.file, image)
    results = evaluate(
        tmp_path / "samples", own_dataset, tmp_path / "report", only=FAITHFUL, settings=QUICK, device="cpu"
    )
    measures = results["faithfulness"]
    for measure in ("dice", "hd95", "nsd", "missed", "volume_error"):
        assert measures[f"{measure}_gen_map"] == measures[f"{measure}_real_map"]
    assert measures["dice_gen_real"]["mean"] == 1
    real = results["realism"]
    assert np.allclose(real["power_ratio"], 1) and real["fid"] == pytest.approx(real["fid_real"], nan_ok=True)
    assert real["test"] is None  # of one test patient nothing can be said, not even of a perfect generator


class DarkGate:
    """Rejects every first image of a case's even slices: what it keeps is known beforehand."""

    settings: ClassVar = GateSettings(min_dice=0.7)

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, requests: Sequence[Request], images: np.ndarray) -> list[Verdict]:
        verdicts = []
        for request in requests:
            first = request.id not in self.seen
            self.seen.add(request.id)
            rejected = first and request.origin.slice % 2 == 0
            verdicts.append(
                Verdict(not rejected, Measures(dice=0.6 if rejected else 0.8), "too dark" if rejected else "")
            )
        return verdicts


def test_an_edited_set_is_judged_by_a_segmenter_that_knows_such_shapes(
    run_folder: Path, own_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = DatasetMaps(own_dataset, own_dataset.split("test"))
    edited = EditedMaps(maps, Editing(parse_edits(["grow core 1px"]), count=3))
    requests = Plan(own_dataset.schema.states()).requests(edited)
    write_sample_set(Generator.load(run_folder, device="cpu"), requests, tmp_path / "edited", image_format="npy")
    asked: list[SegmenterSettings] = []
    real: list[np.ndarray] = []

    def recorded(_: PreparedDataset, settings: SegmenterSettings, **__: str) -> Callable[..., np.ndarray]:
        asked.append(settings)

        def segment(images: torch.Tensor) -> np.ndarray:
            real.append(np.asarray(images))
            return np.zeros((len(images), *images.shape[2:]), dtype=np.int64)

        return segment

    monkeypatch.setattr(evaluate_module, "segmenter_for", recorded)
    more = {"device": "cpu", "quick": True, "only": ("faithfulness",)}
    evaluate(tmp_path / "edited", own_dataset, tmp_path / "report", **more)
    assert [each.warped for each in asked] == [FOR_EDITED_MAPS]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["judge"] == {"seed": 0, "warped": FOR_EDITED_MAPS}
    assert report["split"] == ["edited"]
    assert "are warped so that a class" in (tmp_path / "report" / "report.html").read_text()
    test = own_dataset.load(own_dataset.split("test")).images.numpy()
    ceiling = np.concatenate(real)[-len(test) :]  # after the three images of the set
    changed = [not np.array_equal(a, b) for a, b in zip(ceiling, test, strict=True)]
    assert 0 < sum(changed) < len(test)


def test_a_gated_set_is_judged_by_another_segmenter(
    run_folder: Path, own_dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator.load(run_folder, device="cpu")
    rows = [row for row in own_dataset.split("test") if row.slice < 8]
    requests = requests_from_dataset(own_dataset, rows, own_dataset.schema.states())
    seeds: list[int] = []
    trained = evaluate_module.segmenter_for

    def recorded(dataset: PreparedDataset, settings: SegmenterSettings, **more: str) -> Segmenter:
        seeds.append(settings.seed)
        return trained(dataset, settings, **more)

    monkeypatch.setattr(evaluate_module, "segmenter_for", recorded)
    brief = EvaluationSettings(segmenter=SegmenterSettings(steps=2, batch_size=2, validations=1))
    reports = {}
    chosen = shutil.copytree(run_folder, tmp_path / "chosen-run")
    about = json.loads((chosen / "model.json").read_text())
    about["about"] |= {"selected_step": 2, "selected_dice": 0.5}  # as live.best leaves it
    (chosen / "model.json").write_text(json.dumps(about))
    of_chosen = Generator.load(chosen, device="cpu")
    for name, gates, model in (("gated", [DarkGate()], generator), ("plain", [], generator), ("chosen", [], of_chosen)):
        write_sample_set(model, requests, tmp_path / name, image_format="npy", gating=Gating(gates, 1))
        more = {"settings": brief, "device": "cpu", "quick": True, "only": ("faithfulness",)}
        evaluate(tmp_path / name, own_dataset, tmp_path / f"{name}-report", **more)
        reports[name] = json.loads((tmp_path / f"{name}-report" / "report.json").read_text())
    even = sum(row.slice % 2 == 0 for row in rows)
    gated, plain = reports["gated"], reports["plain"]
    assert even and gated["selection"] == {
        "min_dice": 0.7, "reject_copies": None, "retries": 1, "made": len(rows) + even, "kept": len(rows), "rejected": even,
        "requests": len(rows), "requests_without_image": 0,
    }  # fmt: skip
    assert gated["judge"] == {"seed": seeds[0], "independent_of_gate": True} and seeds[0] != 0
    assert plain["selection"] is None and plain["judge"] == {"seed": 0} and seeds[1] == 0
    assert reports["chosen"]["judge"] == {"seed": seeds[2], "independent_of_training": True} and seeds[2] == seeds[0]
    assert "A chosen model" in (tmp_path / "chosen-report" / "report.html").read_text()
    assert "A chosen model" not in (tmp_path / "plain-report" / "report.html").read_text()
    assert gated["maps"] == plain["maps"] == {"used": len(rows), "of": len(own_dataset.split("test"))}
    absent = plain["faithfulness"]["absent"]
    lacking = sum((own_dataset.load([row]).labels == 2).sum() == 0 for row in rows)
    assert absent["unit"] == "mm2" and absent["gen_map"]["core"]["images"] == lacking > 0
    assert absent["real_map"]["core"]["images"] == lacking and 0 <= absent["gen_map"]["core"]["invented"] <= 1
    empty = sum((own_dataset.load([row]).labels > 0).sum() == 0 for row in rows)
    assert absent["not_defined"]["images"] == empty and len(absent["not_defined"]["named"]) == min(empty, 10)
    for name, there in (("gated", True), ("plain", False)):
        for file in ("report.html", "model_card.md", "data_sheet.md"):
            text = (tmp_path / f"{name}-report" / file).read_text()
            assert ("Selected images: a gate kept only" in text) is there
            assert f"the images follow {len(rows)} of the" in text


def test_an_unrelated_data_set_is_refused(run_folder: Path, tmp_path: Path) -> None:
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.sources import open_source
    from conftest import write_nnunet

    raw = write_nnunet(tmp_path / "raw", labels={"background": 0, "liver": 1, "bone": 2})
    other = prepare(open_source(str(raw)), tmp_path / "data", PrepareSettings((32, 32)))
    with pytest.raises(SettingsError, match="knows the classes ball, core, the data set has liver, bone"):
        evaluate(run_folder, other, tmp_path / "report", device="cpu")
    few = prepare(open_source(str(raw)), tmp_path / "few", PrepareSettings((32, 32), shares={"train": 1, "test": 1}))
    with pytest.raises(Exception, match="no split heldout and val"):
        evaluate(run_folder, few, tmp_path / "report", device="cpu")


def test_an_edit_is_drawn_with_what_was_asked_and_found(longer_run: Path, dataset: PreparedDataset) -> None:
    generator = Generator.load(longer_run, device="cpu")
    rows = dataset.split("test")
    areas = [int((m == 2).sum()) for m in dataset.load(rows).labels.numpy()]

    def bright(images: np.ndarray) -> np.ndarray:  # the core is the brightest thing in the image
        return np.where(images[:, 0] > 0.3, 2, 0)

    figure = grown_class(dataset, generator, rows, "core", bright, pixels=(1, 3))
    assert figure.png.startswith(b"\x89PNG")
    asked, found, warped = zip(*re.findall(r"(\d+) \((\d+); (\d+)\)", figure.caption), strict=True)
    assert int(warped[0]) < int(warped[1]) < int(warped[2])  # real images in which the core truly grew
    assert int(asked[0]) == max(areas) and int(asked[0]) < int(asked[1]) < int(asked[2])
    assert int(found[0]) < int(found[2])  # the image follows the edit
    with pytest.raises(DataError, match="no label map holds the class core"):
        grown_class(dataset, generator, [], "core", bright)


def test_outlines_lie_on_borders() -> None:
    schema = LabelSchema.from_names(["a"])
    labels = np.zeros((4, 4), dtype=np.int64)
    labels[1:3, 1:3] = 1
    drawn = outlined(np.full((1, 4, 4), -1.0), labels, schema)
    assert drawn.shape == (12, 12, 3)
    assert drawn.any(axis=-1).sum() == 2 * 6 + 2 * 6 - 1  # two of the sides share a corner
    assert coloured(labels, schema)[0, 0].tolist() == [0, 0, 0]


def test_images_of_other_channels_are_refused(run_folder: Path, nnunet: Path, tmp_path: Path) -> None:
    from anatogen.data.prepare import PrepareSettings, prepare
    from anatogen.data.sources import open_source

    for image in sorted((nnunet / "imagesTr").iterdir()):
        (nnunet / "imagesTr" / image.name.replace("_0000", "_0001")).write_bytes(image.read_bytes())
    about = json.loads((nnunet / "dataset.json").read_text())
    (nnunet / "dataset.json").write_text(json.dumps({**about, "channel_names": {"0": "T1", "1": "T2"}}))
    two = prepare(open_source(str(nnunet)), tmp_path / "two", PrepareSettings((32, 32)))
    with pytest.raises(SettingsError, match="makes images of 1 channels, the data set has 2"):
        evaluate(run_folder, two, tmp_path / "report", device="cpu")
