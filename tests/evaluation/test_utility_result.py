"""What report.json gets of trainings on real, on synthetic and on both."""

from __future__ import annotations

from typing import Any

import numpy as np

from anatogen.evaluation.sections.utility import trained, trainings_of
from anatogen.judges.utility import MixtureUtility
from anatogen.metrics.intervals import NO_SPREAD
from anatogen.reporting.results import TrainedCount, UtilityResult

NAMES = ["grey", "bright"]
SCORES = np.random.default_rng(0).uniform(0.4, 0.9, (2, 5, 2))


def mixture(share: float, scores: np.ndarray, reference: MixtureUtility | None = None, **more: Any) -> MixtureUtility:
    about: dict[str, Any] = {
        "name": {1.0: "real", 0.0: "synthetic"}.get(share, f"{share:g} real"),
        "real_share": share,
        "seeds": (3, 5),
        "steps": 45,
        "real_images": (24, 24),
        "real_patients": 6,
        "synthetic_images": 0,
        "patients": np.arange(5),
    }
    return MixtureUtility.of(scores, reference, **about, **more)


REAL = mixture(1.0, SCORES)


def test_the_first_mixture_is_both() -> None:
    first, second = mixture(0.5, SCORES - 0.1, REAL), mixture(0.25, SCORES + 0.05, REAL)
    found = trainings_of([REAL, mixture(0.0, SCORES - 0.2, REAL), first, second], NAMES)
    assert found.keys() == {"real", "synthetic", "both"}
    assert found["both"] == trained(first, NAMES)  # not the best, which would be chosen on the test patients
    assert trainings_of([REAL], NAMES).keys() == {"real"}
    assert UtilityResult(**found).trainings().keys() == found.keys()


def test_a_training_says_what_it_rests_on() -> None:
    found = trained(REAL, NAMES)
    assert found.n == TrainedCount(
        test_patients=5, real_images=(24, 24), real_patients=6, synthetic_images=0, seeds=(3, 5), steps=45
    )
    assert found.mean is not None and np.isclose(np.mean(np.array(found.mean_of_each_seed)), found.mean)
    assert np.isclose(found.mean, SCORES.mean()) and found.per_class.keys() == {"grey", "bright"}
    assert found.no_difference_interval == NO_SPREAD and found.difference_ci95 is None  # it is the reference itself
    assert found.ci95 is not None and "no_interval" not in found.model_fields_set
