"""What do two trainings at once on one machine cost each other? Images/s of each, against one that runs alone.

Example: python benchmarks/side_by_side.py --seconds 60 --turns 3 --work /path/for/intermediate/files

A training is `anatogen train` in a process of its own, on the CPU, as a user starts it. Each of two should take about
twice the time. It takes several times more where threads spin while they wait: both trainings have a thread for each
core, and one that spins for another, which has no core, keeps a third from it. Measured once as it is, without any
variable of OpenMP or MKL in the environment, so that threads and waiting are what anatogen and PyTorch choose, and in
the environments that a user may set instead. One and two take turns, and medians count. Images/s are those of
metrics.jsonl while all trainings of a turn are past their first line. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common import hippocampus, machine, parser_of, write_section

ENVIRONMENTS = {
    "as it is": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
OF_THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_")
PATIENCE = 300.0  # seconds until the first line
BATCH = 16


class Training:
    """`anatogen train` in a process of its own, without an end."""

    def __init__(self, data: Path, run: Path, values: Sequence[str], environment: dict[str, str]) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(OF_THREADS)} | environment
        command = [
            sys.executable,
            "-m",
            "anatogen",
            "train",
            data,
            "--out",
            run,
            "--steps",
            "1000000",
            "--device",
            "cpu",
        ]
        for value in ("live.previews=false", f"training.batch_size={BATCH}", *values):
            command += ["--set", value]
        self.run, self.log = run, run.with_suffix(".log")
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as said:
            self.process = subprocess.Popen([str(c) for c in command], env=own, stdout=said, stderr=said)

    def lines(self) -> list[dict[str, float]]:
        """The complete lines of metrics.jsonl."""
        file = self.run / "metrics.jsonl"
        whole = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in whole]

    def wait_for_lines(self, count: int) -> None:
        """Wait until so many lines are there. Raises RuntimeError where the training ends before."""
        start = time.monotonic()
        while len(self.lines()) < count:
            if self.process.poll() is not None or time.monotonic() - start > PATIENCE:
                raise RuntimeError(f"the training does not train: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def speeds(trainings: Sequence[Training], seconds: float) -> list[float]:
    """Images/s of each while all of them run, for `seconds` at least; then they are stopped."""
    try:
        for training in trainings:
            training.wait_for_lines(1)
        first = [len(training.lines()) for training in trainings]  # lines come every few seconds
        time.sleep(seconds)
        for training, lines in zip(trainings, first, strict=True):
            training.wait_for_lines(lines + 1)
        found = []
        for training, lines in zip(trainings, first, strict=True):
            begin, *_, end = training.lines()[lines - 1 :]
            found.append(BATCH * (end["step"] - begin["step"]) / (end["seconds"] - begin["seconds"]))
        return found
    finally:
        for training in trainings:
            training.stop()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=ENVIRONMENTS, nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--values", nargs="*", default=["network.width=32"], help="settings: key=value")
    options = parser.parse_args()
    data, folder = hippocampus(options.work, None).folder, options.work / "side-by-side"
    found: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in options.only}
    for _ in range(options.turns):
        for name, each in found.items():
            for count in each:
                trainings = [Training(data, folder / str(i), options.values, ENVIRONMENTS[name]) for i in range(count)]
                each[count] += (now := speeds(trainings, options.seconds))
                print(f"{name}: {', '.join(f'{speed:.1f}' for speed in now)} images/s", flush=True)
    only = "" if len(found) == len(ENVIRONMENTS) else f" --only {' '.join(options.only)}"
    lines = []
    for name, each in found.items():
        alone, beside = (statistics.median(each[count]) for count in (1, 2))
        lines.append(f"| {name} | {alone:.1f} | {beside:.1f} | {alone / beside:.2f} |")
    write_section(
        "Two trainings side by side",
        f"""
`python benchmarks/side_by_side.py --seconds {options.seconds:g} --turns {options.turns} --values {" ".join(options.values)}{only}`: hippocampus, batches of {BATCH}. {machine()}.

| environment | one alone, images/s | each of two, images/s | time of each against one alone |
| --- | ---: | ---: | ---: |
{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
