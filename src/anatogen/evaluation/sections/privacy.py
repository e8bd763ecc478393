"""Is an image somebody's? Copies of training images, and what the model gives away about who was in the training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation.copies import require_training_data, write_privacy
from anatogen.evaluation.sections.base import Block, Subject, evenly
from anatogen.generation.engine import Generator
from anatogen.judges.copy_search import UNSEEN, CopySearch
from anatogen.judges.denoising_loss import denoising_losses, difficulties
from anatogen.judges.encoder import Encoder
from anatogen.metrics.copies import CopyRate, copy_rate
from anatogen.metrics.membership import MembershipAttack, membership_inference
from anatogen.metrics.neighbours import Neighbours, closest_pairs, nearest_features
from anatogen.progress import stage
from anatogen.reporting import figures
from anatogen.reporting.report import Figure
from anatogen.reporting.verdicts import certainty

_ATTACKED = 500
_PAIRS = 10


class Privacy:
    """Nearest training images in pixels and in features beside those of real unseen patients, and a membership attack."""

    def __init__(self, subject: Subject, encoder: Encoder) -> None:
        require_training_data(subject.samples.header.about_model, subject.dataset)
        self.subject, self.encoder = subject, encoder
        self.search = CopySearch(subject.dataset)
        self._features_of_training = self._features(self.search.train_rows)
        self._in_pixels: list[Neighbours] = []
        self._in_features: list[Neighbours] = []

    def add(self, block: Block) -> None:
        """Look for the nearest training images of `block`."""
        self._in_pixels.append(self.search.nearest(block.generated))
        self._in_features.append(nearest_features(self.encoder(block.generated), self._features_of_training))

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """The copy rate with its verdict, the closest pairs, and the attack where the generator is there."""
        patients, unseen = self.subject.patients(), self.search.heldout_patients
        with stage("unseen patients' nearest", len(self.search.heldout_rows), "images") as bar:
            heldout = self.search.heldout(lambda done, _: bar.update(done))
        made = Neighbours.joined(self._in_pixels)
        rate = copy_rate(made.relative, heldout.relative, patients, unseen)
        unseen_features = nearest_features(self._features(self.search.heldout_rows), self._features_of_training)
        made_features = Neighbours.joined(self._in_features)
        in_features = copy_rate(made_features.relative, unseen_features.relative, patients, unseen)
        generator = self.subject.generator
        attack = membership_attack(generator, self.subject.dataset) if generator is not None else None
        write_privacy(self.subject.samples, rate)
        results = {
            **_describe(rate),
            "verdict": certainty(rate, attack),
            "features": _describe(in_features),
            "attack": None if attack is None else {**asdict(attack), "ci95": list(attack.ci95)},
        }
        return results, [self._pairs_figure(made), self._distances_figure(made, heldout, rate)]

    def _features(self, rows: list[Row]) -> NDArray[np.float32]:
        return np.concatenate([self.encoder(batch.images) for batch in self.subject.dataset.batches(rows)])

    def _pairs_figure(self, made: Neighbours) -> Figure:
        cells: list[figures.Picture] = []
        for image, training in closest_pairs(made, _PAIRS):
            row = self.search.train_rows[training]
            real = self.subject.dataset.load([row]).images[0].numpy()
            generated = self.subject.samples.image(self.subject.entries[image])
            cells.append((f"generated, {made.distance[image]:.3f} from", figures.gray(generated)))
            cells.append((f"training: {row.id}", figures.gray(real)))
        caption = (
            f"The {len(cells) // 2} generated images that are nearest to a training image, each beside it; the distance is 1 - correlation "
            "of pixels under shifts of up to 2. Look: is it the same image?"
        )
        lines = [cells[start : start + 10] for start in range(0, len(cells), 10)]
        return Figure("closest", "The closest pairs", figures.grid(lines), caption, "privacy")

    def _distances_figure(self, made: Neighbours, heldout: Neighbours, rate: CopyRate) -> Figure:
        values = {"generated": made.relative, "real, unseen patients": heldout.relative}
        caption = (
            "Distance to the nearest training image, over the median distance to the 32 nearest. The dashed line is the threshold: "
            f"about {100 * rate.level:g} % of unseen patients' real images lie below it."
        )
        return Figure(
            "copies",
            "Nearer to the training images than real ones are?",
            figures.distributions(values, line=rate.threshold),
            caption,
            "privacy",
        )


def membership_attack(generator: Generator, dataset: PreparedDataset, most: int = _ATTACKED) -> MembershipAttack:
    """Can training images be told from unseen patients' by the denoiser's loss, their difficulty accounted for? On at most `most` of each."""
    unseen = [row for row in dataset.rows if row.split in UNSEEN]
    path, sides = generator.denoiser.path, []
    with stage("membership attack", 2.0, "s") as bar:
        for number, rows in enumerate((dataset.split("train"), unseen)):
            chosen = evenly(rows, most)
            losses, hard, done = [], [], 0
            for batch in dataset.batches(chosen, 64):
                condition = Condition.of(batch.labels, batch.annotated).to(generator.device)
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


def _describe(rate: CopyRate) -> dict[str, Any]:
    return {
        "copy_rate": rate.rate,
        "ci95": list(rate.ci95),
        "expected": rate.expected,
        "p_value": rate.p_value,
        "threshold": rate.threshold,
        "flagged": int(rate.flagged.sum()),
        "above_chance": bool(rate.above_chance),
        "detectable": rate.detectable,
        "n_generated": rate.n_generated,
        "n_heldout": rate.n_heldout,
    }
