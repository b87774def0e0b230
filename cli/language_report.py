"""`vla-lens language-report DATASET`: how the instruction stands in the latents over time."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from lightning_modules.language.analysis import LanguageResults
    from lightning_modules.language.options import LanguageOptions

DESCRIPTION = """Follows the instruction through the rollouts of a data set, by expert, layer, flow
time and step: how far latents move from the first step, how well a held-out probe reads the
instruction, how far the experts are apart, and whether any of it goes with success. Writes tables,
figures and one HTML page."""
DEFAULT_OUT = Path("runs", "language")
MIB = 2**20


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens language-report`."""
    parser = ArgumentParser(
        prog="vla-lens language-report", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument("dataset", metavar="DATASET", type=str, help="folder of the data set")
    parser.add_argument(
        "--out", type=str | None, default=None, help="folder; by default runs/language/NAME"
    )
    _add_selection(parser)
    parser.add_argument(
        "--fold_by",
        "--fold-by",
        type=Literal["episode", "task"],
        default="episode",
        help="what a probe has not seen of what it reads; by task, the instruction is new to it",
    )
    parser.add_argument(
        "--encoder", type=str, default="tfidf", help="of instructions: tfidf, a folder, t5-small"
    )
    parser.add_argument("--folds", type=int, default=5, help="into how many parts they are dealt")
    parser.add_argument("--draws", type=int, default=500, help="resamples of the episodes")
    parser.add_argument(
        "--permutations", type=int, default=1000, help="behind each corrected p value"
    )
    parser.add_argument(
        "--memory", type=int, default=1024, help="for latents and sums of probes, in MiB"
    )
    parser.add_argument("--seed", type=int, default=0, help="of folds, draws and permutations")
    return parser


def _add_selection(parser: ArgumentParser) -> None:
    parser.add_argument("--site", type=str, default="hidden_states", help="what is read in a block")
    parser.add_argument(
        "--vlm_region",
        "--vlm-region",
        type=str,
        default="image_base",
        help="the tokens of expert vlm; text_only are those of the prompt",
    )
    parser.add_argument(
        "--layer", type=int | list[int] | Literal["all"], default="all", help="number, list or all"
    )
    parser.add_argument(
        "--flow_time",
        "--flow-time",
        type=float | list[float] | Literal["all"],
        default="all",
        help="number, list or all; of expert action",
    )
    parser.add_argument("--suite", type=str | None, default=None, help="one suite of several")
    for name, what in (("task", "half-open, 0:5"), ("episode", "of each task's episodes")):
        parser.add_argument(
            f"--{name}_range", f"--{name}-range", type=str | None, default=None, help=what
        )
    parser.add_argument("--steps", type=int, default=40, help="rollout steps at most")


def options_of(config: Namespace) -> "LanguageOptions":
    """The settings of the report."""
    from datamodules.row_choice import RowChoice
    from lightning_modules.language.options import LanguageOptions

    rows = RowChoice(
        suite=config.suite, task_range=config.task_range, episode_range=config.episode_range
    )
    return LanguageOptions(
        site=config.site, vlm_region=config.vlm_region, layer=config.layer,
        flow_time=config.flow_time, rows=rows, most_steps=config.steps, fold_by=config.fold_by,
        folds=config.folds, draws=config.draws, permutations=config.permutations,
        encoder=config.encoder, memory=config.memory * MIB, seed=config.seed,
    )  # fmt: skip


def main(args: list[str]) -> int:
    """Runs `vla-lens language-report ...`.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if an option does not fit, or the data set cannot answer.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    out = Path(config.out) if config.out else DEFAULT_OUT / Path(config.dataset).resolve().name
    if out.is_file():
        raise ValueError(f"`--out` must be a folder, but {out} is a file. Choose another.")
    from lightning_modules.language.report_folder import write_language_report

    results = _analyse(config)
    path = write_language_report(out, results, shlex.join(["vla-lens", *args]))
    print(path)
    return 0


def _analyse(config: Namespace) -> "LanguageResults":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from jax_bridge.shards import open_dataset
    from lightning_modules.language.analysis import LanguageAnalysis

    analysis = LanguageAnalysis(open_dataset(config.dataset), options_of(config))
    columns = (
        TextColumn("language"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("language", total=None, what="")

        def show(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, what=what)

        return analysis.run(show)
