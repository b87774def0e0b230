"""A sweep as it is asked for, in terms of `vla-lens fit`: its runs, checked before the first."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from cli.configs import read_config
from lightning_modules.sweep.plan import SweepRun, examples_of, merged, runs_of

QUIET = {"trainer": {"enable_progress_bar": False}}
"""The sweep has a progress bar of its own."""


class _Built(Exception):  # noqa: N818 - it carries a parser, no error
    """Leaves LightningCLI once its parser stands."""

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def fit_parser() -> ArgumentParser:
    """The parser of `vla-lens fit`."""
    from cli.lightning import ProbeCLI

    class ParserAlone(ProbeCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise _Built(parser)

    try:
        ParserAlone(["fit"])
    except _Built as built:
        return built.parser
    raise AssertionError("LightningCLI parses its arguments")


def shared_config(base: str | None, fit: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs share: the base with the sweep's own options."""
    return merged(merged(QUIET, read_config(base) if base else {}), fit)


def plan_runs(base: str | None, fit: Mapping[str, Any], grid: Mapping[str, Any]) -> list[SweepRun]:
    """The runs of a sweep; every setting has passed the parser of `vla-lens fit`.

    Raises:
        ValueError: if the grid or a setting does not fit.
    """
    shared = shared_config(base, fit)
    runs = runs_of(shared, grid)
    parser = fit_parser()
    for run in examples_of(shared, grid):
        _check(parser, run)
    return runs


def _check(parser: ArgumentParser, run: SweepRun) -> None:
    try:
        parsed: Namespace = parser.parse_object({"subcommand": "fit", "fit": run.config})
    except argparse.ArgumentError as error:
        raise ValueError(
            f"`fit` and `grid` must hold options of `vla-lens fit`, but with {run.settings}: "
            f"{str(error).rstrip('.')}. `vla-lens fit --help` lists them."
        ) from error
    fit = parsed.fit
    if fit.trainer.devices not in (1, "1") or fit.trainer.num_nodes != 1:
        raise ValueError(
            f"`trainer.devices` must be 1 in a sweep, but got {fit.trainer.devices}. Runs stand "
            "side by side, each on one device."
        )
    if fit.out or fit.ckpt_path:
        raise ValueError(
            f"`fit` must hold neither out nor ckpt_path, but got {fit.out or fit.ckpt_path!r}. "
            "A sweep chooses the folders of its runs itself."
        )


def data_records(runs: Sequence[SweepRun]) -> dict[str, dict[str, str]]:
    """What identifies each data set, by its path.

    Raises:
        FileNotFoundError: if one is not there.
    """
    from jax_bridge.shards import open_dataset

    records = {}
    for path in dict.fromkeys(run.path for run in runs):
        dataset = open_dataset(path)
        records[path] = {"fingerprint": dataset.fingerprint, "content": dataset.content_digest}
    return records
