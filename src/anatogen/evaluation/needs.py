"""What sections can need of a subject. Each says why it is lacking, in plain words, or "" where it is there.

What a generator can do is asked for here and nowhere else in the evaluation.
"""

from __future__ import annotations

from anatogen.evaluation.selection import splits_of
from anatogen.evaluation.subject import Subject
from anatogen.model import HasDenoiser, HasReconstruction, HasSteps

_NO_RUN = "the run that made the images was not found: name it with --run"


def a_run(subject: Subject) -> str:
    """The generator that made the images."""
    return "" if subject.generator is not None else _NO_RUN


def free_classes(subject: Subject) -> str:
    """A generator that takes label maps with classes left free; a denoiser does, even one that was not trained with
    such.
    """
    if subject.generator is None:
        return _NO_RUN
    takes = subject.generator.spec.takes_free or isinstance(subject.generator, HasDenoiser)
    return "" if takes else "the generator takes no classes left free"


def trained_with_free_classes(subject: Subject) -> str:
    """A generator that was made for classes left free."""
    if subject.generator is None:
        return _NO_RUN
    return "" if subject.generator.spec.takes_free else "the model was trained without classes left free"


def seeds(subject: Subject) -> str:
    """A generator whose image of a label map varies with the seed."""
    if subject.generator is None:
        return _NO_RUN
    return (
        "" if subject.generator.spec.seeds_vary else "the generator gives one image of a label map, whatever the seed"
    )


def solver_steps(subject: Subject) -> str:
    """A generator with a solver whose number of steps can be chosen."""
    if subject.generator is None:
        return _NO_RUN
    return "" if isinstance(subject.generator, HasSteps) else "the generator has no solver steps"


def a_denoiser(subject: Subject) -> str:
    """A generator with a denoiser whose loss can be measured."""
    if subject.generator is None:
        return _NO_RUN
    able = isinstance(subject.generator, HasDenoiser)
    return "" if able else "the generator has no denoiser whose loss could be measured"


def an_autoencoder(subject: Subject) -> str:
    """A generator that works on the codes of an autoencoder."""
    if subject.generator is None:
        return _NO_RUN
    return "" if isinstance(subject.generator, HasReconstruction) else "the generator has no autoencoder"


def a_learned_model(subject: Subject) -> str:
    """A generator that has learned something from label maps, and a training split to compare it with."""
    if subject.generator is None:
        return _NO_RUN
    if subject.generator.describe().steps == 0:
        return "nothing was learned"
    if not subject.generator.spec.sees_labels:
        return "the generator sees no label maps"
    return "" if "train" in subject.dataset.split_names else "the data set has no training images"


def real_images(subject: Subject) -> str:
    """The real images of the same label maps."""
    if subject.rows is not None:
        return ""
    edited = splits_of(subject.entries, None) == ("edited",)
    return f"the label maps are {'edited' if edited else 'of another data set'}, so there are no real images of them"


def similar_images(subject: Subject) -> str:
    """Images that were all made similar to a real one."""
    similar = all(entry.similarity is not None for entry in subject.entries)
    return "" if similar else "the images were not made similar to real ones"


def heldout_images(subject: Subject) -> str:
    """Images of the held-out patients' label maps."""
    if subject.heldout_entries:
        return ""
    return (
        "it needs images of the held-out patients' label maps: give the run, or add the sample set of "
        "anatogen sample RUN --masks DATASET --split heldout"
    )
