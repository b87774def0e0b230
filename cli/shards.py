"""`vla-lens shards {index,verify,repair,inspect}`: look after a data set of episode shards."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jax_bridge.shards.verify import VerifyReport

DAMAGED = 1
"""Exit code of `verify` where something is wrong, of `repair` where episodes are missing."""
COMMANDS: dict[str, str] = {
    "index": "rebuild the index from the tars; give shards without a manifest one",
    "verify": "check every byte against the manifests",
    "repair": "move bad shards to quarantine/, rebuild the rest, say what to collect again",
    "inspect": "print what the data set holds: episodes, success, fields, bytes a field",
}


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens shards`."""
    parser = ArgumentParser(
        prog="vla-lens shards",
        description="Looks after a data set of episode shards.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, text in COMMANDS.items():
        command = ArgumentParser(
            prog=f"vla-lens shards {name}", description=f"{text}.", exit_on_error=False
        )
        command.add_argument("-c", "--config", action="config", help="a YAML file, or a name")
        command.add_argument("dataset", type=str, help="folder or address of the data set")
        if name == "verify":
            command.add_argument("--workers", type=int, default=2, help="threads that hash")
        commands.add_subcommand(name, command, help=text)
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens shards ...`; returns the exit code."""
    args = resolve_config_args(args[1:] if args[:1] == ["shards"] else args)
    config = build_parser().parse_args(args)
    runs = {"index": _index, "verify": _verify, "repair": _repair, "inspect": _inspect}
    return runs[config.command](config[config.command])


def _index(config: Namespace) -> int:
    from jax_bridge.shards.dataset_folder import DatasetFolder
    from jax_bridge.shards.index import index_dataset
    from jax_bridge.shards.remote.address import is_address

    if is_address(config.dataset):
        return _index_remote(config.dataset.rstrip("/"))
    table = index_dataset(DatasetFolder(config.dataset))
    shards = len(table.column("shard").unique())
    print(f"{table.num_rows} samples in {shards} shards -> {config.dataset}/index.parquet")
    return 0


def _index_remote(address: str) -> int:
    from jax_bridge.shards.remote.remote_verify import index_remote

    made = index_remote(address)
    print(f"{made.samples} samples in {made.shards} shards -> {address}/index.parquet")
    if made.unfinished:
        print(
            f"left out, since their upload runs or was stopped: {', '.join(made.unfinished[:5])}"
            + (f" and {len(made.unfinished) - 5} more" if len(made.unfinished) > 5 else "")
        )
    return 0


def _inspect(config: Namespace) -> int:
    from jax_bridge.shards.inspection import describe, inspect_dataset

    print(describe(inspect_dataset(config.dataset)))
    return 0


@contextlib.contextmanager
def _progress(command: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar over the bytes of all shards; to be told of each shard that is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task(command, total=total)
        yield lambda _, size: progress.advance(task, size)


def _local_bytes(path: str) -> int:
    """Of all tars."""
    from jax_bridge.shards.dataset_folder import DatasetFolder

    folder = DatasetFolder(path)
    folder.read_info()
    return sum(folder.tar(name).stat().st_size for name in folder.names())


def _verify(config: Namespace) -> int:
    from jax_bridge.shards.remote.address import is_address
    from jax_bridge.shards.remote.remote_verify import RemoteVerification
    from jax_bridge.shards.verify import verify_dataset

    if config.workers < 1:
        raise ValueError(f"`--workers` must be positive, but got {config.workers}.")
    if is_address(config.dataset):
        remote = RemoteVerification(config.dataset)
        with _progress("verify", sum(remote.sizes.values())) as on_shard:
            report = remote.run(workers=config.workers, on_shard=on_shard)
    else:
        with _progress("verify", _local_bytes(config.dataset)) as on_shard:
            report = verify_dataset(config.dataset, workers=config.workers, on_shard=on_shard)
    _print_report(report)
    return DAMAGED if _verify_targets(config.dataset) or report.problems else 0


def _verify_targets(path: str) -> bool:
    """Whether something is wrong with the FAST targets beside a data set."""
    from jax_bridge.fast.verify import verify_targets
    from jax_bridge.shards import open_dataset

    try:
        report = verify_targets(open_dataset(path))
    except ValueError as error:
        print(f"FAST targets, if there are any, were not looked at: {error}")
        return True
    if report is None:
        return False
    for problem in report.problems:
        print(problem)
    verdict = f"{len(report.problems)} problems" if report.problems else "all bytes are as written"
    print(f"FAST targets of {report.shards} shards: {verdict}")
    return bool(report.problems)


def _repair(config: Namespace) -> int:
    from cli.shards_repair import describe_repair
    from jax_bridge.shards.remote.address import is_address
    from jax_bridge.shards.repair import repair_dataset, require_info

    if is_address(config.dataset):
        raise ValueError(
            f"`dataset` must be a local folder to be repaired, but got {config.dataset}. Copy it "
            "into a folder, repair that, and copy it back to a new address."
        )
    require_info(config.dataset)
    with _progress("repair", _local_bytes(config.dataset)) as on_shard:
        report = repair_dataset(config.dataset, on_shard=on_shard)
    print(describe_repair(report))
    return DAMAGED if report.missing or report.unknown or report.info_problems else 0


def _print_report(report: "VerifyReport") -> None:
    from jax_bridge.shards.inspection import readable_bytes

    for problem in report.problems:
        print(problem)
    for path in report.unfinished:
        print(f"{path.name}: a writer is at work here, or has died; the next one commits it.")
    verdict = "all bytes are as written"
    if report.problems:
        verdict = f"{len(report.problems)} problems. `vla-lens shards repair` deals with them"
    print(
        f"{report.shards} shards, {report.samples} samples, {readable_bytes(report.bytes)}: "
        f"{verdict}"
    )
