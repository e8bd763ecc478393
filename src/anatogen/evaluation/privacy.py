"""Copies of training patients: how near generated images come to the training images, measured against real images of
patients whom the model never saw; and whether the model's loss gives away whom it was trained on.

Three questions, each beside what chance alone gives. Near: `nearest_neighbours` (pixels) and `nearest_features`. Too
near: `copy_rate`. Known to the model: `denoising_losses` and `membership_inference`. `certainty` says in words what
came out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from anatogen.diffusion.path import Path, add_noise
from anatogen.diffusion.target import loss_weight
from anatogen.errors import DataError
from anatogen.runtime import derive_seed

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Index = tuple[Any, ...]

SIGNIFICANCE = 0.01
"""A model is flagged where chance alone would do what it did less often than this."""

_TYPICAL = 32  # how many nearest training images say what distance is typical
_COARSE_PIXELS = 2048  # of the pictures that choose the candidates


@dataclass(frozen=True)
class Neighbours:
    """The nearest of M training images of each of N images.

    distance: (N,). index: (N,), its place among the training images. typical: (N,), the median distance to the 32
    nearest training images (or as many as were compared). shift: (N, spatial axes), by how many pixels the training
    image moved to lie on it.
    """

    distance: NDArray[np.float64]
    index: Ints
    typical: NDArray[np.float64]
    shift: Ints

    @classmethod
    def joined(cls, parts: Sequence[Neighbours]) -> Neighbours:
        """Those of all `parts`, one after the other; their images were compared with the same training images."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def relative(self) -> NDArray[np.float64]:
        """(N,), distance over typical distance: near 1 for an image like many training images, near 0 for a copy of one.

        What `copy_rate` should be given. An image that is merely smooth (few solver steps) or easy (much background) is
        nearer to every training image than a real one, and by distance alone would pass for a copy; it is not nearer to
        one than to the next (Carlini et al. 2023, "Extracting Training Data from Diffusion Models", divide by the mean
        distance to the 50 nearest on CIFAR-10 for the same reason). The median lets up to 15 slices of the copied
        patient be alike. With few training images, or with more near-duplicates of each, use `distance` as well.
        """
        return np.divide(self.distance, self.typical, out=np.zeros_like(self.distance), where=self.typical > 0)


def nearest_neighbours(
    queries: Floats,
    references: Floats,
    *,
    shifts: int = 2,
    candidates: int | None = 32,
    block: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """The nearest of the training images `references` (M, C, *spatial) of each image of `queries` (N, C, *spatial).

    The distance is 1 - r with r the correlation of the pixels where the two overlap, the smallest over all moves of up
    to `shifts` pixels along each axis: half the mean squared difference of the two, each brought to mean 0 (in each
    channel) and variance 1. 0 is a copy, 1 unrelated. So neither a change of brightness or contrast nor a small move
    hides a copy; Dar et al. 2024 ("Unconditional latent diffusion models memorize patient imaging data", arXiv
    2402.01054) use the correlation too, of learned embeddings. A flat image is at distance 1 from everything. Mirrored
    or rotated copies are found only where mirrored or rotated `references` are there too: append them if training was
    augmented in this way.

    A first pass over all references at low resolution chooses `candidates` of each query, and only these are compared
    pixel by pixel; None compares all. `block` images of each side are in memory at a time; both may be memory maps.
    progress: (done, of all), after each block. Raises DataError where shapes do not fit or there is nothing to compare
    with.
    """
    if queries.shape[1:] != references.shape[1:] or queries.ndim < 3:
        raise DataError(f"images of shape {queries.shape[1:]} cannot be compared with images of {references.shape[1:]}")
    if not len(queries) or not len(references):
        raise DataError("there is no image to compare, or none to compare it with")
    if min(queries.shape[2:]) <= 2 * shifts:
        raise DataError(f"images of {queries.shape[2:]} are too small for shifts of {shifts} pixels")
    compare = _compare_all if candidates is None or candidates >= len(references) else _compare_chosen
    found = []
    for part in _parts(len(queries), block):
        found.append(compare(queries[part], references, shifts, max(candidates or 0, 1), block))
        if progress:
            progress(part.stop, len(queries))
    return Neighbours.joined(found)


def _compare_all(queries: Floats, references: Floats, shifts: int, _: int, block: int) -> Neighbours:
    moves = _moves(shifts, queries.ndim - 2)
    best, index, move = _nearest(queries, references, moves, _TYPICAL, block)
    return Neighbours(best[:, 0], index[:, 0], np.median(best, axis=1), moves[move[:, 0]])


def _compare_chosen(queries: Floats, references: Floats, shifts: int, candidates: int, block: int) -> Neighbours:
    factor = _coarsening(queries.shape[2:])
    moves = _moves(math.ceil(shifts / factor), queries.ndim - 2)
    _, chosen, _ = _nearest(_coarse(queries, factor), references, moves, candidates, block, factor)
    found = []
    for query, row in zip(queries, chosen, strict=True):
        places = np.sort(row)
        near = _compare_all(query[None], references[places], shifts, candidates, block)
        found.append(replace(near, index=places[near.index]))
    return Neighbours.joined(found)


def nearest_features(queries: Floats, references: Floats, *, block: int = 2048) -> Neighbours:
    """The nearest of `references` (M, F) of each of `queries` (N, F): features of training images and of others.

    The distance is the root mean squared difference of the features, each divided by its standard deviation over the
    references; features that are the same for all references are left out. The shift is empty. Raises DataError as
    above.
    """
    if queries.ndim != 2 or queries.shape[1:] != references.shape[1:]:
        raise DataError(f"features of shape {queries.shape} cannot be compared with features of {references.shape}")
    if not len(queries) or len(references) < 2:
        raise DataError("there is no image to compare, or fewer than two to compare it with")
    mean, spread = references.mean(axis=0, dtype=np.float64), references.std(axis=0, dtype=np.float64)
    used = spread > 1e-6 * max(float(spread.max()), np.finfo(float).tiny)
    scale = spread[used] * math.sqrt(max(int(used.sum()), 1))

    def standardised(features: Floats) -> NDArray[np.float64]:
        return (features[:, used] - mean[used]) / scale

    found = []
    for some in _parts(len(queries), block):
        ours = standardised(queries[some])
        best, index = np.empty((len(ours), 0)), np.empty((len(ours), 0), np.int64)
        for part in _parts(len(references), block):
            theirs = standardised(references[part])
            squares = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1) - 2 * ours @ theirs.T
            places = np.arange(part.start, part.stop)[None]
            best, index = _keep(_TYPICAL, best, index, np.sqrt(np.maximum(squares, 0)), places)
        no_shift = np.empty((len(ours), 0), np.int64)
        found.append(Neighbours(best[:, 0], index[:, 0], np.median(best, axis=1), no_shift))
    return Neighbours.joined(found)


def closest_pairs(neighbours: Neighbours, count: int = 10) -> list[tuple[int, int]]:
    """(image, its nearest training image) of the `count` images with the smallest relative distance, nearest first."""
    order = np.argsort(neighbours.relative, kind="stable")[:count]
    return [(int(i), int(neighbours.index[i])) for i in order]


def _parts(total: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, total)) for start in range(0, total, block))


def _moves(shifts: int, axes: int) -> Ints:
    """(moves, axes), the shortest first, so that of equally good ones the shortest is taken."""
    moves = np.array(list(itertools.product(range(-shifts, shifts + 1), repeat=axes)), np.int64)
    return moves[np.argsort((moves**2).sum(axis=1), kind="stable")]


def _coarsening(size: tuple[int, ...]) -> int:
    """By how much pictures shrink along each axis to have no more than `_COARSE_PIXELS`, and no side below 4."""
    factor = 1
    while math.prod(n // factor for n in size) > _COARSE_PIXELS and min(size) // (factor + 1) >= 4:
        factor += 1
    return factor


def _coarse(images: Floats, factor: int) -> Floats:
    """Means over cubes of `factor` pixels; what is left over at the far borders is dropped."""
    if factor == 1:
        return images
    inside: Index = (..., *(slice(n // factor * factor) for n in images.shape[2:]))
    whole = images[inside]
    shape = [part for n in whole.shape[2:] for part in (n // factor, factor)]
    return whole.reshape(*whole.shape[:2], *shape).mean(axis=tuple(range(3, 3 + 2 * (images.ndim - 2), 2)))


def _standard(images: Floats) -> NDArray[np.float32]:
    """(N, all pixels): the mean of each channel removed, and length 1; 0 where an image is flat."""
    channels = images.reshape(*images.shape[:2], -1).astype(np.float32)
    size = np.abs(channels).max(axis=(1, 2), initial=0)
    channels -= channels.mean(axis=2, keepdims=True)
    flat = channels.reshape(len(channels), -1)
    length = np.sqrt(np.einsum("np,np->n", flat, flat))
    there = length > 1e-5 * size * math.sqrt(flat.shape[1])  # less is what rounding leaves of a flat image
    return flat * np.divide(1, length, out=np.zeros_like(length), where=there)[:, None]


def _nearest(
    queries: Floats, references: Floats, moves: Ints, keep: int, block: int, factor: int = 1
) -> tuple[NDArray[np.float64], Ints, Ints]:
    """Distance, index and place in `moves`, each (N, keep), of the references nearest to each query, nearest first.

    factor: the references (not the queries) are made coarser by it first.
    """
    best = np.empty((len(queries), 0))
    index = np.empty((len(queries), 0), np.int64)
    for part in _parts(len(references), block):
        theirs = _coarse(references[part], factor)
        likeness = np.full((len(queries), len(theirs)), -np.inf, np.float32)
        which = np.zeros(likeness.shape, np.int64)
        for number, move in enumerate(moves):
            of_query, of_reference = _overlap(move)
            r = _standard(queries[of_query]) @ _standard(theirs[of_reference]).T
            better = r > likeness
            likeness[better], which[better] = r[better], number
        code = (np.arange(part.start, part.stop) * len(moves))[None] + which
        best, index = _keep(keep, best, index, np.maximum(1 - likeness.astype(np.float64), 0), code)
    return best, index // len(moves), index % len(moves)


def _overlap(move: Ints) -> tuple[Index, Index]:
    """The parts of query and reference that lie on each other after the reference moved by `move`."""
    of_query = (..., *(slice(max(d, 0), min(d, 0) or None) for d in move))
    return of_query, (..., *(slice(max(-d, 0), min(-d, 0) or None) for d in move))


def _keep(
    count: int, best: NDArray[np.float64], index: Ints, distances: NDArray[np.float64], new_index: Ints
) -> tuple[NDArray[np.float64], Ints]:
    """The `count` smallest of `best` and the `distances` of a further block, sorted, with their indices."""
    distances = np.concatenate([best, distances], axis=1)
    index = np.concatenate([index, np.broadcast_to(new_index, (len(index), new_index.shape[1]))], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(index, order, axis=1)


@dataclass(frozen=True)
class CopyRate:
    """How many generated images are nearer to a training image than real images of unseen patients are.

    rate: the share of them, in [0, 1]. ci95: its interval, at this threshold. threshold: distances below it count as
    copies. level: the share of held-out images that lie no further. expected: the rate by chance, of a model that
    copies nothing. p_value: how often chance alone does as much (one-sided, the threshold's own uncertainty counted
    in). detectable: the smallest rate that would have been told from chance at p < 0.01; NaN where none would. flagged:
    bool (N,), the images that count as copies. grouped: whether p_value and intervals are by patient.
    """

    rate: float
    ci95: tuple[float, float]
    threshold: float
    level: float
    expected: float
    p_value: float
    detectable: float
    flagged: NDArray[np.bool_]
    n_generated: int
    n_heldout: int
    grouped: bool

    @property
    def above_chance(self) -> bool:
        """Whether the model is flagged: chance alone does as much less often than `SIGNIFICANCE`."""
        return self.p_value < SIGNIFICANCE


def copy_threshold(
    heldout: Floats, groups: NDArray[np.generic] | None = None, *, level: float = 0.01
) -> tuple[float, float]:
    """(threshold, expected): the distance below which a copy is suspected, and the share of images there by chance.

    heldout: (K,), distances of real images of unseen patients. The threshold is the k-th smallest, k = level (K + 1)
    rounded down and at least 1. A further image of the same kind lies below it with probability k / (K + 1), exactly
    and whatever the distribution (as in conformal prediction: Vovk et al. 2005); with few held-out images that is more
    than `level`, and says so. With `groups` (K,), the patients, whose images are alike, it is measured instead: each
    patient in turn against the threshold of the others. Raises DataError where there is nothing to calibrate on.
    """
    heldout = _finite(heldout, "held-out")
    _require_groups((heldout, groups))
    if not 0 < level < 1:
        raise DataError(f"a level of {level} is no share", remedy="Choose one between 0 and 1, for instance 0.01")
    threshold, expected = _threshold(heldout, level), _rank(len(heldout), level) / (len(heldout) + 1)
    if groups is not None and len(names := np.unique(groups)) > 1:
        below = [(heldout[groups == name] < _threshold(heldout[groups != name], level)).sum() for name in names]
        expected = max(expected, float(np.sum(below)) / len(heldout))
    return threshold, expected


def copy_rate(
    generated: Floats,
    heldout: Floats,
    generated_groups: NDArray[np.generic] | None = None,
    heldout_groups: NDArray[np.generic] | None = None,
    *,
    level: float = 0.01,
    draws: int = 1999,
    seed: int = 0,
) -> CopyRate:
    """The calibrated copy rate from distances to the nearest training image; `Neighbours.relative` is what to give.

    generated: (N,). heldout: (K,), real images of patients whom the model never saw (heldout, val and test together;
    several hundred make the level of 1 % meaningful), prepared in the same way. generated_groups, heldout_groups: the
    patient of each, that of the label map for a generated image. Images from training label maps may be among the
    generated ones, and nothing is excluded for them: their own real image is the very one to be suspicious of.

    Without groups the count below the threshold is beta-binomial, exactly, if no model copies (an order statistic as
    threshold: Wilks 1941), and the interval that of Clopper and Pearson 1934. With them, p is that of a permutation
    test that deals out the patients anew, generated and held-out, and the interval that of Korn and Graubard 1998
    (Clopper-Pearson with the effective sample size), which unlike a bootstrap has a width where nothing was flagged.
    What one patient's images have in common is then no evidence; with very few patients nothing is (`detectable` is
    NaN).
    """
    generated, heldout = _finite(generated, "generated"), _finite(heldout, "held-out")
    _require_groups((generated, generated_groups), (heldout, heldout_groups))
    threshold, expected = copy_threshold(heldout, heldout_groups, level=level)
    flagged = generated < threshold
    grouped = generated_groups is not None and heldout_groups is not None
    if generated_groups is not None and heldout_groups is not None:
        sides = (generated, heldout), (generated_groups, heldout_groups)
        p_value, detectable = _chance_by_patient(*sides, flagged, level, draws, seed)
    else:
        p_value, detectable = _chance_by_image(flagged, len(heldout), level)
    return CopyRate(
        rate=float(flagged.mean()),
        ci95=_proportion_interval(flagged, generated_groups),
        threshold=threshold,
        level=_rank(len(heldout), level) / len(heldout),
        expected=expected,
        p_value=p_value,
        detectable=detectable,
        flagged=flagged,
        n_generated=len(generated),
        n_heldout=len(heldout),
        grouped=grouped,
    )


def _rank(count: int, level: float) -> int:
    """Which of `count` sorted held-out distances is the threshold, from 1."""
    return min(max(1, math.floor(level * (count + 1) + 1e-9)), count)


def _threshold(heldout: NDArray[np.float64], level: float) -> float:
    k = _rank(len(heldout), level)
    return float(np.partition(heldout, k - 1)[k - 1])


def _finite(values: Floats, which: str) -> NDArray[np.float64]:
    exact = np.asarray(values, np.float64)
    if exact.ndim != 1 or not len(exact) or not np.isfinite(exact).all():
        raise DataError(f"the {which} values are not one finite number for each image", remedy="Check the images")
    return exact


def _require_groups(*pairs: tuple[NDArray[np.float64], NDArray[np.generic] | None]) -> None:
    for values, groups in pairs:
        if groups is not None and groups.shape != values.shape:
            raise DataError(
                f"{groups.size} patients are named for {len(values)} images", remedy="Name one for each image"
            )


def _chance_by_image(flagged: NDArray[np.bool_], n_heldout: int, level: float) -> tuple[float, float]:
    """(p, smallest rate that chance alone would not explain) where all images are independent."""
    k = _rank(n_heldout, level)
    by_chance = stats.betabinom(len(flagged), k, n_heldout + 1 - k)
    critical = (int(by_chance.isf(SIGNIFICANCE)) + 1) / len(flagged)
    return float(by_chance.sf(int(flagged.sum()) - 1)), critical if critical <= 1 else math.nan


def _chance_by_patient(
    distances: tuple[NDArray[np.float64], NDArray[np.float64]],
    groups: tuple[NDArray[np.generic], NDArray[np.generic]],
    flagged: NDArray[np.bool_],
    level: float,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """The same where a patient's images are not independent: patients are dealt anew into generated and held-out."""
    pooled = np.concatenate(distances)
    order = np.argsort(pooled, kind="stable")
    first, second = (np.unique(names, return_inverse=True)[1] for names in groups)
    n_generated = int(first.max()) + 1
    patient = np.concatenate([first, second + n_generated])[order]
    pooled, sizes = pooled[order], np.bincount(patient)
    rng, chance = np.random.default_rng(seed), np.empty(draws)
    place = np.empty(len(pooled), np.int64)  # of each image in a random order of its patient's
    place[np.lexsort((rng.random(len(pooled)), patient))] = np.concatenate([np.arange(size) for size in sizes])

    def excess(rate: float, heldout: int) -> float:
        return rate - _rank(heldout, level) / (heldout + 1)

    for draw in range(draws):
        role = rng.permutation(len(sizes))  # whose side each patient takes, and with as many images, if it has them
        used = (place + rng.integers(sizes)[patient]) % sizes[patient] < sizes[role][patient]
        is_generated = (role < n_generated)[patient]
        heldout = np.flatnonzero(used & ~is_generated)
        below = pooled.searchsorted(pooled[heldout[_rank(len(heldout), level) - 1]])  # strictly nearer ones only
        is_generated &= used
        chance[draw] = excess(is_generated[:below].sum() / is_generated.sum(), len(heldout))
    by_chance = -excess(0.0, len(distances[1]))
    p_value = float((1 + (chance >= flagged.mean() - by_chance - 1e-12).sum()) / (draws + 1))
    critical = float(np.quantile(chance, 1 - SIGNIFICANCE)) + by_chance + 1 / len(flagged)
    possible = math.comb(len(sizes), n_generated) > 1 / SIGNIFICANCE and critical <= 1
    return p_value, critical if possible else math.nan


def _proportion_interval(hits: NDArray[np.bool_], groups: NDArray[np.generic] | None) -> tuple[float, float]:
    """The 95 % interval of a share: Clopper and Pearson 1934; with groups Korn and Graubard 1998."""
    n, share = len(hits), float(hits.mean())
    effective = float(n)
    if groups is not None:
        _, which = np.unique(groups, return_inverse=True)
        sizes = np.bincount(which)
        if (count := len(sizes)) < 2:
            return 0.0, 1.0
        scatter = count / (count - 1) * ((np.bincount(which, hits) - share * sizes) ** 2).sum() / n**2
        effective = share * (1 - share) / scatter if scatter > 0 else count
        effective *= float(stats.t.ppf(0.975, max(n - 1, 1)) / stats.t.ppf(0.975, count - 1)) ** 2
        effective = min(max(effective, 1.0), float(n))
    x = share * effective
    low = float(stats.beta.ppf(0.025, x, effective - x + 1)) if share > 0 else 0.0
    high = float(stats.beta.ppf(0.975, x + 1, effective - x)) if share < 1 else 1.0
    return low, high


@dataclass(frozen=True)
class MembershipAttack:
    """How well a model's loss tells the images that it was trained on from others.

    auc: the probability that a training image has the lower loss of the two; 0.5 is chance, 1 a model that gives all
    away. ci95: by patient. tpr_at_1, tpr_at_10: the share of training images told where 1 % and 10 % of others are
    taken for one.
    """

    auc: float
    ci95: tuple[float, float]
    tpr_at_1: float
    tpr_at_10: float
    n_members: int
    n_nonmembers: int

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.ci95[0] > 0.5


def membership_inference(
    loss_members: Floats,
    loss_nonmembers: Floats,
    member_groups: NDArray[np.generic] | None = None,
    nonmember_groups: NDArray[np.generic] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> MembershipAttack:
    """The attack that takes an image for a training image where the denoiser's loss on it is low.

    loss_members (N,), loss_nonmembers (M,): of `denoising_losses`. Groups: the patient of each; both sides' patients
    are drawn again for the interval, images where there are none. The attack is Matsumoto et al. 2023 ("Membership
    Inference Attacks against Diffusion Models"; Duan et al. 2023, SecMI, refine it), the AUC that of Mann and Whitney
    1947. An average hides the few who are given away with certainty, therefore the two rates at few false alarms
    (Carlini et al. 2022, "Membership Inference Attacks From First Principles"). Where the two sides do not overlap at
    all, the interval is the exact one of as many wins as there are pairs of patients. One patient alone on a side gives
    no interval: (0, 1).
    """
    members, others = _finite(loss_members, "members'"), _finite(loss_nonmembers, "non-members'")
    _require_groups((members, member_groups), (others, nonmember_groups))
    _, who = np.unique(np.arange(len(members)) if member_groups is None else member_groups, return_inverse=True)
    _, whom = np.unique(np.arange(len(others)) if nonmember_groups is None else nonmember_groups, return_inverse=True)
    a, b = np.bincount(who), np.bincount(whom)
    wins = np.empty((len(a), len(b)))  # of each patient's images over each other patient's, ties by half
    for other in range(len(b)):
        theirs = np.sort(others[whom == other])
        lost = (theirs.searchsorted(members, "left") + theirs.searchsorted(members, "right")) / 2
        wins[:, other] = np.bincount(who, len(theirs) - lost)
    auc = float(wins.sum() / (len(members) * len(others)))
    pairs = min(len(a), len(b))
    if pairs < 2:
        interval = 0.0, 1.0
    elif auc in (0.0, 1.0):
        interval = _proportion_interval(np.full(pairs, auc > 0), None)
    else:
        rng = np.random.default_rng(seed)
        w, v = (rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64) for n in (len(a), len(b)))
        again = np.einsum("db,db->d", w @ wins, v) / ((w @ a) * (v @ b))
        low, high = np.quantile(again, [0.025, 0.975])
        interval = float(low), float(high)
    ordered = np.sort(others)
    told = [float((members < ordered[int(len(others) * share)]).mean()) for share in (0.01, 0.1)]
    return MembershipAttack(auc, interval, told[0], told[1], len(members), len(others))


@torch.inference_mode()
def denoising_losses(
    denoise: Callable[[Tensor, Tensor], Tensor],
    path: Path,
    images: Tensor,
    *,
    ratios: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    draws: int = 2,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The denoiser's loss on each of `images` (B, C, *spatial), float64 (B,), by which to tell training images.

    denoise: (x_t (B, C, *spatial), t (B,)) -> x0, under the images' own condition (`Denoiser.under`). The squared error
    of x0 is averaged over `draws` noises at each of the noise-to-image ratios sigma / alpha, with the weight of a
    v-prediction, so that each level counts about alike. `ratios`: with much less noise any model sees the image, with
    much more none does (on the flow path t = 0.2 to 0.67). The noises depend on `seed` alone: every image, member
    or not, in whatever batch, gets the same.
    """
    total = torch.zeros(len(images), dtype=torch.float64)
    for level, ratio in enumerate(ratios):
        t = path.time_of(torch.full((len(images),), ratio, device=images.device))
        weight = loss_weight("v", path, t, 0.0)
        for draw in range(draws):
            generator = torch.Generator().manual_seed(derive_seed("membership", seed, level, draw))
            eps = torch.randn(images.shape[1:], generator=generator).to(images.device).expand_as(images)
            error = (denoise(add_noise(path, images, eps, t), t).float() - images).square().flatten(1).mean(dim=1)
            total += (weight * error).double().cpu()
    return (total / (len(ratios) * draws)).numpy()


def certainty(copies: CopyRate, attack: MembershipAttack | None = None) -> str:
    """The verdict in plain sentences: flagged, not flagged or undecided, and with what certainty."""
    count, chance = int(copies.flagged.sum()), copies.expected * copies.n_generated
    finding = (
        f"{count} of {copies.n_generated} images {'lies' if count == 1 else 'lie'} nearer to a training image than "
        f"{100 * (1 - copies.level):.3g} % of {copies.n_heldout} real images of unseen patients do "
        f"({chance:.2g} expected by chance; {_p(copies.p_value)}{' by patient' if copies.grouped else ''}; "
        f"95 % interval {_percent(copies.ci95)})"
    )
    if copies.above_chance:
        text = f"Flagged for copying: {finding}."
    elif math.isnan(copies.detectable):
        text = f"Undecided: {finding}. There are too few images or patients to tell any rate of copies from chance."
    else:
        text = (
            f"No copying found: {finding}. "
            f"A rate of {100 * copies.detectable:.2g} % or more would have been told from chance."
        )
    if attack is None:
        return text
    low, high = attack.ci95
    finding = (
        f"training images from unseen ones by its loss with an AUC of {attack.auc:.2f} (95 % interval {low:.2f} to "
        f"{high:.2f}, 0.5 is chance; {100 * attack.tpr_at_1:.2g} % of them at 1 % false alarms)"
    )
    if attack.above_chance:
        return f"{text} The model tells {finding}: it has kept something of the patients it was trained on."
    return f"{text} The model does not reliably tell {finding}."


def _p(value: float) -> str:
    return "p < 1e-6" if value < 1e-6 else f"p = {value:.2g}"


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
