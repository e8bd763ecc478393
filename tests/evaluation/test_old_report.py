"""The report of the sample sets of `fixtures/format1` has every key and value that it had before its results were
typed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anatogen import evaluate
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.judges.encoder import EncoderSettings
from anatogen.reporting.results import Report
from by_brightness import judge_by_brightness

pytestmark = pytest.mark.usefixtures("small_judges")

OLD = Path(__file__).parents[1] / "fixtures" / "format1"
SETS = ("samples", "interpolated")
# Sentences may be said in better words.
SENTENCES = ("realism.caution",)
# What rests on a training or on new images differs between processors: only its keys are compared.
ROUNDED = (
    "variation",
    "dice_against_steps",
    "realism.encoder",
    "privacy.features",
    "privacy.attack",
    "privacy.verdict",
)


def flat(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its full key."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not inside:
        yield name, tree
    for key, value in inside:
        yield from flat(value, f"{name}.{key}".removeprefix("."))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_evaluated_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_by_brightness(monkeypatch)
    for folder in ("dataset", "run", name):
        shutil.copytree(OLD / folder, tmp_path / folder)
    evaluate(
        tmp_path / name,
        tmp_path / "dataset",
        tmp_path / "report",
        only=("faithfulness", "realism", "privacy"),
        settings=EvaluationSettings(encoder=EncoderSettings(steps=2)),
        device="cpu",
        command="anatogen evaluate samples",
        version="0.1.0",
        run=tmp_path / "run",
    )
    before = dict(flat(json.loads((OLD / "reports" / f"{name}.json").read_text())))
    after = dict(flat(json.loads((tmp_path / "report" / "report.json").read_text())))
    assert after.keys() >= before.keys()
    added = {key for key in after.keys() - before.keys() if not key.startswith(("not_applicable", "floors."))}
    assert added == {"format", "model_digest"}
    for key, value in before.items():
        if not key.startswith((*ROUNDED, *SENTENCES)):
            exact = value is None or isinstance(value, str | bool | list | dict)
            assert after[key] == (value if exact else pytest.approx(value, abs=1e-4)), key


@pytest.mark.parametrize("name", SETS)
def test_read_and_written_it_stays_what_it_was(name: str, tmp_path: Path) -> None:
    raw = json.loads((OLD / "reports" / f"{name}.json").read_text())
    Report.read(OLD / "reports" / f"{name}.json").write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {"format": 1, **raw}
