"""A training that is killed at 50 moments: does every resume end with the weights of the uninterrupted run?

Example: python benchmarks/kill_anywhere.py --work /path/for/intermediate/files

Each training of real slices runs in a process of its own and gets SIGKILL: 30 times after a random time, wherever it is
then, and 20 times before one of the file operations of a save. After each kill every checkpoint on disk is read; then
the training is resumed in this process, and its weights are compared with those of the uninterrupted run, bit for bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from anatogen.data.store import PreparedDataset
from anatogen.training import fit as fit_module
from anatogen.training.checkpoints import Checkpoints, checkpoint_files
from anatogen.training.config import build_settings
from anatogen.training.train import train
from common import hippocampus, machine, parser_of, write_section

VALUES = ("network.width=8", "network.blocks=1", "training.batch_size=8", "training.steps=30", "training.warmup_steps=3", "training.checkpoint_every=4",
          "augment.rotation_degrees=5")  # fmt: skip
SETTINGS = build_settings(values=VALUES)
OPERATIONS = 20  # kills before a file operation; the rest come at a random time


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, folder = hippocampus(options.work, None), options.work / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    train(dataset, folder / "whole", SETTINGS, device="cpu")
    start = time.monotonic()  # of the second: the first loads libraries
    train(dataset, folder / "again", SETTINGS, device="cpu")
    seconds, whole = time.monotonic() - start, weights(folder / "whole")
    assert weights(folder / "again") == whole
    where, equal, readable, resumed_after = Counter[str](), 0, 0, []
    for number in range(options.kills):
        out = folder / str(number)
        where[killed(dataset, out, number, seconds)] += 1
        files = checkpoint_files(out / "checkpoints")
        readable += all(intact(file) for file in files)
        resumed_after.append(int(files[-1].stem) if files else 0)
        train(dataset, out, SETTINGS, device="cpu", resume=True)
        equal += weights(out) == whole
        shutil.rmtree(out)
        print(f"{number + 1}/{options.kills}: resumed after step {resumed_after[-1]}, {equal} equal", flush=True)
    places = ", ".join(f"{place} ({count})" for place, count in where.most_common())
    table = "\n".join(
        [
            f"{machine()}; 30 steps, a checkpoint every 4 steps, one thread.",
            "",
            "| | |",
            "| --- | ---: |",
            f"| kills | {options.kills} |",
            f"| every checkpoint on disk readable | {readable} |",
            f"| final weights equal to the uninterrupted run's, bit for bit | {equal} |",
            f"| resumed after step, lowest to highest | {min(resumed_after)} to {max(resumed_after)} |",
            "",
            f"Killed before: {places}.",
        ]
    )
    write_section("Killed at any moment", table)
    assert equal == readable == options.kills


def killed(dataset: PreparedDataset, out: Path, number: int, seconds: float) -> str:
    """Train into `out` in another process until it is killed; returns what it was about to do.

    Where it was quicker than the killer, it trains again, and dies earlier.
    """
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            _train_until_killed(dataset, out, number, seconds, lambda place: os.write(tell, f"{place}\n".encode()))
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    with os.fdopen(told) as stream:
        last = stream.read().splitlines()[-1:]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        shutil.rmtree(out)
        return killed(dataset, out, number, 0.8 * seconds)
    assert code == -signal.SIGKILL, f"the process ended with {code}"
    return last[0] if last and number < OPERATIONS else "whatever it did at a random time"


def _train_until_killed(
    dataset: PreparedDataset, out: Path, number: int, seconds: float, tell: Callable[[str], object]
) -> None:
    draw = random.Random(number)
    seen, last = 0, draw.randrange(3, 48)

    def before(operation: str) -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            tell(operation)
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(Checkpoints):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, **more, before=before)  # type: ignore[arg-type]

    if number < OPERATIONS:
        fit_module.Checkpoints = Mortal  # type: ignore[misc]
    else:
        after = draw.uniform(0.05, 0.9) * seconds
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
    train(dataset, out, SETTINGS, device="cpu")


def intact(file: Path) -> bool:
    """Whether the checkpoint `file` can be read."""
    try:
        Checkpoints(file.parent, {})._read(file)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


if __name__ == "__main__":
    main()
