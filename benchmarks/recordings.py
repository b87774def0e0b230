"""How fast `vla-lens dataset-stats` reads recorded episodes, and in how much memory.

python -m benchmarks.recordings [--files 10000] [--steps 100] [--rounds 3] [--out FILE]

Goal: at least 200 files a second on a warm cache, in bounded memory. The files are of the
mobile-VLA layout with a small camera; metadata and actions are read, no frame.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import tempfile
import time

import h5py
import numpy as np

from jax_bridge.episodes import survey
from lightning_modules.recordings.episode_facts import Recordings
from lightning_modules.recordings.recordings_report import recordings_json

GOAL = 200


def write_files(folder: pathlib.Path, files: int, steps: int) -> None:
    """Recordings of a vehicle that wanders."""
    rng = np.random.default_rng(0)
    frame = np.zeros((steps, 8, 8, 3), np.uint8)
    for number in range(files):
        with h5py.File(folder / f"episode_{number:05d}.h5", "w") as file:
            file["actions"] = rng.standard_normal((steps, 3), np.float32)
            file["images"] = frame
            file.attrs["language_instruction"] = f"go to basket {number % 20}"


def read(folder: pathlib.Path) -> tuple[float, float]:
    """Files a second, and a second of one processor; statistics and strata included."""
    start, work = time.perf_counter(), time.process_time()
    found = Recordings(survey([folder]))
    recordings_json(found)
    count = len(found.episodes)
    return count / (time.perf_counter() - start), count / (time.process_time() - work)


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_files(folder, arguments.files, arguments.steps)
        read(folder)  # warms the cache
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        readings = [read(folder) for _ in range(arguments.rounds)]
    rates, of_processor = zip(*readings, strict=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "files": arguments.files, "steps": arguments.steps, "cpus": os.cpu_count(),
        "h5py": importlib.metadata.version("h5py"), "python": platform.python_version(),
        "median": statistics.median(rates), "min": min(rates), "max": max(rates),
        "median_a_processor_second": statistics.median(of_processor),
        "peak_mib": grown / 1024, "peak_mib_of_first_reading": before / 1024, "goal": GOAL,
    }  # fmt: skip
    print(
        f"dataset-stats, {arguments.files} files of {arguments.steps} steps: "
        f"{found['median']:.0f} files/s ({found['min']:.0f} to {found['max']:.0f}; goal {GOAL}), "
        f"{found['median_a_processor_second']:.0f} a second of one processor, "
        f"peak {found['peak_mib']:.0f} MiB of the whole process"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
