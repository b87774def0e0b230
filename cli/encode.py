"""`vla-lens encode`: a policy over recorded frames, without a simulator."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.choice import Choice
from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jax_bridge.encoding import EncodePlan, Encoder, EncodeReport, Reducer
    from jax_bridge.episodes import Survey

DESCRIPTION = """Shows a policy the frames of recorded demonstrations (HDF5, CALVIN) and writes the
latents that --capture names as shards, as `collect` does. --reduce task|episode keeps sums, means,
second moments and counts alone. Files that cannot be read are named, counted and passed over. A run
that was stopped goes on where it stopped."""
SHOWN = 5
"""Files and episodes passed over that are printed."""


def _choice() -> Choice:
    from jax_bridge.policies.registry import POLICIES

    return Choice("policy", registry=POLICIES, default="pi0", what="kind of policy")


def build_parser(args: list[str], choice: Choice) -> ArgumentParser:
    """The parser for these (expanded) arguments: the chosen policy adds its own options."""
    parser = ArgumentParser(prog="vla-lens encode", description=DESCRIPTION, exit_on_error=False)
    add = parser.add_argument
    add("-c", "--config", action="config", help="a YAML file, or a name in configs")
    choice.add_to(parser, args)
    add("--demos", type=str, nargs="+", required=True, help="files, folders or patterns")
    layouts = "auto, libero, robomimic, aloha, droid, mobile_vla or calvin"
    add("--layout", type=str, default="auto", help=layouts)
    add("--instruction", type=str | None, default=None, help="for episodes that have none")
    add("--suite", type=str, default="demos", help="first word of every key")
    add("--stride", type=int, default=1, help="every how many steps the policy is asked")
    add("--frames", type=str | None, default=None, help="a plan of `vla-lens sampling-plan`")
    presets = "pooled, tokens, attention, ar_steps, or a YAML or JSON file"
    add("--capture", type=str, default="pooled", help=presets)
    add(
        "--reduce",
        type=Literal["task", "episode"] | None,
        default=None,
        help="keep sums by task or episode in place of samples",
    )
    images = "how camera images are kept, as the policy saw them"
    add("--images", type=Literal["jpg", "png", "none"], default="jpg", help=images)
    add("--batch", type=int, default=1, help="rows of a policy call")
    add("--seed", type=int, default=0, help="of the sampler's noise")
    add("--out", type=str, required=True, help="folder or address of the data set")
    add("--staging", type=str | None, default=None, help="where shards wait to be uploaded")
    again = "try episodes again that could not be read before"
    add("--retry_errors", "--retry-errors", action="store_true", help=again)
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens encode ...`; returns the exit code.

    Raises:
        FileNotFoundError: if there is no episode file.
        ValueError: if an option or an episode does not fit.
    """
    choice = _choice()
    args = choice.expand(resolve_config_args(args[1:]))
    config = build_parser(args, choice).parse_args(args)
    found = _survey(config)
    runner = _runner(config, choice.build(config), found)
    report = _run(runner, config)
    _print_report(report, found, config)
    return 1 if report.errors and not report.episodes + report.skipped else 0


def _survey(config: Namespace) -> "Survey":
    from rich.console import Console

    from jax_bridge.episodes import survey

    with Console(stderr=True).status("looking into the files") as status:
        return survey(
            config.demos,
            layout=config.layout,
            on_file=lambda path: status.update(f"looked into {Path(path).name}"),
        )


def _runner(config: Namespace, policy: Any, found: "Survey") -> "Encoder | Reducer":
    from jax_bridge.encoding import Encoder, Reducer

    plan = _plan(config, found)
    if config.reduce is None:
        return Encoder(found.episodes, policy, plan)
    return Reducer(found.episodes, policy, plan, by=config.reduce)


def _plan(config: Namespace, found: "Survey") -> "EncodePlan":
    from cli.collect import capture_of
    from jax_bridge.encoding import EncodePlan

    frames = None
    if config.frames is not None:
        from datamodules.frames.plan_file import match_names, read_plan

        frames = match_names(read_plan(config.frames), [e.source for e in found.episodes])
    return EncodePlan(
        capture=capture_of(config.capture), suite=config.suite, instruction=config.instruction,
        stride=config.stride, frames=frames, images=config.images, batch=config.batch,
        seed=config.seed, retry_errors=config.retry_errors,
    )  # fmt: skip


def _run(runner: "Encoder | Reducer", config: Namespace) -> "EncodeReport":
    from cli.demos_progress import DemosProgress

    with DemosProgress(runner.total) as progress:
        return runner.run(config.out, progress, staging=config.staging)


def _print_report(report: "EncodeReport", found: "Survey", config: Namespace) -> None:
    for skipped in found.skipped[:SHOWN]:
        print(f"passed over: {skipped}")
    if len(found.skipped) > SHOWN:
        print(f"  and {len(found.skipped) - SHOWN} more")
    for line in report.errors[:SHOWN]:
        print(f"  error: {line}")
    kept = "samples" if config.reduce is None else f"samples summed by {config.reduce}"
    print(
        f"{report.episodes} episodes ({report.skipped} were there already), {report.samples:,} "
        f"{kept}, {len(found.skipped)} passed over, {len(report.errors)} errors -> {config.out}"
    )
