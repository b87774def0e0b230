"""`vla-lens collect`: roll a policy out, capture latents, write episode shards."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.choice import Choice
from cli.configs import resolve_config_args
from cli.serve_extra import require_serve_extra

if TYPE_CHECKING:
    from jax_bridge.environments.environment import Environment
    from jax_bridge.pi0 import CaptureSpec
    from jax_bridge.policies.policy import Policy
    from jax_bridge.rollouts.collect import Collector, CollectPlan, CollectReport
    from jax_bridge.rollouts.demonstrations import DemoCollector
    from jax_bridge.rollouts.lock_step import LockStepCollector

DESCRIPTION = """Rolls a policy (or a demonstrator that the policy watches) through tasks and
episodes, captures the latents that --capture names, and writes whole episodes to WebDataset
shards. A run that was stopped goes on where it stopped. --record demos writes a demonstrator's
frames with the actions that follow them, to train from (docs/demos.md). --intervene FILE, short for
--policy.intervene, changes activations at every call (docs/interventions.md)."""


DEFAULT_BATCH = 8
"""Rows of a policy call where there are workers: the same for any number of them."""
SHOWN_ERRORS = 5
"""Failed episodes that are printed; all stand in `errors.jsonl`."""


def _choices() -> tuple[Choice, Choice]:
    from jax_bridge.environments.registry import ENVIRONMENTS
    from jax_bridge.policies.registry import POLICIES

    return (
        Choice("env", registry=ENVIRONMENTS, default="tabletop", what="simulator"),
        Choice("policy", registry=POLICIES, default="pi0", what="kind of policy"),
    )


def build_parser(args: list[str], choices: tuple[Choice, ...]) -> ArgumentParser:
    """The parser for these (expanded) arguments: the chosen classes add their own options."""
    parser = ArgumentParser(prog="vla-lens collect", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    for choice in choices:
        choice.add_to(parser, args)
    _add_selection(parser)
    _add_rollout(parser)
    _add_scale(parser)
    _add_record(parser)
    _add_output(parser)
    return parser


def _add_selection(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tasks", type=str, default=":", help="half-open range, 0:5; all by default"
    )
    parser.add_argument(
        "--episodes", type=str, default="0:1", help="half-open range of starts of every task, 0:2"
    )


def _add_rollout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--drive",
        type=Literal["policy", "demonstrator"],
        default="policy",
        help="whose actions are sent; with demonstrator the policy only watches",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="standard deviation of noise on the demonstrator's translation, in action units",
    )
    parser.add_argument(
        "--stride",
        type=int | None,
        default=None,
        help="steps between captures; by default at every driving call",
    )
    parser.add_argument("--replan", type=int, default=5, help="steps sent of each chunk")
    parser.add_argument(
        "--max_steps", "--max-steps", type=int | None, default=None, help="limit of an episode"
    )
    parser.add_argument(
        "--after_success",
        "--after-success",
        type=int,
        default=10,
        help="steps that follow the first success, to see whether it lasts",
    )
    parser.add_argument("--seed", type=int, default=0, help="of starts and of all noise")
    parser.add_argument(
        "--instructions",
        type=str | None,
        default=None,
        help="what the policy is told in place of the tasks' words: swapped, empty, scrambled, or "
        "a YAML file (docs/instructions.md)",
    )


def _add_scale(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that step simulators for one batched policy; 0: one, in this process",
    )
    parser.add_argument(
        "--batch",
        type=int | None,
        default=None,
        help="rows of every policy call, at least as many as workers; by default 8, or 1 without "
        "workers. Results depend on it in their last bits, never on --workers",
    )
    parser.add_argument(
        "--shard",
        type=str,
        default="0/1",
        help="i/n: the part of all episodes that this host rolls out, i from 0 to n-1",
    )


def _add_record(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--record",
        type=Literal["latents", "demos"],
        default="latents",
        help="latents of a policy, or a demonstrator's frames with the actions that follow them",
    )
    parser.add_argument(
        "--horizon", type=int, default=10, help="actions a chunk, of --record demos"
    )


def _add_output(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--capture",
        type=str,
        default="pooled",
        help="pooled, tokens, attention, ar_steps, or a YAML or JSON file",
    )
    parser.add_argument(
        "--images",
        type=Literal["jpg", "png", "none"],
        default="jpg",
        help="how camera images are kept, as the policy saw them",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="folder or address (s3://bucket/data) of the data set",
    )
    parser.add_argument(
        "--staging",
        type=str | None,
        default=None,
        help="folder where shards wait until they are uploaded, if --out is an address; by "
        "default below $VLA_LENS_CACHE or the user's cache folder",
    )
    parser.add_argument(
        "--estimate", action="store_true", help="print bytes, samples and time, and stop"
    )
    parser.add_argument(
        "--retry_errors",
        "--retry-errors",
        action="store_true",
        help="run episodes again that ended in an error before",
    )


def _plan(config: Namespace, environment: "Environment") -> "CollectPlan":
    from jax_bridge.rollouts.collect import CollectPlan
    from jax_bridge.rollouts.instruction_file import read_instructions
    from jax_bridge.rollouts.protocol import RolloutProtocol
    from jax_bridge.rollouts.selection import parse_range
    from jax_bridge.rollouts.slots import parse_shard

    return CollectPlan(
        tasks=parse_range(config.tasks, name="--tasks", size=len(environment.tasks)),
        episodes=parse_range(config.episodes, name="--episodes", size=environment.episodes),
        capture=capture_of(config.capture),
        images=config.images,
        retry_errors=config.retry_errors,
        shard=parse_shard(config.shard),
        instructions=config.instructions
        and read_instructions(config.instructions, environment.tasks),
        protocol=RolloutProtocol(
            drive=config.drive,
            stride=config.stride,
            replan=config.replan,
            max_steps=environment.max_steps if config.max_steps is None else config.max_steps,
            after_success=config.after_success,
            noise=config.noise,
            seed=config.seed,
            batch=_batch(config),
        ),
    )


def _batch(config: Namespace) -> int:
    if config.workers < 0:
        raise ValueError(f"`--workers` must not be negative, but got {config.workers}.")
    if not config.workers and config.batch not in (None, 1):
        raise ValueError(
            f"`--batch` must be 1 without workers, but got {config.batch}. Add --workers N."
        )
    if config.batch is not None:
        return config.batch
    return DEFAULT_BATCH if config.workers else 1


def capture_of(text: str) -> "CaptureSpec":
    """A preset by name, or a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such preset, or the file cannot be read as one.
    """
    from jax_bridge.pi0 import CaptureSpec

    if Path(text).suffix in (".yaml", ".yml", ".json"):
        return CaptureSpec.from_file(text)
    return CaptureSpec.preset(text)


def _print_estimate(environment: "Environment", policy: "Policy", plan: "CollectPlan") -> None:
    from jax_bridge.rollouts.estimate import estimate, measure_seconds

    cost = estimate(environment, policy, plan)
    print(f"episodes  {cost.episodes}")
    print(f"samples   at most {cost.samples:,}")
    print(
        f"bytes     at most {cost.bytes / 1e6:,.1f} MB "
        f"({cost.bytes_per_sample / 1e3:,.1f} kB a sample as tried, images included)"
    )
    print(f"memory    at most {cost.host_bytes / 1e6:,.1f} MB beyond parameters and simulators")
    seconds = measure_seconds(environment, policy, plan)
    shown = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.1f} min"
    print(f"time      at most {shown} (one start and two policy calls tried)")


def _say_left_out(policy: "Policy", plan: "CollectPlan") -> None:
    there = policy.fields(plan.capture)
    missing = [name for name in plan.capture.names if name not in there]
    if not there:
        print("no latents are written: the policy's server gives actions alone")
    elif missing:
        print(f"left out, since this model has no such tokens: {', '.join(missing)}")


def _print_report(report: "CollectReport", out: str) -> None:
    rate = f"{report.successes}/{report.episodes}" if report.episodes else "-"
    print(
        f"{report.episodes} episodes ({report.skipped} were there already), "
        f"{report.samples:,} samples, success {rate}, {len(report.errors)} errors -> {out}"
    )
    for line in report.errors[:SHOWN_ERRORS]:
        print(f"  error: {line}")
    if len(report.errors) > SHOWN_ERRORS:
        print(f"  and {len(report.errors) - SHOWN_ERRORS} more")
    if report.errors:
        print(f"  all are in {out.rstrip('/')}/errors.jsonl; --retry-errors runs them again")


def main(args: list[str]) -> int:
    """Runs `vla-lens collect ...`; returns the exit code."""
    choices = _choices()
    args = resolve_config_args(args[1:] if args[:1] == ["collect"] else args)
    args = _with_remote([_spelled_out(arg) for arg in args])
    for choice in choices:
        args = choice.expand(args)
    config = build_parser(args, choices).parse_args(args)
    environment = choices[0].build(config)
    try:
        if config.record == "demos":
            _refuse_policy(args, config)
            return _record_demos(config, environment)
        return _run(config, environment, choices[1].build(config), choices[0].factory(config))
    finally:
        environment.close()


def _spelled_out(arg: str) -> str:
    """`--intervene FILE` is short for the policy's own option."""
    flag, equals, value = arg.partition("=")
    return f"--policy.intervene{equals}{value}" if flag == "--intervene" else arg


def _with_remote(args: list[str]) -> list[str]:
    """`--policy.remote ADDRESS` chooses the remote policy, unless a policy is chosen."""
    flags = {arg.partition("=")[0] for arg in args}
    if "--policy.remote" not in flags:
        return args
    require_serve_extra("--policy.remote")
    if not {"--policy", "--policy.name"} & flags:
        return ["--policy", "remote", *args]
    return args


def _refuse_policy(args: Sequence[str], config: Namespace) -> None:
    """Nothing that was asked for is left out silently."""
    for arg in args:
        if arg.startswith("--policy"):
            raise ValueError(
                f"`{arg.partition('=')[0]}` must be left out with --record demos, which asks no "
                "policy, but it is given."
            )
    if config.workers:
        raise ValueError(
            f"`--workers` must be left out with --record demos, but got {config.workers}."
        )
    if config.instructions is not None:
        raise ValueError(
            "`--instructions` must be left out with --record demos, which keeps the tasks' own "
            f"words, but got {config.instructions}."
        )
    if config.estimate:
        raise ValueError("`--estimate` must be left out with --record demos, but it is given.")


def _record_demos(config: Namespace, environment: Any) -> int:
    from jax_bridge.rollouts.demonstrations import DemoCollector

    config.stride = 1 if config.stride is None else config.stride
    plan = _plan(config, environment)
    return _collect(config, plan, DemoCollector(environment, plan, horizon=config.horizon))


@contextlib.contextmanager
def _explained_interrupt(out: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        where = f"at {out} or in the staging folder" if "://" in out else f"in {out}"
        raise KeyboardInterrupt(
            f"finished episodes are kept {where}, the same command goes on from there"
        ) from interrupt


def _run(
    config: Namespace, environment: Any, policy: Any, make_environment: Callable[[], Any]
) -> int:
    from jax_bridge.rollouts.collect import Collector
    from jax_bridge.rollouts.lock_step import LockStepCollector

    plan = _plan(config, environment)
    if config.estimate:
        _print_estimate(environment, policy, plan)
        return 0
    _require_out(config)
    _say_left_out(policy, plan)
    if not config.workers:
        return _collect(config, plan, Collector(environment, policy, plan))
    collector = LockStepCollector(
        environment, make_environment, policy, plan, workers=config.workers
    )
    return _collect(config, plan, collector)


def _require_out(config: Namespace) -> None:
    if config.out is None:
        raise ValueError("`--out` must name the folder of the data set. Add --out DIR.")


def _collect(
    config: Namespace,
    plan: "CollectPlan",
    collector: "Collector | LockStepCollector | DemoCollector",
) -> int:
    from cli.progress import EpisodeProgress
    from jax_bridge.rollouts.slots import part_of

    _require_out(config)
    total = len(part_of(range(len(plan.tasks) * len(plan.episodes)), *plan.shard))
    with EpisodeProgress(total) as progress, _explained_interrupt(config.out):
        report = collector.run(config.out, progress, staging=config.staging)
    _print_report(report, config.out)
    return 1 if report.errors and not report.episodes else 0
