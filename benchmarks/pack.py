"""How long does the evaluation of 500 images take, and how does its memory grow with their number?

Example: python benchmarks/pack.py --time 20m --work /path/for/intermediate/files

Time: `anatogen evaluate` on 500 images from test maps and 500 from heldout maps, nothing cached, all sections; sampling
is extra. Memory: the peak of `anatogen evaluate --only faithfulness,realism,privacy --quick` in a separate process, on
sample sets that repeat the lines of the 500 images, so that only their number grows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from anatogen.data.store import PreparedDataset
from anatogen.generation.engine import Generator
from anatogen.generation.plan import requests_from_dataset
from anatogen.generation.sample_set import SampleSet, write_sample_set
from anatogen.labels import ClassStates
from anatogen.progress import parse_duration, stage
from common import hippocampus, machine, parser_of, trained, write_section

_FOUR = ["faithfulness", "utility", "realism", "privacy"]
_PEAK = """
import resource, sys
from anatogen.cli.app import app
try:
    app()
finally:
    print("peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


def evaluated(words: list[str]) -> tuple[float, int]:
    """Seconds and peak memory in MB of one `anatogen evaluate`."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, "evaluate", *words], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.perf_counter() - start, int(done.stderr.rsplit("peak MB", 1)[1])


def sample(generator: Generator, dataset: PreparedDataset, split: str, count: int, out: Path) -> float:
    """Generate `count` images of a split; returns the seconds."""
    rows = dataset.split(split)
    each = -(-count // len(rows))
    requests = requests_from_dataset(
        dataset, rows, ClassStates.all_given(dataset.schema), per_mask=each, count=count // each * each
    )
    start = time.perf_counter()
    with stage(f"sampling {split}", len(requests), "images") as bar:
        write_sample_set(
            generator,
            requests,
            out,
            progress=lambda done, total: bar.update(done),
        )
    return time.perf_counter() - start


def repeated(samples: Path, count: int, out: Path) -> Path:
    """A sample set of `count` lines that repeats those of `samples` under other names, with the same files."""
    of = SampleSet.open(samples)
    out.mkdir()
    for name in ("images", "labels"):
        (out / name).symlink_to((samples / name).resolve())
    shutil.copy(samples / "samples.json", out)
    lines = (of.entries[i % len(of.entries)] | {"id": f"{i}"} for i in range(count))
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return out


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--time", default="20m", help="training time, where the model is not there yet")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[1000, 10_000], help="of the sets whose memory is measured"
    )
    parser.add_argument("--raw", type=Path, help="nnU-Net raw folder of the hippocampus set")
    options = parser.parse_args()
    known = hippocampus(options.work, options.raw)
    run = options.work / "runs" / "hippocampus-mat"
    generator = trained(known, run, [], {"max_time_s": parse_duration(options.time)})
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        fresh, out = Path(folder) / "data", Path(folder)
        fresh.mkdir()
        for name in ("dataset.json", "images.b2nd", "labels.b2nd", "index.csv"):  # and none of the judges kept there
            shutil.copy(known.folder / name, fresh)
        dataset = PreparedDataset.open(fresh)
        test, heldout = out / "test", out / "heldout"
        seconds = sample(generator, dataset, "test", options.count, test)
        seconds += sample(generator, dataset, "heldout", options.count, heldout)
        whole, peak = evaluated([str(test), str(heldout), "--dataset", str(fresh), "--out", str(out / "report")])
        answered = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
        if missing := [name for name in _FOUR if name not in answered]:
            raise SystemExit(f"the report does not answer {missing}")
        lines = ["| images | seconds | peak memory |", "| --- | --- | --- |"]
        lines.append(f"| {answered['n']['images']}, all four questions, nothing cached | {whole:.0f} | {peak} MB |")
        for count in options.lengths:
            words = [str(repeated(test, count, out / f"of-{count}")), "--dataset", str(fresh), "--quick"]
            words += ["--only", "faithfulness,realism,privacy", "--out", str(out / f"report-{count}")]
            taken, peak = evaluated(words)
            lines.append(f"| {count}, without utility, segmenter and encoder cached | {taken:.0f} | {peak} MB |")
    write_section(
        "Time and memory of the evidence pack",
        f"""
`python benchmarks/pack.py`: hippocampus, 64 x 64, a default model of {generator.about.steps} steps. Sampling the 2 x {options.count} images took
{seconds:.0f} s. {machine()}.

"""
        + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
