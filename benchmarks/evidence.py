"""The paper's two tables with intervals: STD, MAT and, as the lower bound, an unconditional model.

Example: python benchmarks/evidence.py --time 20m --work /path/for/intermediate/files

For each model `anatogen evaluate` generates images of all test maps (faithfulness, realism, privacy) and of all heldout
maps (utility), and evaluates them as it does for users. The unconditional model never sees a map, so its scores are
those of maps unrelated to the images. Existing runs of `paper_tables.py` under --work are used.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from anatogen import evaluate
from anatogen.evaluation.subject import EvaluationSettings
from anatogen.judges.segmenter import SegmenterSettings
from anatogen.progress import parse_duration
from anatogen.reporting.tables import signed, with_interval
from common import hippocampus, machine, parser_of, trained, write_section

MODELS = {
    "STD": ("std", ["conditioning.mask_ablation=false"]),
    "MAT": ("mat", []),
    "unconditional": ("unconditional", ["conditioning.encoding=none", "conditioning.mask_ablation=false"]),
}


def interval(entry: dict[str, Any], digits: int = 3) -> str:
    if entry["ci95"] is None:
        return f"{entry['mean']:.{digits}f} ({entry['no_interval']})"
    return f"{entry['mean']:.{digits}f} [{entry['ci95'][0]:.{digits}f}, {entry['ci95'][1]:.{digits}f}]"


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| | real images | " + " | ".join(found) + " |", "| --- |" + " --- |" * (len(found) + 1)]
    first = next(iter(found.values()))

    def line(title: str, real: str, cells: list[str]) -> None:
        lines.append(f"| {title} | {real} | " + " | ".join(cells) + " |")

    def faithful(title: str, measure: str, digits: int = 3) -> None:
        real = interval(first["faithfulness"][f"{measure}_real_map"], digits)
        line(title, real, [interval(f["faithfulness"][f"{measure}_gen_map"], digits) for f in found.values()])

    faithful("Dice(m_gen, m)", "dice")
    line("Dice(m_gen, m_real)", "", [interval(f["faithfulness"]["dice_gen_real"]) for f in found.values()])
    faithful("HD95, mm", "hd95", 2)
    faithful("surface Dice at one pixel", "nsd")
    faithful("class missed or invented, share of slices", "missed")
    faithful("volume error, absolute", "volume_error_abs")
    useful = {name: f["utility"] for name, f in found.items()}
    any_ = next(iter(useful.values()))
    line(
        "Dice on real test patients, segmenter trained on synthetic only",
        interval(any_["real"]),
        [interval(u["synthetic"]) for u in useful.values()],
    )
    line("... on both, 1 : 1", "", [interval(u["both"]) for u in useful.values()])
    line(
        "... difference of both to real only",
        "",
        [with_interval(u["both"]["difference_to_real"], u["both"]["difference_ci95"], signed) for u in useful.values()],
    )
    for row in realism_and_privacy(found):
        line(*row)
    return "\n".join(lines)


def realism_and_privacy(found: dict[str, dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Rows of the table: title, real images, and each model."""
    titles = {"fid": "FID", "kid": "KID", "mmd": "MMD", "precision": "precision", "recall": "recall"}
    real = next(iter(found.values()))["realism"]
    realism, privacy = ([f[section] for f in found.values()] for section in ("realism", "privacy"))
    attacks = [(p["attack"]["auc"], *p["attack"]["ci95"]) for p in privacy]
    return [
        *((title, f"{real[key + '_real']:.3g}", [f"{r[key]:.3g}" for r in realism]) for key, title in titles.items()),
        (
            "diversity (MS-SSIM of pairs; lower is more)",
            f"{real['diversity_real']:.3f}",
            [f"{r['diversity']:.3f}" for r in realism],
        ),
        ("noise, generated / real", f"{real['noise_ratio_real']:.2f}", [f"{r['noise_ratio']:.2f}" for r in realism]),
        (
            "copy rate (expected by chance), p",
            "",
            [f"{p['copy_rate']:.3f} ({p['expected']:.3f}), {p['p_value']:.2g}" for p in privacy],
        ),
        ("membership attack, AUC", "0.5", [f"{auc:.3f} [{low:.3f}, {high:.3f}]" for auc, low, high in attacks]),
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--time", default="20m", help="training time of each model, where it is not there yet")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each mixture")
    parser.add_argument("--count", type=int, help="images of each split [default: all]")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    dataset = hippocampus(options.work, options.raw)
    dataset.hold()
    settings = EvaluationSettings(utility=SegmenterSettings(steps=600), utility_seeds=options.seeds)
    found, seconds, steps = {}, {}, {}
    for title in options.models:
        name, values = MODELS[title]
        run = options.work / "runs" / f"hippocampus-{name}"
        generator = trained(dataset, run, values, {"max_time_s": parse_duration(options.time)})
        start = time.perf_counter()
        out = options.work / "evidence" / title
        found[title] = evaluate(
            run, dataset, out, count=options.count, settings=settings, quick=True, command="benchmarks/evidence.py"
        )
        seconds[title], steps[title] = time.perf_counter() - start, generator.about.steps
    n = next(iter(found.values()))["n"]
    write_section(
        "The evidence pack, hippocampus",
        f"""
`python benchmarks/evidence.py`: {n["images"]} test slices of {n["patients"]} patients, equally many real ones, 95 % intervals by patient; utility:
{options.seeds} trainings of 600 steps each on heldout maps. "Real images": the ceiling, or the same measure between real images of different
patients. Training steps: {", ".join(f"{k} {v}" for k, v in steps.items())}. The whole pack took
{", ".join(f"{k} {v / 60:.1f} min" for k, v in seconds.items())}. {machine()}.

{table(found)}

{" ".join(f"**{title}**: {f['privacy']['verdict']}" for title, f in found.items())}
""",
    )


if __name__ == "__main__":
    main()
