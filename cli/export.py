"""`vla-lens export`: fields of a data set as files of other tools."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DESCRIPTION = """Writes fields of a data set as npy or safetensors (a file a field, and rows.parquet
with the metadata), as one Parquet table, or as a Parquet table with LeRobot's column names.
bfloat16 becomes float32 except in safetensors. Memory is bounded; only the layers and flow times
that are asked for are read."""


def build_parser() -> "ArgumentParser":
    """The parser of `vla-lens export`."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="vla-lens export", description=DESCRIPTION, exit_on_error=False)
    add = parser.add_argument
    add("-c", "--config", action="config", help="a YAML file, or a name in configs")
    add("dataset", type=str, help="folder or address of the data set")
    add("--field", type=str, nargs="*", default=[], help="names of fields")
    add("--format", type=str, required=True, help="npy, safetensors, parquet or lerobot")
    add("--out", type=str, required=True, help="a new folder")
    add("--layer", type=int, nargs="+", help="layers; all by default")
    add("--flow_time", type=float, nargs="+", help="flow times; all by default")
    add("--where", type=dict | None, default=None, help="metadata column: value, or a list")
    add("--fps", type=float, default=10.0, help="environment steps a second (lerobot)")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens export ...`.

    Raises:
        ValueError: if a field or a column is not there.
        FileNotFoundError: if there is no data set.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    from rich.console import Console
    from rich.progress import Progress

    from jax_bridge.export import ExportPlan, export

    plan = ExportPlan(
        dataset=config.dataset,
        out=Path(config.out),
        format=config.format,
        fields=tuple(config.field),
        layers=None if config.layer is None else tuple(config.layer),
        flow_times=None if config.flow_time is None else tuple(config.flow_time),
        where=config.where,
        fps=config.fps,
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("samples", total=None)
        report = export(
            plan, on_rows=lambda done, total: bar.update(task, completed=done, total=total)
        )
    print(f"{report.rows} samples, {report.bytes / 1e6:.1f} MB -> {plan.out}")
    for column in report.columns:
        print(f"  {column.name}: {column.dtype.name} {list(column.shape)}", file=sys.stdout)
    return 0
