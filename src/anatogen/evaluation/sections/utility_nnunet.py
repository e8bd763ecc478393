"""Are the images useful for training nnU-Net? The comparison of `utility`, with nnU-Net v2 as the segmenter that is
trained.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np

from anatogen.data.placement import Placement, item_spacing
from anatogen.data.store import PreparedDataset, Row
from anatogen.device import pick_device
from anatogen.errors import DataError, Interrupted, SettingsError
from anatogen.evaluation.needs import heldout_images
from anatogen.evaluation.sections.base import Finding, Need, Question, Section
from anatogen.evaluation.sections.utility import at_most, real_parts, synthetic_parts, trainings_of
from anatogen.files import safe_name, writing
from anatogen.generation.manifest import Line
from anatogen.generation.sample_set import SampleSet, require_true_maps
from anatogen.io.nnunet_raw import RawCase, raw_case, read_label_map, reader_of, write_raw
from anatogen.judges.fitting import blocks_of, each_of
from anatogen.judges.nnunet import (
    CONFIGURATIONS,
    STEPS_AN_EPOCH,
    nnunet_version,
    require_halvings,
    require_nnunet,
    train_with_nnunet,
    trainer_of,
)
from anatogen.judges.utility import MixtureUtility, Parts, dice_of_patients
from anatogen.progress import Stage, stage
from anatogen.reporting.results import NnunetUtilityResult, Report, UtilitySplit

MIXTURES = {"real": ("real",), "synthetic": ("synthetic",), "both": ("real", "synthetic")}
_COMMANDS = 3  # of one training


@dataclass(frozen=True)
class _Cases:
    """Images with the names of their files and their places in the scans."""

    ids: list[str]
    parts: Parts
    places: list[Placement]

    def digest(self) -> str:
        """Tells these cases from any others."""
        places = [[p.affine.tolist(), p.axis, p.position, [asdict(m) for m in p.intensity]] for p in self.places]
        found = hashlib.sha256(json.dumps([self.ids, places]).encode())
        for items in (self.parts.images, self.parts.labels):
            for block in blocks_of(items):
                found.update(block.numpy().tobytes())
        return found.hexdigest()


class NnunetUtility(Section[NnunetUtilityResult]):
    """Trainings of nnU-Net; they become a part of the result of `Utility`, after which it is run.

    work: where nnU-Net's trainings lie, and are found again by the same command.
    """

    name: ClassVar[str] = "utility_nnunet"
    question: ClassVar[Question] = "utility"
    needs: ClassVar[tuple[Need, ...]] = (heldout_images,)
    takes_days: ClassVar[bool] = True

    def finish(self) -> Finding[NnunetUtilityResult]:
        """The trainings, and their Dice."""
        subject, epochs, samples = self.subject, self.subject.settings.nnunet_epochs, self.subject.sets.heldout
        if epochs is None or samples is None or subject.work is None:
            raise ValueError("this section needs a number of epochs, held-out patients' images and a folder to work in")
        return Finding(
            utility_by_nnunet(
                subject.dataset,
                samples,
                subject.heldout_entries,
                subject.work / "nnunet",
                epochs,
                device=subject.device,
            )
        )

    @classmethod
    def place(cls, report: Report, result: NnunetUtilityResult) -> Report:
        """`report` with the trainings beside those of the auxiliary segmenter."""
        if report.utility is None:
            return report
        return report.model_copy(update={"utility": report.utility.model_copy(update={"nnunet": result})})


def require_for_nnunet(dataset: PreparedDataset, epochs: int) -> None:
    """Raises SettingsError where nnU-Net is not installed, has no trainer of so many `epochs` or gives a class's name a
    meaning of its own, or where `dataset` has no split test.

    Raises DataError where the images are too small for nnU-Net, or a held-out one lacks a class's annotation: in an
    nnU-Net data set it would count as background. Leaving such images out would compare other patients than the
    built-in segmenter's.
    """
    trainer_of(epochs)
    require_nnunet()
    dataset.split("test")
    if taken := sorted({"background", "ignore"} & set(dataset.schema.names)):
        raise SettingsError(
            f"nnU-Net has a meaning of its own for a class called {taken[0]}",
            path=dataset.folder,
            hint="Prepare the data again, renamed with --merge NEW=OLD",
        )
    heldout = dataset.split("heldout")
    spacings = [item_spacing(dataset, row) for row in {row.case: row for row in heldout}.values()]
    require_halvings(dataset.size, [median(along) for along in zip(*spacings, strict=True)], path=dataset.folder)
    for row in heldout:
        missing = [name for name in dataset.schema.names if name not in row.annotated]
        if missing:
            raise DataError(
                f"{', '.join(missing)} is not annotated in case {row.case}, and nnU-Net takes no partly annotated "
                "cases",
                path=dataset.folder,
                hint="Evaluate without --nnunet, or prepare fully annotated cases",
            )


def utility_by_nnunet(
    dataset: PreparedDataset,
    samples: SampleSet,
    entries: list[Line],
    work: Path,
    epochs: int,
    *,
    device: str = "auto",
    trainer: str | None = None,
) -> NnunetUtilityResult:
    """Train nnU-Net on the images of `entries` (made from heldout maps), on the real heldout ones and on both; test on
    test patients.

    Its configuration is 2d for slices and 3d_fullres for volumes. Real and synthetic images are written by the same
    code, each in the place and the units of its scan. Each mixture is planned by nnU-Net from its own images, and
    trained once, without a seed: intervals are over patients only. work: here lie real, synthetic and both, each with
    nnU-Net's model, log and predictions, beside a record of what they were made from; what is finished is taken as it
    is, what is not is begun again. trainer: by default the one of `epochs`.
    Of more than 20,000 images, so many are drawn. Raises what `require_for_nnunet`, `require_true_maps` and
    `train_with_nnunet` do, SettingsError where `work` holds a folder that is not its own, and Interrupted on Ctrl-C.
    """
    require_for_nnunet(dataset, epochs)
    require_true_maps(samples)
    trainer, configuration = trainer or trainer_of(epochs), CONFIGURATIONS[len(dataset.size)]
    entries = at_most(entries)
    names = dataset.schema.names
    sets = {
        "real": _real(dataset, "heldout"),
        "synthetic": _Cases(
            [entry.id for entry in entries],
            synthetic_parts(samples, entries, names, dataset),
            _places(dataset, entries),
        ),
    }
    test = _real(dataset, "test")
    about = [dataset.info.channels, list(names), trainer, nnunet_version(), test.digest()]
    digests = {name: cases.digest() for name, cases in sets.items()}
    wanted = {name: _digest(about, [digests[part] for part in parts]) for name, parts in MIXTURES.items()}
    missing = [name for name in MIXTURES if not _finished(work, name, wanted[name], test.ids)]
    try:
        if missing:
            _write(work / "data", sets, test, dataset)
        with stage("nnU-Net", _COMMANDS * len(missing), "commands", every=0) as bar:
            for name in missing:
                how = {"configuration": configuration, "trainer": trainer, "device": str(pick_device(device))}
                _train(work, name, wanted[name], how, bar)
    except KeyboardInterrupt as error:
        ended = ", ".join(name for name in MIXTURES if _finished(work, name, wanted[name], test.ids)) or "none"
        raise Interrupted(
            f"nnU-Net was stopped; finished of {', '.join(MIXTURES)}: {ended}",
            path=work,
            hint="Run the same command again to do the rest",
        ) from error
    finally:
        shutil.rmtree(work / "data", ignore_errors=True)
    results = _results(work, sets, test, dataset.schema.count, epochs)
    return NnunetUtilityResult(
        **trainings_of(results, names),
        epochs=epochs,
        trainer=trainer,
        configuration=configuration,
        version=nnunet_version(),
        split=UtilitySplit(trained="heldout", tested="test"),
    )


def _real(dataset: PreparedDataset, split: str) -> _Cases:
    rows = dataset.split(split)
    ids: dict[str, str] = {}
    for row in rows:
        name = safe_name(row.id, ids)
        ids[name.lower()] = name
    return _Cases(list(ids.values()), real_parts(dataset, split), [_place(dataset, row) for row in rows])


def _places(dataset: PreparedDataset, entries: list[Line]) -> list[Placement]:
    """Of images made from label maps of `dataset`. Raises DataError where one is not."""
    rows = {(row.case, row.slice): row for row in dataset.rows}
    found = [rows.get((entry.case or "", -1 if entry.slice is None else entry.slice)) for entry in entries]
    for entry, row in zip(entries, found, strict=True):
        if row is None:
            raise DataError(f"image {entry.id} was made from no label map of this data set", path=dataset.folder)
    return [_place(dataset, row) for row in found if row is not None]


def _place(dataset: PreparedDataset, row: Row) -> Placement:
    """The place of `row`. A slice thinner than its pixels is made twice as thick as they are long: nnU-Net cuts slices
    across the axis of the largest spacing, and would take lines of pixels for slices.
    """
    place = Placement.of(dataset, row)
    if place.cut.sliced is None:
        return place
    affine, along = place.affine.copy(), place.affine[:3, place.cut.sliced]
    thickness, pixel = float(np.linalg.norm(along)), max(place.spacing_mm)
    if thickness >= pixel:
        return place
    affine[:3, place.cut.sliced] = along * (2 * pixel / thickness)
    return replace(place, affine=affine)


def _results(work: Path, sets: dict[str, _Cases], test: _Cases, class_count: int, epochs: int) -> list[MixtureUtility]:
    results: list[MixtureUtility] = []
    for name, parts in MIXTURES.items():
        predicted = work / name / "predictions"
        dims = len(test.parts.labels.shape) - 1
        found = (read_label_map(predicted / f"{case}.nii.gz", dims) for case in test.ids)
        scores = dice_of_patients(found, test.parts, class_count)
        real, synthetic = (sets[part].parts if part in parts else None for part in ("real", "synthetic"))
        counts = (len(real) if real else 0, len(synthetic) if synthetic else 0)
        results.append(
            MixtureUtility.of(
                scores[None],
                results[0] if results else None,
                name=name,
                real_share=counts[0] / sum(counts),
                seeds=(0,),
                steps=epochs * STEPS_AN_EPOCH,
                real_images=(counts[0],),
                real_patients=len(np.unique(real.groups)) if real else 0,
                synthetic_images=counts[1],
                patients=np.unique(test.parts.groups),
            )
        )
    return results


def _write(data: Path, sets: dict[str, _Cases], test: _Cases, dataset: PreparedDataset) -> None:
    """The raw data sets `data`/real and `data`/synthetic, and the images to segment, `data`/test/imagesTs."""
    shutil.rmtree(data, ignore_errors=True)  # of a call that was killed
    everything = {**sets, "test": test}
    reader: dict[str, str] = {}  # one for all
    for place in (place for cases in everything.values() for place in cases.places):
        reader |= reader_of(place.affine)
    with (
        writing(data) as partial,
        stage("writing for nnU-Net", sum(len(cases.ids) for cases in everything.values()), "images") as bar,
    ):
        for name, cases in everything.items():
            written = _raw_cases(cases, bar, dataset.schema.count, labelled=name != "test")
            ignore = ("ignore",) if dataset.info.ignored is not None else ()
            write_raw(partial / name, written, dataset.info.channels, (*dataset.schema.names, *ignore), **reader)


def _raw_cases(cases: _Cases, bar: Stage, ignored: int, *, labelled: bool) -> Iterator[RawCase]:
    """The cases as nnU-Net reads them. ignored: the label that it is told to ignore, for voxels whose class is
    unknown.
    """
    parts = zip(cases.ids, cases.places, each_of(cases.parts.images), each_of(cases.parts.labels), strict=True)
    for case, place, image, labels in parts:
        drawn = np.where(labels.numpy() < 0, ignored, labels.numpy())
        yield raw_case(case, place.image(image.numpy()), place.labels(drawn), place.cut.sliced, labelled)
        bar.advance()


def _train(work: Path, name: str, digest: str, how: dict[str, str], bar: Stage) -> None:
    """Train the mixture `name` and segment the test images, to `work`/name; `work`/name.json says when it is whole.

    how: nnU-Net's configuration, trainer and device.
    """
    folder, record = work / name, work / f"{name}.json"
    if folder.exists():
        if not record.exists():
            raise SettingsError("already exists and is not of this command", path=folder, hint="Choose another --out")
        shutil.rmtree(folder)
    _note(record, digest, done=False)
    before = bar.done
    commands: list[str] = []

    def begun(command: str) -> None:
        bar.update(before + len(commands), f"{name}: {command}")
        commands.append(command)

    train_with_nnunet(
        [work / "data" / part for part in MIXTURES[name]],
        work / "data" / "test" / "imagesTs",
        folder,
        processes=max(2, min(8, os.cpu_count() or 2)),
        progress=begun,
        **how,
    )
    for part in ("raw", "preprocessed"):  # copies, which can be made again
        shutil.rmtree(folder / part, ignore_errors=True)
    _note(record, digest, done=True)
    bar.update(before + _COMMANDS, f"{name} is done")


def _note(record: Path, digest: str, *, done: bool) -> None:
    with writing(record) as path:
        path.write_text(json.dumps({"digest": digest, "done": done}), encoding="utf-8")


def _finished(work: Path, name: str, digest: str, test_ids: Sequence[str]) -> bool:
    try:
        if json.loads((work / f"{name}.json").read_text(encoding="utf-8")) != {"digest": digest, "done": True}:
            return False
    except (OSError, ValueError):
        return False
    return all((work / name / "predictions" / f"{case}.nii.gz").is_file() for case in test_ids)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
