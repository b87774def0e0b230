"""Sides that are timed in turn: A B C A B C, medians with minimum and maximum."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    sides: Mapping[str, Callable[[], float]], rounds: int, *, unit: str = "samples/s"
) -> dict[str, Any]:
    """Runs every side once untimed, then all in turn; each returns its rate.

    Args:
        sides: by name; the first is ours.
        rounds: how often each side is timed.
        unit: of the rates.

    Returns:
        Each side's rates, and the ratio of our median to each other side's.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            rate = side()
            if number:
                rates[name].append(rate)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours, *others = medians
    return {
        "unit": unit,
        "sides": {
            name: {"median": medians[name], "min": min(found), "max": max(found)}
            for name, found in rates.items()
        },
        "ratios": {name: medians[ours] / medians[name] for name in others},
    }


def show(title: str, found: Mapping[str, Any]) -> None:
    """Prints what `interleave` found."""
    print(f"{title} ({found['unit']})")
    for name, side in found["sides"].items():
        ratio = found["ratios"].get(name)
        text = "" if ratio is None else f"  ours is {ratio:.2f} times as fast"
        print(
            f"  {name:34} {side['median']:11,.0f} ({side['min']:,.0f} to {side['max']:,.0f}){text}",
            flush=True,
        )
