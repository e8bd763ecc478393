"""report.json: what the evaluation of a sample set measured, typed, with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, model_validator

from anatogen.generation.header import AboutModel
from anatogen.sampling import SamplingSettings
from anatogen.settings import Document

Measure = Literal["dice", "missed", "volume_error", "volume_error_abs", "hd95", "nsd"]
Pair = Literal["gen_map", "gen_real", "real_map"]


def _finite(value: Any) -> Any:
    """None in place of NaN and infinities: what could not be measured has no value."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    return value


Number = Annotated[float | None, BeforeValidator(_finite)]
Interval = tuple[Number, Number]


class Result(BaseModel):
    """A part of report.json: frozen; keys that it does not know are passed over.

    Keys that were not set are not written; one that was set and has no value is null. A result is true where anything
    was set.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    def __bool__(self) -> bool:
        return bool(self.model_fields_set)


class Score(Result):
    """A mean over classes and patients, its 95 % interval, and the class means.

    no_interval: why there is no interval, where there is none. per_patient: the scores of each, by class.
    """

    mean: Number = None
    per_class: dict[str, Number] = Field(default_factory=dict)
    ci95: Interval | None = None
    no_interval: str | None = None
    per_patient: dict[str, dict[str, Number]] | None = None


class Overlaps(Result):
    """Six measures of three pairs: (generated image, label map), (generated, real image), (real image, map).

    dice: overlap. hd95: 95 % Hausdorff distance, mm. nsd: normalised surface Dice. missed: share of images in which a
    class of the map is not found. volume_error: relative and signed; volume_error_abs: its size.
    """

    dice_gen_map: Score | None = None
    dice_gen_real: Score | None = None
    dice_real_map: Score | None = None
    missed_gen_map: Score | None = None
    missed_gen_real: Score | None = None
    missed_real_map: Score | None = None
    volume_error_gen_map: Score | None = None
    volume_error_gen_real: Score | None = None
    volume_error_real_map: Score | None = None
    volume_error_abs_gen_map: Score | None = None
    volume_error_abs_gen_real: Score | None = None
    volume_error_abs_real_map: Score | None = None
    hd95_gen_map: Score | None = None
    hd95_gen_real: Score | None = None
    hd95_real_map: Score | None = None
    nsd_gen_map: Score | None = None
    nsd_gen_real: Score | None = None
    nsd_real_map: Score | None = None

    def of(self, measure: Measure, pair: Pair) -> Score | None:
        """The score of a measure on a pair."""
        found: Score | None = getattr(self, f"{measure}_{pair}")
        return found

    def scores(self) -> Iterator[Score]:
        """Every score that was measured."""
        for name in Overlaps.model_fields:
            if (score := getattr(self, name)) is not None:
                yield score


class AbsentClass(Result):
    """A class where it is absent from the map: in how many images, of how many patients, in what share of the images it
    was found all the same, and how much of it (mm to the power of the axes, the mean over those images).
    """

    images: int | None = None
    patients: int | None = None
    invented: Number = None
    volume: Number = None


class Stray(Result):
    """What counts as noise of the segmenter: up to so many voxels, and up to that share of the image."""

    voxels: int | None = None
    share: Number = None


class NotDefined(Result):
    """How many images show no given class in their label map, and the ids of the first of them."""

    images: int = 0
    named: tuple[str, ...] = ()


class Absences(Result):
    """What was found where a given class is absent, in generated and in real images. unit: "mm2" or "mm3"."""

    unit: str | None = None
    stray: Stray = Stray()
    not_defined: NotDefined = NotDefined()
    gen_map: dict[str, AbsentClass] = Field(default_factory=dict)
    real_map: dict[str, AbsentClass] = Field(default_factory=dict)


class FaithfulnessResult(Overlaps):
    """On given classes; absent: where they are to be absent; free: the same measures on classes that were left free."""

    absent: Absences = Absences()
    free: Overlaps | None = None


class SimilarityRow(Result):
    """Images of one similarity (1 - lambda): Pearson correlation and RMS difference to the real image, and Dice."""

    similarity: Number = None
    n: int | None = None
    correlation: Number = None
    rms_difference: Number = None
    dice_given: Score = Score()
    dice_free_with_real: Score = Score()


class SimilarityResult(Result):
    """A row for each similarity that was asked for."""

    by_similarity: tuple[SimilarityRow, ...] = ()


class SelectionResult(Result):
    """What gates asked for, and how many images were made, kept and rejected for how many requests."""

    min_dice: Number = None
    reject_copies: Number = None
    retries: int | None = None
    made: int | None = None
    kept: int | None = None
    rejected: int | None = None
    requests: int | None = None
    requests_without_image: int | None = None


class TrainedCount(Result):
    """What a training rests on. real_images, seeds: one for each training."""

    test_patients: int | None = None
    real_images: tuple[int, ...] = ()
    real_patients: int | None = None
    synthetic_images: int | None = None
    seeds: tuple[int, ...] = ()
    steps: int | None = None


class Trained(Score):
    """Dice on real test patients of a segmenter trained on one mixture, and the difference to training on real images
    alone.
    """

    name: str | None = None
    difference_to_real: Number = None
    difference_ci95: Interval | None = None
    no_difference_interval: str | None = None
    mean_of_each_seed: tuple[Number, ...] = ()
    real_share: Number = None
    n: TrainedCount = TrainedCount()


class UtilitySplit(Result):
    """Whose patients segmenters were trained on, chosen by and tested on."""

    trained: str | None = None
    chosen: str | None = None
    tested: str | None = None


class NnunetUtilityResult(Result):
    """Trainings of nnU-Net on real, on synthetic and on both images."""

    real: Trained | None = None
    synthetic: Trained | None = None
    both: Trained | None = None
    epochs: int | None = None
    trainer: str | None = None
    configuration: str | None = None
    version: str | None = None
    split: UtilitySplit = UtilitySplit()

    def trainings(self) -> dict[str, Trained]:
        """Those that were measured, by name."""
        return _known(real=self.real, synthetic=self.synthetic, both=self.both)


class UtilityResult(Result):
    """Trainings on real, on synthetic and on both images. both: the first of `mixtures`. selection: of the images
    trained on.
    """

    real: Trained | None = None
    synthetic: Trained | None = None
    both: Trained | None = None
    mixtures: tuple[Trained, ...] = ()
    split: UtilitySplit = UtilitySplit()
    selection: SelectionResult | None = None
    nnunet: NnunetUtilityResult | None = None

    def trainings(self) -> dict[str, Trained]:
        """Those of real, synthetic and both that were measured, by name."""
        return _known(real=self.real, synthetic=self.synthetic, both=self.both)


def _known(**trainings: Trained | None) -> dict[str, Trained]:
    return {name: each for name, each in trainings.items() if each}


class RealismTest(Result):
    """Whether generated images can be told from real ones. p_of: of each measure; told_apart_by: the measures that do.

    decided: whether there are patients enough to say. same_maps: whether both sides follow the same label maps.
    """

    p_value: Number = None
    p_of: dict[str, Number] = Field(default_factory=dict)
    told_apart_by: tuple[str, ...] = ()
    decided: bool | None = None
    patients: int | None = None
    least_p: Number = None
    tolerated: dict[str, float] = Field(default_factory=dict)
    same_maps: bool | None = None


class RealismCount(Result):
    """Images on both sides, and patients of the generated ones."""

    generated: int | None = None
    real: int | None = None
    patients: int | None = None


class SlicesResult(Result):
    """Slices of volumes along one axis: the MMD of learned features, as in `RealismResult`.

    n: generated slices. excess: how much farther generated slices are than real ones, over every halving, with its 95 %
    interval over patients. no_interval: why there is none. encoder: that of slices along this axis.
    """

    n: int | None = None
    mmd: Number = None
    mmd_real: Number = None
    mmd_spread: Number = None
    mmd_real_spread: Number = None
    excess: Number = None
    ci95: Interval | None = None
    no_interval: str | None = None
    encoder: str | None = None


class RealismResult(Result):
    """Generated images of patients A beside real images of patients B; `_real`: real images of A beside the same.

    `_spread`: standard deviation over the halvings of the patients. power_ratio: of rings of spatial frequency, 1 is
    right. continuity: of volumes, the differences of neighbouring voxels along D, H, W over those of real ones. slices:
    of volumes, by axis ("D", "H", "W"). test: None where there are fewer than two patients.
    """

    n: RealismCount | int | None = None
    noise_ratio: Number = None
    noise_distance: Number = None
    noise_ratio_real: Number = None
    power_ratio: tuple[Number, ...] = ()
    continuity: tuple[Number, ...] = ()
    slices: dict[str, SlicesResult] = Field(default_factory=dict)
    fid: Number = None
    fid_real: Number = None
    fid_spread: Number = None
    fid_real_spread: Number = None
    kid: Number = None
    kid_real: Number = None
    kid_spread: Number = None
    kid_real_spread: Number = None
    mmd: Number = None
    mmd_real: Number = None
    mmd_spread: Number = None
    mmd_real_spread: Number = None
    precision: Number = None
    precision_real: Number = None
    precision_spread: Number = None
    precision_real_spread: Number = None
    recall: Number = None
    recall_real: Number = None
    recall_spread: Number = None
    recall_real_spread: Number = None
    frd: Number = None
    frd_real: Number = None
    variety: Number = None
    variety_real: Number = None
    diversity: Number = None
    diversity_real: Number = None
    test: RealismTest | None = None
    encoder: str | None = None
    yardstick: str | None = None
    caution: str | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _errors_of_old(cls, raw: Any) -> Any:
        """Before there were halvings, a distance stood beside its standard error."""
        if not isinstance(raw, dict):
            return raw
        errors = {f"{key.removesuffix('_error')}_spread": value for key, value in raw.items() if key.endswith("_error")}
        return {**errors, **raw}

    @property
    def tested(self) -> bool:
        """Whether it was asked at all if the images can be told apart; the first reports did not."""
        return "test" in self.model_fields_set

    def has(self, measure: str) -> bool:
        """Whether a measure was taken, even if it came to nothing."""
        return measure in self.model_fields_set

    def of(self, measure: str, suffix: str = "") -> float | None:
        """The value of a measure by name; suffix: "_real", "_spread" or "_real_spread". None where there is none."""
        found: float | None = getattr(self, measure + suffix, None)
        return found

    @property
    def patients(self) -> int | None:
        """How many patients the generated images follow."""
        if self.test is not None and self.test.patients is not None:
            return self.test.patients
        return self.n.patients if isinstance(self.n, RealismCount) else None


class CopyFinding(Result):
    """How many images lie nearer to a training image than unseen patients' do; see `metrics.copies.CopyRate`.

    detectable: None where no rate would have been told from chance. flagged: how many images.
    """

    copy_rate: Number = None
    ci95: Interval | None = None
    expected: Number = None
    p_value: Number = None
    threshold: Number = None
    flagged: int | None = None
    above_chance: bool | None = None
    detectable: Number = None
    n_generated: int | None = None
    n_heldout: int | None = None


class MembershipResult(Result):
    """How well the model's loss tells its training images; see `metrics.membership.MembershipAttack`."""

    auc: Number = None
    ci95: Interval | None = None
    tpr_at_1: Number = None
    tpr_at_10: Number = None
    n_members: int | None = None
    n_nonmembers: int | None = None
    uncalibrated_auc: Number = None
    difficulty_auc: Number = None


class PrivacyResult(CopyFinding):
    """By pixels; features: the same by learned features; attack: membership inference, None where it was not
    possible.
    """

    verdict: str | None = None
    features: CopyFinding | None = None
    attack: MembershipResult | None = None


class VariationResult(Result):
    """1 - Dice between seeds of one label map, by class, given and left free. maps: how many maps show the class."""

    given: dict[str, Number] = Field(default_factory=dict)
    free: dict[str, Number] = Field(default_factory=dict)
    maps: dict[str, int] = Field(default_factory=dict)
    seeds: int | None = None


class StepsResult(Result):
    """Dice(m_gen, m) at each number of solver steps, that of real images (ceiling), on n label maps."""

    steps: tuple[int, ...] = ()
    dice: tuple[Number, ...] = ()
    ceiling: Number = None
    n: int | None = None


class ReconstructionResult(Result):
    """Real images through a latent model's autoencoder alone: Dice with their label maps, and PSNR in dB."""

    dice: Score | None = None
    psnr: Number = None
    images: int | None = None


class FloorsResult(Result):
    """What a learned model has to beat, on `images` label maps: retrieval in Dice(m_gen, m), painting in FID.

    dice, fid: of the model on the same maps. difference: of the Dice, paired by patient. sentences: what it does not
    beat.
    """

    images: int | None = None
    dice: Score | None = None
    dice_retrieval: Score | None = None
    difference: Number = None
    difference_ci95: Interval | None = None
    fid: Number = None
    fid_painting: Number = None
    sentences: tuple[str, ...] = ()


class ImageCount(Result):
    """How many images were evaluated, and of how many patients their label maps are."""

    images: int | None = None
    patients: int | None = None


class MapsUsed(Result):
    """How many of the label maps of their splits the images follow."""

    used: int | None = None
    of: int | None = None


class SegmenterChoice(Result):
    """The auxiliary segmenter. independent_of_gate, independent_of_training: it is another one than that which chose
    the images, or the model while it trained. warped: the share of its training images in which a class was made
    larger or smaller, as edited label maps need it.
    """

    seed: int | None = None
    warped: Number = None
    independent_of_gate: bool | None = None
    independent_of_training: bool | None = None


class AboutDataset(Result):
    """The data set that was evaluated against: its source, its caution and how many cases it has.

    Other terms come along.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | None = None
    layout: str | None = None
    fingerprint: str | None = None
    notice: str | None = None
    cases: int | None = None

    @property
    def licence(self) -> str | None:
        """The licence that the source states."""
        return self._stated("licence", "license")

    @property
    def reference(self) -> str | None:
        """What to cite, where the source states it."""
        return self._stated("reference", "citation", "doi")

    def _stated(self, *names: str) -> str | None:
        terms = self.model_extra or {}
        return next((str(terms[name]) for name in names if terms.get(name)), None)


class Report(Document):
    """report.json. n, split, maps, selection: which images were evaluated. incomplete: of sample sets that lack images,
    what is missing. segmenter: by which auxiliary segmenter
    (key "judge"). similarity: of images that were made similar to real ones (key "likeness").

    seed, command, version, model_digest, sampling, model, dataset: what made them, and of what. real_patients: whether
    they are real patients' images, as those of nearest-map retrieval are. not_applicable: why a section could not be
    run, by its name. Reports without a format number are of the first format, which is today's.
    """

    FORMAT: ClassVar[int] = 1
    HINT: ClassVar[str] = "Evaluate again"

    n: ImageCount = ImageCount()
    split: tuple[str, ...] = ()
    maps: MapsUsed | None = None
    selection: SelectionResult | None = None
    incomplete: tuple[str, ...] = ()
    segmenter: SegmenterChoice | None = Field(None, alias="judge")
    seed: int | None = None
    command: str = ""
    version: str = ""
    model_digest: str | None = None
    sampling: SamplingSettings | None = None
    model: AboutModel | None = None
    dataset: AboutDataset | None = None
    real_patients: bool = False
    variation: VariationResult | None = None
    dice_against_steps: StepsResult | None = None
    floors: FloorsResult | None = None
    faithfulness: FaithfulnessResult | None = None
    reconstruction: ReconstructionResult | None = None
    similarity: SimilarityResult | None = Field(None, alias="likeness")
    realism: RealismResult | None = None
    privacy: PrivacyResult | None = None
    utility: UtilityResult | None = None
    not_applicable: dict[str, str] = Field(default_factory=dict)

    @field_serializer("sampling")
    def _whole_sampling(self, sampling: SamplingSettings | None) -> dict[str, Any] | None:
        return None if sampling is None else sampling.model_dump(mode="json")

    @field_serializer("model")
    def _known_of_model(self, model: AboutModel | None) -> dict[str, Any] | None:
        return None if model is None else model.content()

    def content(self) -> dict[str, Any]:
        """What report.json holds: the format number and all that was set."""
        return {"format": self.FORMAT, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}

    @property
    def from_elsewhere(self) -> bool:
        """Whether the label maps are of another data set than the model's, or edited: no real image has them."""
        return self.split == ("elsewhere",) or self.edited_maps

    @property
    def edited_maps(self) -> bool:
        """Whether the label maps are edited ones of the model's own data set."""
        return self.split == ("edited",)
