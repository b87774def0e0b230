"""The progress bar of a collection fits into the terminal."""

import io
import re

import pytest
from rich.console import Console

from cli.progress import EpisodeProgress
from jax_bridge.rollouts.collect import CollectReport


@pytest.mark.parametrize("width", [80, 120])
def test_no_field_is_cut_off(width):
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    with EpisodeProgress(500, console=console) as progress:
        progress.update(CollectReport(skipped=100))
        report = CollectReport(
            skipped=100, episodes=340, samples=13254, successes=123, errors=["boom"] * 12
        )
        progress.update(report)
    line = next(part for part in re.split(r"[\r\n]", shown.getvalue()) if "452" in part)
    assert "…" not in line
    for field in ("episodes ━", "452/500", "13254 samples, ", "/s, 123 solved, 12 errors", ":"):
        assert field in line
