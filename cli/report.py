"""`vla-lens report RUN`: one self-contained HTML page of a run."""

from pathlib import Path

from jsonargparse import ArgumentParser

from cli.configs import resolve_config_args

DESCRIPTION = """Makes one HTML page of a probe's run: figures, a sortable table, what the numbers
do and do not show, and where they come from. It needs no other file and no network."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens report`."""
    parser = ArgumentParser(prog="vla-lens report", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "run", metavar="RUN", type=str, help="run folder, as `vla-lens fit` made it"
    )
    parser.add_argument(
        "--out", type=str | None, default=None, help="file to write; RUN/report.html by default"
    )
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens report ...`.

    Raises:
        FileNotFoundError: if the run folder holds no results.
        ValueError: if they cannot be read.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    from lightning_modules.report.page import write_report

    path = write_report(Path(config.run), Path(config.out) if config.out else None)
    print(path)
    return 0
