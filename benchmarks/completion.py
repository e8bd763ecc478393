"""How good are completed label maps, and how well are the frequencies of what a model fills in calibrated?

A model of 20 hippocampus patients completes one class from the other, on label maps of patients whom neither it nor the
segmenter saw: Dice of each completed map, of the best of a map's samples and of the majority, beside the segmenter on
the real image of the same map, which shows the truth; energy distance; calibration of frequencies as sampled, and after
isotonic regression on validation patients.

Example: python benchmarks/completion.py --maps 40 --samples 8 --work /path/for/intermediate/files
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from anatogen.progress import show_bars
from anatogen.reporting.completion import CalibrationFound, Completion, Share
from anatogen.reporting.results import Score
from anatogen.workflows.complete import CompleteRequest, complete
from anatogen.workflows.sample import MapChoice, SolverChoice
from common import hippocampus, machine, parser_of, trained, with_few_patients, write_section

PATIENTS = 20


def shown(value: float | None, ends: tuple[float | None, float | None] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends and None not in ends else "")


def table(found: dict[str, Completion]) -> str:
    """A column for each class that was completed."""
    lines = ["| completed class | " + " | ".join(found) + " |", "| --- |" + " --- |" * len(found)]

    def line(title: str, cells: list[Score | Share | None]) -> None:
        texts = []
        for cell in cells:
            value = cell.mean if isinstance(cell, Score) else cell.value if cell is not None else None
            texts.append(shown(value, cell.ci95 if cell is not None else None))
        lines.append(f"| {title} | " + " | ".join(texts) + " |")

    measured = [each.measured for each in found.values()]
    for title, name in (
        ("Dice with the annotation, mean of the samples", "dice_mean"),
        ("... best of a map's samples", "dice_best"),
        ("... majority of the samples", "dice_majority"),
        ("... segmenter on the real image (sees the truth)", "dice_real"),
        ("energy distance, 1 - IoU", "energy_distance"),
        ("annotated size within the samples' range", "coverage"),
    ):
        line(title, [getattr(each, name) for each in measured])
    for part, of_what in (("sampled", "as sampled"), ("calibrated", "calibrated")):
        parts: list[CalibrationFound | None] = [
            getattr(each.calibration[name], part) if name in each.calibration else None for name, each in found.items()
        ]
        for title, name in (
            ("calibration error where samples differ", "error_uncertain"),
            ("Brier score where samples differ", "brier_uncertain"),
            ("calibration error, all pixels", "error"),
        ):
            line(f"{title}, {of_what}", [getattr(each, name) if each is not None else None for each in parts])
    return "\n".join(lines)


def reliability(name: str, found: Completion) -> str:
    part = found.calibration[name].sampled
    rows = part.reliability if part is not None else ()
    return ", ".join(f"{row.predicted:.2f}: {shown(row.observed.value, None)}" for row in rows)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--maps", type=int, default=40, help="label maps, one a patient where there are as many")
    parser.add_argument("--samples", type=int, default=8, help="of each label map")
    parser.add_argument("--calibrate", type=int, default=30, help="validation label maps")
    parser.add_argument("--steps", type=int, default=8, help="solver steps")
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    show_bars()
    few = with_few_patients(
        hippocampus(options.work, options.raw), options.work / f"hippocampus-{PATIENTS}-patients", PATIENTS
    )
    run = options.work / "runs" / f"few-hippocampus-{PATIENTS}-32"  # also of few_patients.py
    model = trained(few, run, ["network.width=32", "training.schedule=constant"], {"steps": 3000})
    found, start = {}, time.perf_counter()
    for name in few.schema.names:
        out = options.work / "completion" / name
        shutil.rmtree(out, ignore_errors=True)
        maps = MapChoice(
            few.folder, "spare", free=(name,), per_mask=options.samples, count=options.maps * options.samples
        )
        request = CompleteRequest(
            run, out, maps, calibrate=options.calibrate, solver=SolverChoice(steps=options.steps), command="benchmark"
        )
        found[name] = complete(request).completion
    took = time.perf_counter() - start
    first = next(iter(found.values()))
    assert first.measured is not None
    write_section(
        "Completed label maps, hippocampus",
        f"""
`python benchmarks/completion.py --maps {options.maps} --samples {options.samples} --calibrate {options.calibrate}
--steps {options.steps}`: a model of {PATIENTS} patients ({model.about.steps} steps) completes one class from the other
on {first.label_maps} slices of {first.patients} patients whom neither it nor the segmenter saw; 95 % intervals by
patient. Frequencies are calibrated on {options.calibrate} slices of validation patients. {took / 60:.1f} min.
{machine()}.

{table(found)}

A range of {options.samples} samples would hold the annotated size of {first.measured.nominal_coverage:.2f} of the
slices if samples varied as patients do. Share of pixels that show the class, by its frequency as sampled:
{"; ".join(f"{name} {reliability(name, each)}" for name, each in found.items())}.
""",
    )


if __name__ == "__main__":
    main()
