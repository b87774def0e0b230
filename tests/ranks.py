"""Runs a function in several processes that know each other, as `torchrun` would."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PRELOAD = [
    "datamodules.latents",
    "lightning_modules.run_folder",
    "lightning_modules.prediction_table",
]
LONGEST = 180
"""Seconds after which processes that wait for each other are given up."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(job: Callable[..., Any], rank: int, port: int, answer: Path, args: tuple) -> None:
    os.environ |= {
        "LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        content = ("value", job(rank, *args))
    except BaseException:
        content = ("error", "".join(traceback.format_exc().splitlines(keepends=True)[-6:]))
    answer.write_bytes(pickle.dumps(content))


def run_ranks(job: Callable[..., Any], world_size: int, folder: Path, *args: Any) -> list[Any]:
    """What `job(rank, *args)` returns on each rank; fails where one raises or all hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder.mkdir(parents=True, exist_ok=True)
    answers = [folder / f"{rank}.pickle" for rank in range(world_size)]
    port = free_port()
    processes = [
        context.Process(target=_rank, args=(job, rank, port, answers[rank], args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST)
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    found = [
        pickle.loads(a.read_bytes()) if a.exists() else ("error", "no answer") for a in answers
    ]
    errors = [f"rank {rank}: {text}" for rank, (kind, text) in enumerate(found) if kind == "error"]
    assert not hanging or any("Error" in text for text in errors), f"ranks {hanging} hang"
    assert not errors, "\n".join(errors)
    return [value for _, value in found]
