"""The examples of the docstrings run, on a data set and a run under the names that they use."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from anatogen.generation import engine


def test_the_examples_of_the_generator_run(
    dataset_folder: Path, longer_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (("data", dataset_folder), ("runs", longer_run)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "liver").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    examples = {test.name: test for test in finder.find(engine.Generator, "Generator", globs={})}
    shared: dict[str, object] = {}
    for name in ("Generator", "Generator.sample", "Generator.interpolate"):
        assert examples[name].examples
        examples[name].globs = shared  # the first example makes what the others use
        runner.run(examples[name], clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0
