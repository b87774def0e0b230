"""What `vla-lens shards repair` prints."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax_bridge.shards.repair import RepairReport


def describe_repair(report: "RepairReport") -> str:
    """What was wrong, what was done, and what to collect again."""
    from jax_bridge.shards.repair import WRITE_AGAIN

    lines = [f"{problem} {WRITE_AGAIN}" for problem in report.info_problems]
    lines += [str(problem) for problem in report.problems]
    lines += [f"{name}: manifest or index rows made again" for name in report.rebuilt]
    place = report.path / "quarantine"
    lines += [f"{name}: moved to {place}" for name in report.quarantined]
    if report.recovered:
        lines.append(f"{len(report.recovered)} whole episodes of moved shards are kept")
    lines += [
        f"{name}: nothing tells which episodes it held beyond those that can be read; its name "
        "says the first and the last"
        for name in report.unknown
    ]
    lines += _again(report)
    verdict = f"{len(report.missing)} episodes are missing" if report.missing else "whole"
    lines.append(f"{report.shards} shards, {report.samples} samples: {verdict}")
    return "\n".join(lines)


def _again(report: "RepairReport") -> list[str]:
    from jax_bridge.shards.collect_again import ranges_again, spelled

    ranges = ranges_again(report.missing)
    if not ranges:
        return []
    out = shlex.quote(str(report.path))
    lines = ["collect again, with the options that made the data set and:"]
    for again in ranges:
        suite, tasks, episodes = again.suite, spelled(again.tasks), spelled(again.episodes)
        words = f"{suite} task {tasks} episode {episodes}"
        lines.append(f"  {words}:  {again.options} --out {out}")
    return lines
