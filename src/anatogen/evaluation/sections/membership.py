"""Does the model's loss reveal whom it was trained on?"""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import torch

from anatogen.conditioning.encode import Condition
from anatogen.data.attributes import AttributeTable
from anatogen.data.store import PreparedDataset
from anatogen.evaluation.needs import a_denoiser
from anatogen.evaluation.sections.base import Finding, Need, Question, Section, evenly
from anatogen.judges.copy_search import UNSEEN
from anatogen.judges.denoising_loss import denoising_losses, difficulties
from anatogen.metrics.membership import MembershipAttack, membership_inference
from anatogen.model import HasDenoiser
from anatogen.progress import stage
from anatogen.reporting.results import MembershipResult, Report
from anatogen.reporting.verdicts import membership_sentence

_ATTACKED = 500


class Membership(Section[MembershipAttack]):
    """Membership inference by the denoiser's loss; it becomes a part of the result of `Privacy`, after which it is
    run.
    """

    name: ClassVar[str] = "membership"
    question: ClassVar[Question] = "privacy"
    needs: ClassVar[tuple[Need, ...]] = (a_denoiser,)

    def finish(self) -> Finding[MembershipAttack]:
        """The attack on the generator's denoiser."""
        generator = self.subject.required_generator
        if not isinstance(generator, HasDenoiser):
            raise ValueError("this section needs a generator with a denoiser")
        return Finding(membership_attack(generator, self.subject.dataset))

    @classmethod
    def place(cls, report: Report, result: MembershipAttack) -> Report:
        """`report` with the attack beside the copy rate, and in its verdict."""
        if report.privacy is None:
            return report
        verdict = " ".join(part for part in (report.privacy.verdict, membership_sentence(result)) if part)
        attack = MembershipResult.model_validate(asdict(result))
        privacy = report.privacy.model_copy(update={"attack": attack, "verdict": verdict})
        return report.model_copy(update={"privacy": privacy})


def membership_attack(generator: HasDenoiser, dataset: PreparedDataset, most: int = _ATTACKED) -> MembershipAttack:
    """Can training images be told from unseen patients' by the denoiser's loss, their difficulty accounted for? On at
    most `most` of each.
    """
    unseen = [row for row in dataset.rows if row.split in UNSEEN]
    path, sides = generator.denoiser.path, []
    with stage("membership attack", 2.0, "s") as bar:
        for number, rows in enumerate((dataset.split("train"), unseen)):
            chosen = evenly(rows, most)
            losses, hard, done = [], [], 0
            for batch in dataset.batches(chosen, 64):
                takes = generator.denoiser.config.attributes
                told = None if takes is None else AttributeTable(dataset, takes, batch.rows)
                vector = None if takes is None or told is None else takes.vectors(told.codes(batch.rows))
                condition = Condition.of(batch.labels, batch.annotated, vector=vector).to(generator.device)
                images = batch.images.to(generator.device)
                ignored = None if batch.ignored is None else batch.ignored.to(generator.device)
                with torch.no_grad():
                    losses.append(denoising_losses(generator.denoiser.under(condition), path, images, ignored=ignored))
                hard.append(difficulties(path, images, batch.labels.to(generator.device)))
                done += len(batch.images)
                bar.update(number + done / len(chosen))
            sides.append((np.concatenate(losses), np.array([row.patient for row in chosen]), np.concatenate(hard)))
    (members, of_members, hard_members), (others, of_others, hard_others) = sides
    return membership_inference(members, others, of_members, of_others, difficulty=(hard_members, hard_others))
