"""`vla-lens norm-stats DATASET`: openpi's `norm_stats.json` of a data set of demonstrations."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args
from cli.rows_progress import rows_progress

if TYPE_CHECKING:
    from jax_bridge.demos.chunk_stream import ChunkStream
    from jax_bridge.demos.dataset_statistics import DatasetStatistics
    from jax_bridge.policies.data_statistics import Counted

DESCRIPTION = """Streams over the states and action chunks of a data set and writes openpi's
norm_stats.json: mean, standard deviation, 1st and 99th percentile a dimension. Percentiles are
exact where the numbers fit into --memory; where not, their largest error is printed."""
MIB = 2**20


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens norm-stats`."""
    parser = ArgumentParser(
        prog="vla-lens norm-stats", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument("dataset", metavar="DATASET", type=str, help="demonstrations as shards")
    parser.add_argument(
        "--out", type=str | None, default=None, help="file; by default DATASET/norm_stats.json"
    )
    add_stream(parser)
    parser.add_argument("--memory", type=int, default=1024, help="for exact percentiles, in MiB")
    parser.add_argument(
        "--seldom",
        type=Literal["full-range", "keep"],
        default="full-range",
        help="dimensions that rest nearly always: the full range for their percentiles, or as is",
    )
    return parser


def add_stream(parser: ArgumentParser) -> None:
    """The options that say which chunks are read, and how."""
    parser.add_argument(
        "--delta_dims",
        "--delta-dims",
        type=str,
        default="",
        help="action dimensions to take relative to the state, half-open: 0:6; none by default",
    )
    parser.add_argument(
        "--success_only",
        "--success-only",
        action="store_true",
        help="leave failed demonstrations out",
    )


def open_stream(config: Namespace) -> "ChunkStream":
    """The chunks that the options name."""
    from jax_bridge.demos.chunk_stream import ChunkStream
    from jax_bridge.demos.delta_dims import parse_delta_dims
    from jax_bridge.demos.description import demonstrations_of
    from jax_bridge.shards import open_dataset

    dataset = open_dataset(config.dataset)
    sizes = demonstrations_of(dataset.info, dataset.path)
    mask = parse_delta_dims(
        config.delta_dims, action_dim=sizes.action_dim, state_dim=sizes.state_dim
    )
    return ChunkStream.of(dataset, success_only=config.success_only, delta_mask=mask)


def main(args: list[str]) -> int:
    """Runs `vla-lens norm-stats ...`.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if it holds no demonstrations, or one is not finite.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    from jax_bridge.demos.dataset_statistics import dataset_statistics, write_statistics

    if config.memory < 1:
        raise ValueError(f"`--memory` must be positive, but got {config.memory}.")
    if config.out is None and "://" in config.dataset:
        raise ValueError("`--out` must name a file where DATASET is an address. Add --out FILE.")
    stream = open_stream(config)
    parts = 1 if stream.sizes.state_dim is None else 2
    with rows_progress("norm-stats", parts * len(stream.rows)) as on_rows:
        found = dataset_statistics(stream, memory=config.memory * MIB, on_rows=on_rows)
    out = Path(config.out or Path(config.dataset) / "norm_stats.json")
    widened = config.seldom == "full-range"
    write_statistics(out, found, stream, widened=widened)
    _print(found, widened=widened)
    print(f"{len(stream.rows):,} samples -> {out}")
    return 0


def _print(found: "DatasetStatistics", *, widened: bool) -> None:
    for name, counted in (("state", found.state), ("actions", found.actions)):
        for line in _table(name, counted):
            print(line)
    for name, counted in (("state", found.state), ("actions", found.actions)):
        for dim in counted.seldom_moving:
            low, high = counted.low[dim], counted.high[dim]
            done = "written for its percentiles" if widened else "left out of its percentiles"
            print(f"{name} {dim} seldom moves: its full range {low:.5g} to {high:.5g} is {done}")


def _table(name: str, counted: "Counted") -> list[str]:
    if not counted.rows:
        return [f"{name}: not recorded; the file gives it no dimensions"]
    s = counted.statistics
    low, high = s.pair("quantile")
    worst = float(counted.quantile_error.max())
    exact = "exact" if worst == 0 else f"off by at most {worst:.3g}"
    lines = [f"{name}: {counted.rows:,} rows, percentiles {exact}"]
    lines.append(f"  {'dim':>3} {'mean':>12} {'std':>12} {'q01':>12} {'q99':>12}")
    for dim, row in enumerate(zip(s.mean, s.std, low, high, strict=True)):
        still = "  does not move" if dim in counted.degenerate and row[1] == 0 else ""
        lines.append(f"  {dim:>3} " + " ".join(f"{value:>12.5g}" for value in row) + still)
    return lines
