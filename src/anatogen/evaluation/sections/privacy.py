"""Is an image somebody's? Copies of training images, and what the model gives away about who was in the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anatogen.conditioning.encode import Condition
from anatogen.data.store import PreparedDataset, Row
from anatogen.evaluation import figures
from anatogen.evaluation.features import Encoder
from anatogen.evaluation.gates import CopyMeasurement, measure_copies, write_privacy
from anatogen.evaluation.privacy import (
    CopyRate,
    MembershipAttack,
    certainty,
    closest_pairs,
    copy_rate,
    denoising_losses,
    membership_inference,
    nearest_features,
)
from anatogen.evaluation.report import Figure
from anatogen.evaluation.sections.base import BLOCK, Block, Subject
from anatogen.generation.engine import Generator
from anatogen.runtime import Progress

_ATTACKED = 1000
_PAIRS = 10
_MOST_IMAGES = 4000


class Privacy:
    """Nearest training images in pixels and in features beside those of real unseen patients, and a membership attack.

    Of more than 4,000 images, so many spread over the set are searched for copies; the report says how many.
    """

    def __init__(self, subject: Subject, encoder: Encoder) -> None:
        self.subject, self.encoder = subject, encoder
        every = max(1, -(-len(subject.entries) // _MOST_IMAGES))
        self._wanted = {id(entry) for entry in subject.entries[::every]}
        self._images: list[NDArray[np.float32]] = []
        self._patients: list[str] = []
        self._patient_of = dict(zip(map(id, subject.entries), subject.patients(), strict=True))

    def add(self, block: Block) -> None:
        """Keep the images of `block` that are to be searched."""
        chosen = [i for i, entry in enumerate(block.entries) if id(entry) in self._wanted]
        self._images += [block.generated[i] for i in chosen]
        self._patients += [str(self._patient_of[id(block.entries[i])]) for i in chosen]

    def finish(self) -> tuple[dict[str, Any], list[Figure]]:
        """The copy rate with its verdict, the closest pairs, and the attack where the generator is there."""
        dataset, images, patients = self.subject.dataset, np.stack(self._images), np.array(self._patients)
        with Progress("looking for copies", 1.0, "s") as bar:
            found = measure_copies(
                dataset, images, patients, progress=lambda done, total: bar.update(done / max(1, total))
            )
        in_features = self._in_features(images, patients, found)
        attack = None
        if self.subject.generator is not None:
            attack = membership_attack(self.subject.generator, dataset)
        write_privacy(self.subject.samples, found.rate)
        results = {
            **_describe(found.rate),
            "verdict": certainty(found.rate, attack),
            "features": _describe(in_features),
            "attack": None if attack is None else _describe_attack(attack),
        }
        return results, [self._pairs_figure(images, found), self._distances_figure(found)]

    def _in_features(self, images: NDArray[np.float32], patients: NDArray[np.str_], found: CopyMeasurement) -> CopyRate:
        dataset = self.subject.dataset

        def features(rows: list[Row]) -> NDArray[np.float32]:
            parts = [dataset.load(rows[i : i + BLOCK]).images for i in range(0, len(rows), BLOCK)]
            return np.concatenate([self.encoder(part) for part in parts])

        train = features(found.train_rows)
        heldout = np.array([row.patient for row in found.heldout_rows])
        made, real = nearest_features(self.encoder(images), train), nearest_features(features(found.heldout_rows), train)
        return copy_rate(made.relative, real.relative, patients, heldout)

    def _pairs_figure(self, images: NDArray[np.float32], found: CopyMeasurement) -> Figure:
        lines = []
        for image, training in closest_pairs(found.generated, _PAIRS):
            row = found.train_rows[training]
            real = self.subject.dataset.load([row]).images[0].numpy()
            near = found.generated
            lines.append(
                [
                    (f"generated ({near.distance[image]:.3f} away)", figures.gray(images[image])),
                    (f"training: {row.id}", figures.gray(real)),
                ]
            )
        pairs = [line for start in range(0, len(lines), 5) for line in [sum(lines[start : start + 5], [])]]
        caption = (
            f"The {len(lines)} generated images that are nearest to a training image, each beside it; the distance is 1 - correlation "
            "of pixels under shifts of up to 2. Look: is it the same image?"
        )
        return Figure("closest", "The closest pairs", figures.grid(pairs), caption, "privacy")

    def _distances_figure(self, found: CopyMeasurement) -> Figure:
        values = {"generated": found.generated.relative, "real, unseen patients": found.heldout.relative}
        caption = (
            "Distance to the nearest training image, over the median distance to the 32 nearest. The dashed line is the threshold: "
            f"about {100 * found.rate.level:g} % of unseen patients' real images lie below it."
        )
        return Figure(
            "copies",
            "Nearer to the training images than real ones are?",
            figures.distributions(values, line=found.rate.threshold),
            caption,
            "privacy",
        )


def membership_attack(generator: Generator, dataset: PreparedDataset, most: int = _ATTACKED) -> MembershipAttack:
    """Can training images be told from unseen patients' by the denoiser's loss? On at most `most` of each."""
    unseen = [row for row in dataset.rows if row.split in ("heldout", "val", "test")]
    sides = []
    with Progress("membership attack", 2.0, "s") as bar:
        for number, rows in enumerate((dataset.split("train"), unseen)):
            chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]
            losses = []
            for start in range(0, len(chosen), 64):
                batch = dataset.load(chosen[start : start + 64])
                condition = Condition(batch.labels, batch.annotated).to(generator.device)
                with torch.no_grad():
                    losses.append(
                        denoising_losses(
                            generator.denoiser.under(condition),
                            generator.denoiser.path,
                            batch.images.to(generator.device),
                        )
                    )
                bar.update(number + (start + 64) / max(64, len(chosen)))
            sides.append((np.concatenate(losses), np.array([row.patient for row in chosen])))
    (members, of_members), (others, of_others) = sides
    return membership_inference(members, others, of_members, of_others)


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


def _describe_attack(attack: MembershipAttack) -> dict[str, Any]:
    return {
        "auc": attack.auc,
        "ci95": list(attack.ci95),
        "tpr_at_1": attack.tpr_at_1,
        "tpr_at_10": attack.tpr_at_10,
        "n_members": attack.n_members,
        "n_nonmembers": attack.n_nonmembers,
    }
