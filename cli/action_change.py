"""`vla-lens action-change`: what an erased concept does to actions, against random directions."""

import shlex
from pathlib import Path

from jsonargparse import ArgumentParser

from cli.configs import resolve_config_args

DESCRIPTION = """Compares the actions that a policy predicts at the same states plain, with a
concept erased, and with random directions changed by as much (docs/interventions.md). The three
data sets are collected with --drive demonstrator and the same options but --intervene."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens action-change`."""
    parser = ArgumentParser(
        prog="vla-lens action-change", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument("plain", metavar="PLAIN", type=str, help="data set without a change")
    parser.add_argument("--erased", type=str, required=True, help="with --intervene NAME")
    parser.add_argument(
        "--random", type=str, nargs="+", required=True, help="with --intervene NAME.random, or more"
    )
    parser.add_argument("--out", type=str, default="runs/action_change", help="folder to write")
    parser.add_argument("--draws", type=int, default=2000, help="resamples of the episodes")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens action-change ...`.

    Raises:
        FileNotFoundError: if a data set is not there.
        ValueError: if the data sets cannot be compared.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    if config.draws < 10:
        raise ValueError(f"`--draws` must be at least 10, but got {config.draws}. Raise it.")
    if Path(config.out).is_file():
        raise ValueError(f"`--out` must be a folder, but {config.out} is a file. Choose another.")
    from jax_bridge.shards import open_dataset
    from lightning_modules.erasure.action_change import measure_change
    from lightning_modules.erasure.joined_actions import join_actions
    from lightning_modules.report.action_change_page import (
        Sources,
        summary_words,
        warnings_of,
        write_change_report,
    )

    joined = join_actions(
        open_dataset(config.plain),
        open_dataset(config.erased),
        [open_dataset(path) for path in config.random],
    )
    change = measure_change(joined, draws=config.draws, seed=config.seed)
    for line in [*warnings_of(change), *summary_words(change)]:
        print(line)
    sources = Sources(
        plain=config.plain, erased=config.erased, random=tuple(config.random),
        command=shlex.join(["vla-lens", *args]),
    )  # fmt: skip
    print(write_change_report(Path(config.out), change, sources))
    return 0
