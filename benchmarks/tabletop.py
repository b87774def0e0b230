"""Steps a second of the built-in table, with both cameras rendered and without.

Run as `python -m benchmarks.tabletop`, on one core. `--picture FILE` draws a contact sheet of
episodes instead.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.environments.tabletop.tasks import TASKS

STEPS = 60
"""Steps of an episode that are timed: the demonstrator is done by then."""
WANTED = 500
"""Rendered steps a second that are asked for."""


def main() -> None:
    """Measures, or draws a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15, help="episodes of each kind")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("--picture", type=Path, help="draw a contact sheet there instead")
    arguments = parser.parse_args()
    if arguments.picture:
        contact_sheet(arguments.image_size).save(arguments.picture, optimize=True)
        return
    result = measure(image_size=arguments.image_size, rounds=arguments.rounds)
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(*, image_size: int, rounds: int) -> dict[str, Any]:
    """Times rendered and unrendered episodes in turn."""
    table = Tabletop(image_size=image_size)
    episode_rate(table, episode=rounds, rendered=True)
    rates: dict[str, list[float]] = {"rendered": [], "unrendered": []}
    for episode in range(rounds):
        for kind, found in rates.items():
            found.append(episode_rate(table, episode=episode, rendered=kind == "rendered"))
    rendered, unrendered = (statistics.median(found) for found in rates.values())
    return {
        "benchmark": "tabletop",
        "unit": "steps/s",
        "workload": f"{rounds} demonstrated episodes of {STEPS} steps, two {image_size}-px cameras",
        **{
            kind: {"median": statistics.median(found), "min": min(found), "max": max(found)}
            for kind, found in rates.items()
        },
        "rendered_to_unrendered": rendered / unrendered,
        "wanted_rendered": WANTED,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
    }


def episode_rate(table: Tabletop, *, episode: int, rendered: bool) -> float:
    """Steps a second of one episode, its start included."""
    begin = time.perf_counter()
    table.reset(task_id=episode % len(table.tasks), episode=episode, seed=0)
    demonstrator = table.demonstrator()
    for _ in range(STEPS):
        table.step(demonstrator.act())
        if rendered:
            table.observe()
    return STEPS / (time.perf_counter() - begin)


def contact_sheet(image_size: int) -> Image.Image:
    """Three episodes below their instructions, both cameras, time from left to right."""
    strips = [episode_strip(image_size, episode=i, task_id=5 * i) for i in range(3)]
    height = strips[0].height + 16
    sheet = Image.new("RGB", (strips[0].width, height * len(strips)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, strip in enumerate(strips):
        draw.text((4, height * i + 2), TASKS[5 * i].instruction, fill="black")
        sheet.paste(strip, (0, height * i + 16))
    return sheet


def episode_strip(
    image_size: int,
    *,
    episode: int,
    task_id: int,
    moments: tuple[int, ...] = (0, 9, 14, 20, 26, 40),
) -> Image.Image:
    """One episode at a few steps, the outer camera above the wrist's."""
    table = Tabletop(image_size=image_size)
    table.reset(task_id=task_id, episode=episode, seed=0)
    demonstrator = table.demonstrator()
    columns = []
    for step in range(max(moments) + 1):
        if step in moments:
            images = table.observe().images
            columns.append(np.concatenate([images["base"], images["left_wrist"]]))
        table.step(demonstrator.act())
    return Image.fromarray(np.concatenate(columns, axis=1))


if __name__ == "__main__":
    main()
