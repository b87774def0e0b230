"""`vla-lens import-pickles`: a folder of old pickles becomes a data set of episode shards."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from jax_bridge.old_pickles import ImportPlan, ImportReport

DESCRIPTION = """Reads pickles of latents (task_{id}_{name}.pkl with episodes / episode_k /
rollout_steps / step_t) without running them, and writes episode shards. A pickle that names
anything but numpy arrays, numpy scalars and plain containers is refused. Flow times stay the
source's labels."""
INCOMPLETE = 1
"""Exit code where a file or an episode was not imported."""
SHOWN = 5


def build_parser() -> "ArgumentParser":
    """The parser of `vla-lens import-pickles`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="vla-lens import-pickles", description=DESCRIPTION, exit_on_error=False
    )
    add = parser.add_argument
    add("-c", "--config", action="config", help="a YAML file, or a name in configs")
    add("folder", type=str, help="folder that holds task_<number>_<name>.pkl")
    add("--out", type=str, required=True, help="folder or address of the data set")
    add("--suite", type=str, default="imported", help="the suite of all samples")
    add("--vlm_regions", type=str, help="tokens of the VLM's sequence: image_base:256,text:48")
    add("--action_regions", type=str, help="of the action expert's: state:1,action:50")
    add("--leave_out", type=str, nargs="*", default=[], help="names under a step not wanted")
    add("--model", type=str, help="what the latents came from; part of the fingerprint")
    add("--max_memory", type=int, default=8 * 2**30, help="bytes of a file's arrays in memory")
    add("--spool", type=str, help="folder for what goes beyond that; the system's by default")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens import-pickles ...`.

    Raises:
        ValueError: if an argument does not fit, or nothing can be imported.
        FileNotFoundError: if the folder holds no such files.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from jax_bridge.old_pickles import import_pickles

    plan = _plan(config)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading the first file")
        report = import_pickles(
            plan,
            config.out,
            on_progress=lambda now: bar.update(
                task,
                description=f"{now.files} files, {now.episodes} episodes, {now.samples} samples",
            ),
        )
    show(report, config.out)
    return INCOMPLETE if report.refused or report.errors else 0


def _plan(config: "Namespace") -> "ImportPlan":
    from jax_bridge.old_pickles import ImportPlan
    from jax_bridge.old_pickles.regions import parse_regions
    from jax_bridge.old_pickles.samples import Cutting

    given = {
        expert: text and parse_regions(text, expert)
        for expert, text in (("vlm", config.vlm_regions), ("action", config.action_regions))
    }
    return ImportPlan(
        folder=Path(config.folder),
        suite=config.suite,
        cutting=Cutting(**given),
        leave_out=tuple(config.leave_out),
        model=config.model,
        max_memory=config.max_memory,
        spool_folder=Path(config.spool) if config.spool else None,
    )


def show(report: "ImportReport", out: str) -> None:
    """Says what was imported, and what was not."""
    print(
        f"{report.episodes} episodes, {report.samples} samples of {report.files} files -> {out}"
        + (f"; {report.skipped} episodes were there already" if report.skipped else "")
    )
    if report.left_out:
        names = ", ".join(f"{name} ({count})" for name, count in report.left_out.most_common())
        print(f"left out, since not known or not wanted: {names}")
    if report.others:
        print(f"other pickles, not read: {', '.join(report.others[:SHOWN])}")
    for name, why in report.refused.items():
        print(f"refused: {name}: {why}", file=sys.stderr)
    for line in report.errors[:SHOWN]:
        print(f"not imported: {line}", file=sys.stderr)
    if len(report.errors) > SHOWN:
        print(f"and {len(report.errors) - SHOWN} more, see errors.jsonl", file=sys.stderr)
