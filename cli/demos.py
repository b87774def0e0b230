"""`vla-lens demos`: recorded demonstrations (HDF5, CALVIN) into shards, to train from."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jax_bridge.demos.conversion import ConversionPlan, ConversionReport, Converter
    from jax_bridge.episodes import EpisodeInfo, Survey

DESCRIPTION = """Reads recorded demonstrations and writes them as shards: one sample a frame, with
the camera images, the state, the actions that follow, and the instruction. Files that cannot be
read are named, counted and passed over. A conversion that was stopped goes on where it stopped."""
SHOWN = 5
"""Files and episodes passed over that are printed; `--list` prints all."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens demos`."""
    parser = ArgumentParser(prog="vla-lens demos", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "--demos",
        type=str,
        nargs="+",
        required=True,
        help="files, folders (searched to any depth) or patterns",
    )
    parser.add_argument(
        "--layout",
        type=str,
        default="auto",
        help="auto, libero, robomimic, aloha, droid, mobile_vla or calvin",
    )
    parser.add_argument("--horizon", type=int, default=10, help="actions a chunk")
    parser.add_argument("--out", type=str | None, default=None, help="folder or address")
    parser.add_argument(
        "--staging", type=str | None, default=None, help="where shards wait to be uploaded"
    )
    parser.add_argument(
        "--list", action="store_true", help="say what the files hold, and write nothing"
    )
    parser.add_argument(
        "--retry_errors",
        "--retry-errors",
        action="store_true",
        help="try episodes again that could not be read before",
    )
    _add_content(parser)
    _add_images(parser)
    return parser


def _add_content(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--instruction", type=str | None, default=None, help="for episodes that have none"
    )
    parser.add_argument(
        "--suite", type=str, default="demos", help="name of these data; first word of every key"
    )
    parser.add_argument("--stride", type=int, default=1, help="every how many steps a frame")


def _add_images(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Literal["jpg", "png", "none"],
        default="jpg",
        help="how frames are kept",
    )
    parser.add_argument(
        "--image_size",
        "--image-size",
        type=int | None,
        default=None,
        help="scale frames into a square of this size with black borders; by default as they are",
    )
    parser.add_argument(
        "--cameras",
        type=str,
        default="base,left_wrist,right_wrist",
        help="which cameras are kept, as --list names them, with commas between them",
    )
    parser.add_argument(
        "--colour",
        type=Literal["auto", "rgb", "bgr"],
        default="auto",
        help="what comes first in raw frames, where the layout is wrong about it",
    )
    parser.add_argument(
        "--turn",
        type=Literal["auto", "none", "flip", "mirror", "rotate"],
        default="auto",
        help="what makes frames upright, where the layout is wrong about it",
    )


def main(args: list[str]) -> int:
    """Runs `vla-lens demos ...`; returns the exit code.

    Raises:
        FileNotFoundError: if there is no episode file.
        ValueError: if episodes do not go together, or an option does not fit.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    plan = _plan(config)
    found = _survey(config)
    episodes = _seen(found, config)
    if config.list:
        _print_list(found)
        return 0
    if config.out is None:
        raise ValueError("`--out` must name the folder of the data set. Add --out DIR.")
    _print_skipped(found, SHOWN)
    from jax_bridge.demos.conversion import Converter

    report = _convert(Converter(episodes, plan), config)
    _print_report(report, found, config.out)
    return 1 if report.errors and not report.episodes + report.skipped else 0


def _plan(config: Namespace) -> "ConversionPlan":
    from jax_bridge.demos.conversion import ConversionPlan
    from jax_bridge.shards import ImageFormat

    cameras = tuple(name.strip() for name in config.cameras.split(","))
    return ConversionPlan(
        horizon=config.horizon, suite=config.suite, instruction=config.instruction,
        cameras=cameras, image_size=config.image_size, stride=config.stride,
        retry_errors=config.retry_errors,
        images=None if config.images == "none" else ImageFormat(kind=config.images),
    )  # fmt: skip


def _survey(config: Namespace) -> "Survey":
    from rich.console import Console

    from jax_bridge.episodes import survey

    with Console(stderr=True).status("looking into the files") as status:
        return survey(
            config.demos,
            layout=config.layout,
            on_file=lambda path: status.update(f"looked into {Path(path).name}"),
        )


def _seen(found: "Survey", config: Namespace) -> "list[EpisodeInfo]":
    colour = None if config.colour == "auto" else config.colour
    turn = None if config.turn == "auto" else config.turn
    return [info.seen(colour=colour, turn=turn) for info in found.episodes]


def _convert(converter: "Converter", config: Namespace) -> "ConversionReport":
    from cli.demos_progress import DemosProgress

    try:
        with DemosProgress(converter.total) as progress:
            return converter.run(config.out, progress, staging=config.staging)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"finished episodes are kept in {config.out}, the same command goes on from there"
        ) from interrupt


def _print_list(found: "Survey") -> None:
    head = f"{'layout':<11} {'steps':>6} {'action':>6} {'state':>5}  {'cameras':<40} instruction"
    print(head)
    for info in found.episodes:
        cameras = ", ".join(f"{c.name} {c.height}x{c.width}" for c in info.cameras) or "none"
        print(
            f"{info.layout:<11} {info.length:>6} {info.action_dim:>6} {info.state_dim or 0:>5}  "
            f"{cameras:<40} {info.instruction or '(none)'}  {info.source}"
        )
    _print_skipped(found, len(found.skipped))
    steps = sum(info.length for info in found.episodes)
    print(
        f"{len(found.episodes)} episodes, {steps:,} steps in {found.files} files; "
        f"{len(found.skipped)} passed over"
    )


def _print_skipped(found: "Survey", most: int) -> None:
    for skipped in found.skipped[:most]:
        print(f"passed over: {skipped}")
    if len(found.skipped) > most:
        print(f"  and {len(found.skipped) - most} more; --list names them all")


def _print_report(report: "ConversionReport", found: "Survey", out: str) -> None:
    for line in report.errors[:SHOWN]:
        print(f"  error: {line}")
    print(
        f"{report.episodes} episodes ({report.skipped} were there already), {report.samples:,} "
        f"samples, {len(found.skipped)} passed over, {len(report.errors)} errors -> {out}"
    )
    if report.errors:
        print(f"  all are in {out.rstrip('/')}/errors.jsonl; --retry_errors tries them again")
