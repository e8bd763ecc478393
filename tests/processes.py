"""A function in several processes at once, as `torchrun` starts them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anatogen.distributed import joined

PATIENCE = 180.0  # for who hangs; nobody waits so long otherwise, but on a busy machine


def in_group(size: int, folder: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(*args)` returns or raises in each of `size` processes of one group; None where one was killed.

    `folder` takes the results; `work` and what it returns can be pickled.
    """
    context = multiprocessing.get_context("forkserver")
    # An optimizer imports torch._dynamo, which takes seconds.
    context.set_forkserver_preload(["torch._dynamo", "tensorboardX", "monai.transforms", "anatogen.workflows.live"])
    port, folder = _free_port(), folder / "results"
    folder.mkdir()
    processes = [context.Process(target=_one, args=(rank, size, port, folder, work, args)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung, f"{len(hung)} processes hang"
    files = [folder / str(rank) for rank in range(size)]
    return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def _one(rank: int, size: int, port: int, folder: Path, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    answer: Any
    try:
        with joined():
            answer = work(*args)
    except Exception as error:
        answer = error
    (folder / str(rank)).write_bytes(pickle.dumps(answer))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
