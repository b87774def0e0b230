"""`vla-lens ki eval`: a trained policy's success, videos, and both heads on held-out chunks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.choice import Choice
from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jax_bridge.ki.head_errors import HeadError
    from jax_bridge.policies.policy import BatchedPolicy
    from jax_bridge.rollouts.collect import CollectPlan
    from jax_bridge.rollouts.success import SuccessRate

DESCRIPTION = """Rolls a checkpoint of `ki fit` out and prints the success of every task with its
95 % interval. The flow head acts, or the FAST head, whose tokens are decoded one by one. With
--dataset both heads are also compared with recorded chunks. The rollouts are a data set in
OUT/HEAD, so that a stopped run goes on with the same command."""
HEADS = ("flow", "fast")
DEFAULT_BATCH = 8


def _env() -> Choice:
    from jax_bridge.environments.registry import ENVIRONMENTS

    return Choice("env", registry=ENVIRONMENTS, default="tabletop", what="simulator")


def build_parser(args: list[str], env: Choice) -> ArgumentParser:
    """The parser for these (expanded) arguments."""
    parser = ArgumentParser(prog="vla-lens ki eval", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "--checkpoint", type=str | None, default=None, help="RUN/checkpoints/STEP of `ki fit`"
    )
    parser.add_argument(
        "--head", type=Literal["flow", "fast", "both"], default="flow", help="who acts"
    )
    env.add_to(parser, args)
    _add_rollout(parser)
    _add_output(parser)
    return parser


def _add_rollout(parser: ArgumentParser) -> None:
    parser.add_argument("--tasks", type=str, default=":", help="half-open range; all by default")
    parser.add_argument(
        "--episodes", type=str, default="0:4",
        help="half-open range of starts of every task; take others than were trained on",
    )  # fmt: skip
    parser.add_argument("--replan", type=int, default=5, help="steps sent of each chunk")
    parser.add_argument(
        "--num_steps", "--num-steps", type=int, default=10, help="flow steps of the sampler"
    )
    parser.add_argument(
        "--max_steps", "--max-steps", type=int | None, default=None, help="limit of an episode"
    )
    parser.add_argument("--seed", type=int, default=0, help="of starts and of the sampler's noise")
    parser.add_argument(
        "--instructions", type=str | None, default=None,
        help="what the policy is told in place of the tasks' words: swapped, empty, scrambled, or "
        "a YAML file (docs/instructions.md)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that step simulators; 0: this one does"
    )
    parser.add_argument(
        "--batch", type=int, default=DEFAULT_BATCH, help="rows of a policy call with workers"
    )


def _add_output(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str | None, default=None, help="folder of the results")
    parser.add_argument("--videos", type=int, default=4, help="episodes that become GIFs")
    parser.add_argument(
        "--dataset", type=str | None, default=None,
        help="demonstrations whose held-out chunks both heads are compared with",
    )  # fmt: skip
    parser.add_argument(
        "--held_out", "--held-out", type=float, default=0.02,
        help="share of the episodes of --dataset that was held out, as in `ki fit`",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=256, help="most chunks that are compared")


def main(args: list[str]) -> int:
    """Runs `vla-lens ki eval ...`; returns the exit code.

    Raises:
        FileNotFoundError: if the checkpoint or a data set is not there.
        ValueError: if settings do not fit the checkpoint.
    """
    env = _env()
    args = env.expand(resolve_config_args(args[1:] if args[:1] == ["eval"] else args))
    config = build_parser(args, env).parse_args(args)
    _check(config)
    report: dict[str, Any] = {"checkpoint": config.checkpoint, "success": {}, "chunks": {}}
    policies = _policies(config, HEADS if config.dataset or config.head == "both" else ())
    environment = env.build(config)
    try:
        for head in HEADS if config.head == "both" else (config.head,):
            rates = _roll_out(config, environment, env, policies[head], head)
            report["success"][head] = [rate.to_json() for rate in rates]
            _print_rates(head, rates)
    finally:
        environment.close()
    if config.dataset:
        errors = _compare(config, policies)
        _print_errors(errors)
        report["chunks"] = {
            head: {**error._asdict(), "by_dim": error.by_dim.tolist()}
            for head, error in errors.items()
        }
    fast: Any = policies.get("fast")
    if fast is not None:
        print(f"FAST sequences that were no chunk: {fast.failures}")
        report["fast_failures"] = fast.failures
    path = Path(config.out) / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"-> {path}")
    return 0


def _check(config: Namespace) -> None:
    for name, text in (
        ("checkpoint", "name a checkpoint. Add --checkpoint RUN/checkpoints/STEP"),
        ("out", "name the folder of the results. Add --out DIR"),
    ):
        if config[name] is None:
            raise ValueError(f"`--{name}` must {text}.")
    for name, least in (("videos", 0), ("workers", 0), ("samples", 1), ("batch", 1)):
        if config[name] < least:
            raise ValueError(f"`--{name}` must be at least {least}, but got {config[name]}.")
    if not 0 < config.held_out < 1:
        raise ValueError(f"`--held_out` must lie in (0, 1), but got {config.held_out}.")


def _policies(config: Namespace, heads: tuple[str, ...]) -> dict[str, "BatchedPolicy"]:
    from jax_bridge.policies.fast_policy import FastPolicy
    from jax_bridge.policies.pi0_policy import Pi0Policy

    made: dict[str, BatchedPolicy] = {}
    for head in heads or (config.head,):
        if head == "flow":
            made[head] = Pi0Policy(
                checkpoint=config.checkpoint, num_steps=config.num_steps, seed=config.seed
            )
        else:
            made[head] = FastPolicy(checkpoint=config.checkpoint)
        # Read now, so that a checkpoint that is not there is said before a simulator starts.
        assert made[head].action_horizon > 0
    return made


def _plan(config: Namespace, environment: Any) -> "CollectPlan":
    from jax_bridge.pi0 import CaptureSpec
    from jax_bridge.rollouts.collect import CollectPlan
    from jax_bridge.rollouts.instruction_file import read_instructions
    from jax_bridge.rollouts.protocol import RolloutProtocol
    from jax_bridge.rollouts.selection import parse_range

    return CollectPlan(
        tasks=parse_range(config.tasks, name="--tasks", size=len(environment.tasks)),
        episodes=parse_range(config.episodes, name="--episodes", size=environment.episodes),
        capture=CaptureSpec.preset("pooled"),
        images="jpg" if config.videos else "none",
        instructions=config.instructions
        and read_instructions(config.instructions, environment.tasks),
        protocol=RolloutProtocol(
            replan=config.replan,
            max_steps=config.max_steps or environment.max_steps,
            after_success=0,
            seed=config.seed,
            batch=config.batch if config.workers else 1,
        ),
    )  # fmt: skip


def _roll_out(
    config: Namespace, environment: Any, env: Choice, policy: "BatchedPolicy", head: str
) -> list["SuccessRate"]:
    from cli.progress import EpisodeProgress
    from jax_bridge.policies.actions_only import ActionsOnly
    from jax_bridge.rollouts.collect import Collector
    from jax_bridge.rollouts.lock_step import LockStepCollector
    from jax_bridge.rollouts.success import success_rates
    from jax_bridge.rollouts.videos import write_videos
    from jax_bridge.shards import open_dataset

    plan, actor = _plan(config, environment), ActionsOnly(policy)
    out = Path(config.out) / head
    if config.workers:
        collector: Any = LockStepCollector(
            environment, env.factory(config), actor, plan, workers=config.workers
        )
    else:
        collector = Collector(environment, actor, plan)
    with EpisodeProgress(len(plan.tasks) * len(plan.episodes)) as progress:
        report = collector.run(str(out), progress)
    for line in report.errors:
        print(f"  error: {line}")
    dataset = open_dataset(out)
    if config.videos:
        cameras = _cameras(dataset)
        for path in write_videos(dataset, cameras, out / "videos", most=config.videos):
            print(f"video: {path}")
    return success_rates(dataset)


def _cameras(dataset: Any) -> list[str]:
    """Cameras of which pictures were kept."""
    from jax_bridge.shards.index_rows import member_column
    from jax_bridge.vocabulary import CAMERAS

    there = set(dataset.index.column_names)
    return [c.name for c in CAMERAS if member_column(f"{c.name}.jpg", "offset") in there]


def _compare(config: Namespace, policies: Mapping[str, "BatchedPolicy"]) -> dict[str, "HeadError"]:
    import numpy as np

    from jax_bridge.demos.description import demonstrations_of
    from jax_bridge.ki.head_errors import head_errors
    from jax_bridge.shards import open_dataset, split_rows

    dataset = open_dataset(config.dataset)
    sizes = demonstrations_of(dataset.info, dataset.path)
    rows = split_rows(dataset.index, fractions=(1 - config.held_out, config.held_out, 0.0))["val"]
    chosen = np.random.default_rng(config.seed).permutation(rows)[: config.samples]
    return head_errors(policies, dataset, np.sort(chosen), sizes.cameras)


def _print_rates(head: str, rates: list["SuccessRate"]) -> None:
    width = max(len(rate.name) for rate in rates)
    print(f"{head + ' head':<{width}}  success     rate  95 % interval")
    for rate in rates:
        low, high = rate.interval
        share = rate.successes / rate.episodes
        print(
            f"{rate.name:<{width}}  {rate.successes:>3}/{rate.episodes:<3}  {share:>6.1%}  "
            f"{low:.1%} to {high:.1%}"
        )


def _print_errors(errors: Mapping[str, "HeadError"]) -> None:
    print(f"{'held-out chunks':<16} {'samples':>8} {'mean squared':>13} {'first step':>11}")
    for head, error in errors.items():
        print(
            f"{head + ' head':<16} {error.samples:>8} {error.mean_squared:>13.5g} "
            f"{error.first_step:>11.5g}"
        )
