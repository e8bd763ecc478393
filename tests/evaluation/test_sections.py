"""The protocol of sections: what is asked, what is applicable, what is run, in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from anatogen import __version__
from anatogen.data.store import PreparedDataset
from anatogen.errors import SettingsError
from anatogen.evaluation import evaluate as evaluate_module
from anatogen.evaluation import needs
from anatogen.evaluation.evaluate import QUESTIONS, SECTIONS, Evaluated, require_evaluable, run_sections, subject_of
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, not_applicable, score
from anatogen.evaluation.sections.generator import LeftFree
from anatogen.evaluation.sections.membership import Membership
from anatogen.evaluation.sections.similarity import Similarity
from anatogen.evaluation.sections.utility_nnunet import NnunetUtility
from anatogen.evaluation.subject import Block, EvaluationSettings, SampleSets, Subject
from anatogen.metrics.membership import MembershipAttack
from anatogen.model import ImageModel, ModelSpec
from anatogen.reporting.report import Figure
from anatogen.reporting.results import (
    NnunetUtilityResult,
    PrivacyResult,
    Report,
    SimilarityResult,
    UtilityResult,
    VariationResult,
)
from by_brightness import judge_by_brightness
from cohorts import sample_set


@pytest.fixture
def subject(dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """The real images of the test maps stand for samples; the run is not at hand."""
    judge_by_brightness(monkeypatch)
    images = dataset.load(dataset.split("test")).images.numpy()
    return subject_of(SampleSets(sample_set(tmp_path / "samples", dataset, images)), dataset, work=tmp_path)


def with_generator(subject: Subject, **abilities: Any) -> Subject:
    """The same with a generator at hand that can do so much."""
    generator = cast(ImageModel, SimpleNamespace(**abilities))
    return replace(subject, sets=replace(subject.sets, generator=generator))


class Loose(Section[VariationResult]):
    """Needs nothing; says how many images it saw."""

    name: ClassVar[str] = "variation"
    question: ClassVar[Question] = "realism"
    streams: ClassVar[bool] = True

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.seen = 0

    def add(self, block: Block) -> None:
        self.seen += len(block.entries)

    def finish(self) -> Finding[VariationResult]:
        return Finding(VariationResult(seeds=self.seen), [Figure("a", "", b"", "")])


class Long(Loose):
    """Takes days."""

    name: ClassVar[str] = "privacy"
    takes_days: ClassVar[bool] = True
    streams: ClassVar[bool] = False

    def finish(self) -> Finding[Any]:
        assert self.seen == 0
        return Finding(PrivacyResult(copy_rate=0.5), [Figure("b", "", b"", "")])


class Picky(Loose):
    """Can never be run, and must not even be made."""

    name: ClassVar[str] = "picky"
    needs: ClassVar[tuple[Need, ...]] = (lambda _: "", lambda _: "the moon is not full", lambda _: "too late")

    def __init__(self, subject: Subject) -> None:
        raise AssertionError


def test_what_can_be_run_is_run_and_the_rest_has_a_reason(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "SECTIONS", (Picky, Loose, Long))
    interim: list[Evaluated] = []
    done = run_sections(subject, only=("realism",), interim=interim.append)
    assert done.report.not_applicable == {"picky": "the moon is not full"}
    assert done.report.variation == VariationResult(seeds=len(subject.entries))
    assert done.report.privacy == PrivacyResult(copy_rate=0.5) and [f.name for f in done.figures] == ["a", "b"]
    [before] = interim
    assert before.report.variation and before.report.privacy is None and [f.name for f in before.figures] == ["a"]
    nothing = run_sections(subject, only=("utility",), interim=interim.append)
    assert nothing.report.variation is None and nothing.report.not_applicable == {} and len(interim) == 1


def test_what_the_generator_can_do_is_left_out_where_it_is_to_be_quick(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "SECTIONS", tuple(k for k in SECTIONS if k.question == "model"))
    found = run_sections(subject, only=(), quick=False).report.not_applicable
    assert found.keys() == {"left_free", "variation", "dice_against_steps"}
    assert set(found.values()) == {"the run that made the images was not found: name it with --run"}
    assert run_sections(subject, only=(), quick=True).report.not_applicable == {}


def test_provenance_is_complete_without_being_asked_for(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "SECTIONS", ())
    report = run_sections(subject).report
    assert report.version == __version__ and report.command and report.model_digest == "a model"
    assert report.dataset is not None and report.dataset.fingerprint == subject.dataset.info.source["fingerprint"]
    named = run_sections(subject, command="anatogen evaluate x", version="7").report
    assert (named.version, named.command) == ("7", "anatogen evaluate x")


def test_needs_without_a_run(subject: Subject) -> None:
    for need in (
        needs.a_run,
        needs.free_classes,
        needs.trained_with_free_classes,
        needs.seeds,
        needs.solver_steps,
        needs.a_denoiser,
    ):
        assert "the run that made the images was not found" in need(subject)


def test_needs_of_a_generator(subject: Subject) -> None:
    spec = ModelSpec(subject.dataset.schema, subject.dataset.size, takes_free=False, seeds_vary=False)
    bare = with_generator(subject, spec=spec)
    assert needs.a_run(bare) == ""
    assert needs.free_classes(bare) == "the generator takes no classes left free"
    assert needs.trained_with_free_classes(bare) == "the model was trained without classes left free"
    assert "whatever the seed" in needs.seeds(bare)
    assert "no solver steps" in needs.solver_steps(bare) and "no denoiser" in needs.a_denoiser(bare)
    denoiser = with_generator(subject, spec=spec, denoiser=object(), device="cpu")
    assert needs.free_classes(denoiser) == needs.a_denoiser(denoiser) == ""  # drawn, with a word on its training
    steps = {name: lambda *_: None for name in ("settings", "with_settings", "sampling_with")}
    able = with_generator(subject, spec=replace(spec, takes_free=True, seeds_vary=True), **steps)
    wanted = (needs.free_classes, needs.trained_with_free_classes, needs.seeds, needs.solver_steps)
    assert not any(need(able) for need in wanted)


def test_needs_of_images(subject: Subject) -> None:
    assert needs.real_images(subject) == ""
    assert "another data set" in needs.real_images(replace(subject, rows=None))
    edited = [entry.model_copy(update={"edits": ("mirror",), "edit": 0}) for entry in subject.entries]
    assert "label maps are edited" in needs.real_images(replace(subject, rows=None, entries=edited))
    foreign = [entry.model_copy(update={"elsewhere": "other"}) for entry in edited]
    assert "another data set" in needs.real_images(replace(subject, rows=None, entries=foreign))
    assert "not made similar" in needs.similar_images(subject)
    similar = [entry.model_copy(update={"similarity": 0.5}) for entry in subject.entries]
    assert needs.similar_images(replace(subject, entries=similar)) == ""
    assert "not made similar" in needs.similar_images(replace(subject, entries=[*similar, subject.entries[0]]))
    assert "held-out patients' label maps" in needs.heldout_images(subject)
    heldout = replace(subject.samples, entries=[subject.entries[0].model_copy(update={"split": "heldout"})])
    assert needs.heldout_images(replace(subject, sets=replace(subject.sets, heldout=heldout))) == ""
    assert needs.heldout_images(replace(subject, sets=replace(subject.sets, heldout=subject.samples)))


def test_every_section_says_what_it_is() -> None:
    assert len({kind.name for kind in SECTIONS}) == len(SECTIONS)
    assert {kind.question for kind in SECTIONS} == {*QUESTIONS, "model"}
    order = [kind.name for kind in SECTIONS]
    assert order.index("privacy") < order.index("membership") and order.index("utility") < order.index("utility_nnunet")
    assert order.index("dice_against_steps") < order.index("realism")  # whose figure shows its curves


def test_similarity_leaves_its_key(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not_applicable(Similarity, subject) == "the images were not made similar to real ones"
    monkeypatch.setattr(evaluate_module, "SECTIONS", (Similarity,))
    report = run_sections(subject, only=("faithfulness",)).report
    assert report.content()["likeness"] == {} and report.similarity == SimilarityResult()


def test_parts_of_other_results_find_their_place() -> None:
    attack = MembershipAttack(0.5, (0.4, 0.6), 0.01, 0.1, 8, 9)
    report = Membership.place(Report(privacy=PrivacyResult(verdict="No copying found.", attack=None)), attack)
    assert report.privacy is not None and report.privacy.attack is not None and report.privacy.attack.auc == 0.5
    assert report.privacy.attack.difficulty_auc is None  # was NaN
    assert (report.privacy.verdict or "").startswith("No copying found. The model does not reliably tell")
    assert Membership.place(Report(), attack) == Report() == NnunetUtility.place(Report(), NnunetUtilityResult())
    with_nnunet = NnunetUtility.place(Report(utility=UtilityResult()), NnunetUtilityResult(epochs=5))
    assert with_nnunet.utility is not None and with_nnunet.utility.nnunet == NnunetUtilityResult(epochs=5)
    assert LeftFree.place(report, None) is report


def test_a_score_says_why_it_has_no_interval() -> None:
    few = score(("a", "b"), np.array([[0.5, np.nan]]), ["p"])
    assert (few.mean, few.ci95, few.per_class) == (0.5, None, {"a": 0.5, "b": None}) and few.no_interval
    assert few.per_patient == {"p": {"a": 0.5, "b": None}}
    many = score(("a",), np.array([[0.1], [0.4], [0.6], [0.8]]))
    assert many.ci95 is not None and many.ci95[0] < 0.475 < many.ci95[1]
    assert {"no_interval", "per_patient"}.isdisjoint(many.model_fields_set)


def test_what_cannot_be_evaluated_is_refused_first(dataset: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="no question 'realsm'.*realism"):
        require_evaluable(dataset, ("realsm",), EvaluationSettings())
    with pytest.raises(SettingsError, match="Add utility to --only"):
        require_evaluable(dataset, ("realism",), EvaluationSettings(nnunet_epochs=5))
