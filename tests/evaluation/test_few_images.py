"""Of one image and of three the report says what it can, and never "nan"."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from anatogen.data.store import PreparedDataset
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import write_sample_set
from anatogen.judges.encoder import EncoderSettings
from anatogen.reporting.summary import summary_lines
from anatogen.workflows.evaluate import EvaluateRequest, evaluate
from by_brightness import judge_by_brightness

pytestmark = pytest.mark.usefixtures("small_judges")


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_nan(
    count: int, dataset: PreparedDataset, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by_brightness(monkeypatch)
    requests = requests_from_dataset(dataset, dataset.split("test"), dataset.schema.states(), count=count)
    write_sample_set(Generator.load(run_folder, device="cpu"), requests, tmp_path / "samples")
    request = EvaluateRequest(
        subjects=(tmp_path / "samples",),
        dataset=dataset,
        out=tmp_path / "report",
        settings=EvaluationSettings(encoder=EncoderSettings(steps=2)),
        quick=True,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = evaluate(request)
    assert result.page.is_file() and result.report.n.images == count
    summary = "\n".join(summary_lines(result.report))
    assert f"FID needs more than {count} image" in summary and "Not applicable: " in summary
    texts = [summary]
    for name in ("report.html", "report.json", "model_card.md", "data_sheet.md"):
        texts.append(re.sub(r"data:image/png;base64,[^\"]*", "", (result.folder / name).read_text(encoding="utf-8")))
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in texts)
